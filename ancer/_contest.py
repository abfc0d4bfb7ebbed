"""Several noises of one law that compete for each image: what is known of each, turn by turn."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ancer.certificate import Certificate
from ancer.certification import Bounds, certificates
from ancer.confidence import anytime_upper, clopper_pearson
from ancer.noise import Noise, gap_of, probability_of
from ancer.regions.region import ABSTAIN
from ancer.smoothing import Queries
from ancer.stopping import Tally

FUTILITY = (
    0.01  # at which a candidate is given up; wrongly given up, it costs volume, not soundness
)


class Contest:
    """Candidates for each image, and what is known of them: arrays (candidates, B).

    classes: chosen by `choose_classes`; counts, draws, lower: votes for them, draws, and the bounds
    on their probabilities, 0 until counted; axes (candidates, B, ...): semi-axes, 0 until then.
    """

    def __init__(self, queries: Sequence[Queries], levels: np.ndarray, n: int):
        shape = (len(queries), len(queries[0]))
        self.queries = queries
        self.levels = levels  # (candidates,) shares of alpha
        self.n = n
        self.images = np.arange(len(queries[0]))
        self.classes = np.zeros(shape, dtype=np.int64)
        self.counts = np.zeros(shape, dtype=np.int64)
        self.draws = np.zeros(shape, dtype=np.int64)
        self.lower = np.zeros(shape)
        self.axes = torch.zeros(len(queries), *queries[0].x.shape, dtype=torch.float64)

    @property
    def law(self) -> Noise:
        """The law of all candidates."""
        return self.queries[0].law

    @property
    def certified(self) -> np.ndarray:
        """The classes certified so far, ABSTAIN elsewhere."""
        return np.where(self.lower > 0.5, self.classes, ABSTAIN)

    def choose_classes(self, n0: int, seed: int) -> np.ndarray:
        """Each candidate's class by n0 draws; returns the proxy radius that they promise."""
        promises = np.zeros(self.lower.shape)
        for k, queries in enumerate(self.queries):
            most, leader = queries.counts(n0, seed=seed, purpose="select").max(dim=1)
            expected = (most.numpy() + 0.5) / (n0 + 1) * self.n
            bound = clopper_pearson(expected, self.n, self.levels[k])
            promises[k] = np.maximum(gap_of(self.law, bound), 0) * queries.theta_gmean
            self.classes[k] = leader.numpy()
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
        tally = Tally(queries.stream(seed, "certify"), self.n)
        classes = self.classes[turn, self.images]
        levels = self.levels[turn]
        needed = probability_of(self.law, needed_gap)
        while len(tally.active):
            images = tally.active
            count = tally.votes(images, classes[images])
            drawn = tally.drawn[images]
            bound = clopper_pearson(count + self.n - drawn, self.n, levels[images])
            attainable = queries.lower(bound, images)
            # the margin: whoever could tie is counted to the end
            useless = attainable <= needed[images] - 1e-12
            unlikely = anytime_upper(count, drawn, FUTILITY) < needed[images]
            tally.stop(useless | (unlikely & (turn[images] > 0)))
            if len(tally.active):
                tally.draw()
        counts = tally.votes(self.images, classes)
        bound = queries.lower(clopper_pearson(counts, self.n, levels))
        lower = np.where(tally.drawn == self.n, bound, 0.0)
        self.counts[turn, self.images] = counts
        self.draws[turn, self.images] = tally.drawn
        self.lower[turn, self.images] = lower
        gap = torch.from_numpy(gap_of(self.law, np.maximum(lower, 0.5)))
        self.axes[turn, self.images] = theta * queries.per_image(gap)

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

    def certificates(self) -> list[list[Certificate]]:
        """Of each candidate, one an image."""
        found = []
        for k, queries in enumerate(self.queries):
            bounds = Bounds(self.classes[k], self.counts[k], self.draws[k], self.lower[k])
            found.append(certificates(queries, bounds, float(self.levels[k])))
        return found
