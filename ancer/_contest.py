"""Several noises of one law that compete for each image: what is known of each, turn by turn."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ancer.certificates.many import Certificates
from ancer.certification import Counted, certificates, counted_all
from ancer.confidence.looks import Always, Bounds, Looks
from ancer.noise.law import Noise
from ancer.queries import Queries, gap_of_votes
from ancer.regions.region import ABSTAIN
from ancer.stopping import Tally, likely_gap

# at which a candidate is given up; wrongly given up, it costs volume, not soundness
FUTILITY = 0.01


class Contest:
    """Candidates for each image, and what is known of them: arrays (candidates, B).

    classes: chosen by `choose_classes`; draws, lower, upper, gap: draws, the bounds on the
    probabilities, and the gap, 0, 1 and none until counted; votes (candidates, B, K); axes
    (candidates, B, ...): semi-axes, 0 until then.
    """

    def __init__(self, queries: Sequence[Queries], levels: np.ndarray, n: int, of: str):
        shape = (len(queries), len(queries[0]))
        self.queries = queries
        self.levels = levels  # (candidates,) shares of alpha
        self.end = Looks.once(n)
        self.of = of  # whose probabilities are bounded: one class, or two
        self.images = np.arange(len(queries[0]))
        self.classes = np.zeros(shape, dtype=np.int64)
        self.draws = np.zeros(shape, dtype=np.int64)
        self.lower = np.zeros(shape)
        self.upper = np.ones(shape)
        self.gap = np.full(shape, -np.inf)
        self.axes = torch.zeros(len(queries), *queries[0].x.shape, dtype=torch.float64)

    @property
    def law(self) -> Noise:
        """The law of all candidates."""
        return self.queries[0].law

    @property
    def certified(self) -> np.ndarray:
        """The classes certified so far, ABSTAIN elsewhere."""
        return np.where(self.gap > 0, self.classes, ABSTAIN)

    def choose_classes(self, n0: int, seed: int) -> np.ndarray:
        """Each candidate's class by n0 draws; returns the proxy radius that they promise."""
        promises = np.zeros(self.gap.shape)
        for k, queries in enumerate(self.queries):
            votes = queries.counts(n0, seed=seed, purpose="select")
            self.classes[k] = votes.argmax(dim=1).numpy()
            # votes of n draws at the same shares, half a vote added to each
            ranked = votes.sort(dim=1, descending=True).values.numpy()
            expected = (ranked + 0.5) / (n0 + 1) * self.end.n
            rival = expected[:, 1:2].sum(axis=1)  # 0 where there is one class only
            level = self.levels[k]
            gap = gap_of_votes(self.law, expected[:, 0], rival, self.end.n, level, self.of)
            promises[k] = gap * queries.theta_gmean
        self.votes = np.zeros((*self.gap.shape, votes.shape[1]), dtype=np.int64)
        return promises

    def needed(self, report: str, turn: np.ndarray) -> np.ndarray:
        """The gap above which candidate turn[i] of image i would add to what is found: (B,)."""
        theta = self._theta(turn)
        if report == "superset":
            return self._needed_for_superset(turn, theta)
        of_turn = self.queries[0].scaled(theta)
        # the volume of the largest region found
        found = self.axes.flatten(2)
        proxies = found.clamp(min=1e-300).log().mean(dim=2).exp().amax(dim=0).numpy()
        volume = proxies / of_turn.theta_gmean
        if report == "largest":
            return volume
        # or the radius of the largest of this class
        same = torch.from_numpy(self.certified == self.classes[turn, self.images])
        radii = (found.amin(dim=2) * same).amax(dim=0).numpy()
        return np.minimum(volume, radii / of_turn.theta_min)

    def _needed_for_superset(self, turn: np.ndarray, theta: Tensor) -> np.ndarray:
        kept = self.last_superset()
        gap = (self.axes[kept, self.images] / theta).flatten(1).amax(dim=1).numpy()
        kept_class = self.certified[kept, self.images]
        possible = (kept_class == ABSTAIN) | (kept_class == self.classes[turn, self.images])
        return np.where(possible, gap, np.inf)

    def count(self, turn: np.ndarray, needed_gap: np.ndarray, seed: int) -> None:
        """Count candidate turn[i] of image i to the end, or until it cannot exceed needed_gap.

        For certain, or, where it is not the baseline, at level FUTILITY; the bound is then 0.
        """
        theta = self._theta(turn)
        queries = self.queries[0].scaled(theta.to(self.queries[0].theta))
        tally = Tally(queries.stream(seed, "certify"), Always(self.end.n))
        classes = self.classes[turn, self.images]
        levels = self.levels[turn]

        # 1. until it cannot exceed what is needed
        while len(tally.active):
            images = tally.active
            count, rival = tally.votes(images, classes[images])
            drawn = tally.drawn[images]
            best = self.end.attainable(count, rival, drawn, levels[images], self.of)
            attainable = queries.gap(queries.of_law(best, images), images)
            likely = likely_gap(self.law, count, rival, drawn, FUTILITY)
            # the margin: whoever could tie is counted to the end
            useless = attainable <= needed_gap[images] - 1e-9
            unlikely = (likely < needed_gap[images]) & (turn[images] > 0)
            tally.stop(useless | unlikely)
            if len(tally.active):
                tally.draw()

        # 2. bounds of those that were counted to the end
        count, rival = tally.votes(self.images, classes)
        bounds = queries.of_law(self.end.bounds(count, rival, self.end.n, levels, self.of))
        ended = tally.drawn == self.end.n
        gap = np.where(ended, queries.gap(bounds), -np.inf)
        bounds = Bounds(np.where(ended, bounds.lower, 0.0), np.where(ended, bounds.upper, 1.0))
        counted = Counted(classes, tally.all_votes(), tally.drawn, bounds, gap)
        self._keep((turn, self.images), counted, theta)

    def count_all(self) -> None:
        """Count every candidate of a deterministic law to its end."""
        found = list(map(counted_all, self.queries))
        self.votes = np.zeros((len(found), *found[0].votes.shape), dtype=np.int64)
        for k, counted in enumerate(found):
            self._keep(k, counted, self.queries[k].theta.double().cpu())

    def _keep(
        self, at: int | tuple[np.ndarray, np.ndarray], counted: Counted, theta: Tensor
    ) -> None:
        """Write down what was counted of one candidate of each image; theta: its scales."""
        self.classes[at] = counted.classes
        self.votes[at] = counted.votes
        self.draws[at] = counted.draws
        self.lower[at], self.upper[at] = counted.bounds
        self.gap[at] = counted.gap
        gap = torch.from_numpy(np.maximum(counted.gap, 0))
        self.axes[at] = theta * self.queries[0].per_image(gap)

    def _theta(self, turn: np.ndarray) -> Tensor:
        """Scales of candidate turn[i] round image i, in float64, like the images."""
        shape = self.queries[0].x.shape[1:]
        chosen = [self.queries[k].theta[i].expand(shape) for i, k in enumerate(turn)]
        return torch.stack(chosen).double().cpu()

    def last_superset(self) -> np.ndarray:
        """The last candidate whose region contains, for its class, each one kept before it: (B,).

        The first where there is none.
        """
        kept = np.zeros(len(self.images), dtype=np.int64)
        certified = self.certified
        for k, axes in enumerate(self.axes):
            contains = (axes >= self.axes[kept, self.images]).flatten(1).all(dim=1).numpy()
            kept_class = certified[kept, self.images]
            same_class = certified[k] == kept_class
            better = (kept_class == ABSTAIN) | (same_class & contains)
            kept[(certified[k] != ABSTAIN) & better] = k
        return kept

    def certificates(self) -> list[Certificates]:
        """Of each candidate, one an image."""
        found = []
        for k, queries in enumerate(self.queries):
            bounds = Bounds(self.lower[k], self.upper[k])
            counted = Counted(self.classes[k], self.votes[k], self.draws[k], bounds, self.gap[k])
            found.append(certificates(queries, counted, float(self.levels[k])))
        return found
