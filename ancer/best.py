"""The best of several certificates of one image: never worse than the first candidate's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ancer.certification import ABSTAIN, Certificate, certificates, check_budget, scales
from ancer.confidence import anytime_upper, clopper_pearson
from ancer.models import Classifier, as_classifier, check_images
from ancer.noise import Noise
from ancer.regions import superset
from ancer.smoothing import SmoothedClassifier, Stream
from ancer.stopping import draw_until

FUTILITY = 0.01  # level at which a candidate is given up; wrongly given up, it costs volume, not soundness
REPORTS = ("largest", "superset", "union")


@dataclass(frozen=True, eq=False)
class Best:
    """What `certify_best` reports of one image.

    certificates: of every candidate, each at its own share of alpha; those given up early abstain. names: the
    candidates reported, the largest volume first: one, or several whose regions together are the region. alpha: of
    all together. draws: noisy copies spent, selection included.
    """

    certificates: Mapping[str, Certificate]
    names: tuple[str, ...]
    alpha: float
    draws: int

    @property
    def members(self) -> tuple[Certificate, ...]:
        """The certificates reported; all of one class."""
        return tuple(self.certificates[name] for name in self.names)

    @property
    def certificate(self) -> Certificate:
        """The one of largest volume; its `alpha` is its own share."""
        return self.members[0]

    @property
    def prediction(self) -> int:
        """The class, or ABSTAIN."""
        return self.certificate.prediction

    @property
    def radius(self) -> float:
        """Radius of the largest lp ball in a member's region."""
        return max(c.radius for c in self.members)

    @property
    def proxy_radius(self) -> float:
        """Proxy radius of the largest member: that of a union is larger, at most by a factor 2^(1/n) for two."""
        return self.certificate.proxy_radius

    @property
    def log_volume(self) -> float:
        """Natural logarithm of the largest member's volume."""
        return self.certificate.log_volume

    def contains(self, points: Tensor) -> Tensor:
        """Whether points (*batch, *center.shape) lie in the region reported: (*batch,)."""
        inside = [c.region.contains(points) for c in self.members if c.prediction != ABSTAIN]
        shape = points.shape[: points.dim() - self.certificate.center.dim()]
        return torch.stack(inside).any(dim=0) if inside else torch.zeros(shape, dtype=torch.bool)


def certify_best(
    model: nn.Module | Classifier,
    x: Tensor,
    candidates: Mapping[str, Noise],
    *,
    n: int,
    alpha: float,
    seed: int,
    n0: int = 100,
    shares: Mapping[str, float] | None = None,
    report: str = "largest",
    exact: bool = False,
    lattice: float = 1 / 255,
    indices: Sequence[int] | None = None,
) -> list[Best]:
    """Certify each image of x (B, ...) with several noises of one law, and report the best.

    candidates: name -> noise, the baseline first (for instance fixed, isotropic, anisotropic). shares: parts of
    alpha, one a candidate, > 0 with sum at most 1; equal by default. Each certificate fails with probability at most
    its part, so together they hold with probability at least 1 - alpha, whichever is reported. The rest as in
    `certify`, which gives a candidate the very same votes.

    report:
    - "largest": the largest volume. Always at least the volume that `certify` gives the baseline at its part of
      alpha, for every image: the baseline is given up only when it cannot become the largest any more.
    - "superset": the last candidate whose region contains the regions of all reported before it in that order,
      or else what came before: neither ball nor volume is given up, at any share.
    - "union": all members that certify the class of the largest, where they add radius or volume. Members speak
      for different smoothed classifiers, so a union means something only where a `Memory` answers, with each
      member's region stored: `[memory.answer(member) for member in best.members]`.

    A candidate gets n draws only as long as it can still matter: the others are counted in the order of the volume
    that n0 draws promise, and given up when the planned bound cannot reach what is needed (for all but the
    baseline: at level 0.01). Raises ValueError, before any work, on arguments outside their domain.
    """
    check_images(x)
    classifier = as_classifier(model)
    shares = _check(candidates, shares, n, n0, alpha, report)
    names, law, step = list(candidates), next(iter(candidates.values())), lattice if exact else None
    smoothed = {name: SmoothedClassifier(classifier, noise, lattice=step) for name, noise in candidates.items()}
    theta = {name: noise.theta_for(x, step) for name, noise in candidates.items()}
    drawing = {"seed": seed, "indices": indices}
    # 1. each candidate's class, and the volume that it promises, on draws of their own
    promises, classes = [], []
    for name in names:
        votes, leader = smoothed[name].counts(x, n0, purpose="select", **drawing).max(dim=1)
        planned = clopper_pearson((votes.numpy() + 0.5) / (n0 + 1) * n, n, alpha * shares[name])
        promises.append(np.maximum(law.gap(torch.from_numpy(planned)).numpy(), 0) * scales(theta[name])[1])
        classes.append(leader.numpy())
    order = np.argsort(-np.array(promises), axis=0, kind="stable")  # (candidates, B)
    if report == "superset":
        order = np.repeat(np.arange(len(names))[:, None], len(x), axis=1)
    # 2. certify one after the other, each only as long as it can still matter
    image, classes = np.arange(len(x)), np.array(classes)
    count, drawn = np.zeros_like(classes), np.zeros_like(classes)
    lower, axes = np.zeros(classes.shape), torch.zeros(len(names), *x.shape, dtype=torch.float64)
    for turn in order:
        scale = torch.stack([theta[names[k]][i].expand(x.shape[1:]) for i, k in enumerate(turn)])
        sampler = SmoothedClassifier(classifier, type(law)(scale), lattice=step)
        level, slack = alpha * np.array(list(shares.values()))[turn], sampler.slack(x)
        certified = np.where(lower > 0.5, classes, ABSTAIN)
        gap = _needed_gap(report, scale.double().cpu(), classes[turn, image], axes, certified)
        needed = law.probability(torch.from_numpy(gap)).numpy()
        stream, of_turn = Stream(sampler, x, purpose="certify", **drawing), (turn, image)
        found = _count(stream, n, classes[of_turn], level, slack, needed, turn > 0)
        count[of_turn], drawn[of_turn], lower[of_turn] = found
        gap = law.gap(torch.from_numpy(np.maximum(lower[of_turn], 0.5)))
        axes[of_turn] = scale.double().cpu() * gap.reshape(-1, *[1] * (x.dim() - 1))
    # 3. report
    certified, last_superset = np.where(lower > 0.5, classes, ABSTAIN), np.zeros(len(x), dtype=np.int64)
    if report == "superset":
        last_superset = _last_superset(axes, certified)
    all_certificates = [
        certificates(smoothed[name], x, classes[k], count[k], drawn[k], lower[k], alpha * shares[name], indices)
        for k, name in enumerate(names)
    ]
    return [
        Best(
            certificates=dict(zip(names, of_image, strict=True)),
            names=tuple(names[k] for k in _reported(report, of_image, last_superset[i])),
            alpha=alpha,
            draws=int(drawn[:, i].sum()) + n0 * len(names),
        )
        for i, of_image in enumerate(zip(*all_certificates, strict=True))
    ]


def _count(stream: Stream, n: int, classes, level, slack, needed, may_give_up) -> tuple[np.ndarray, ...]:
    """Votes for `classes`, draws, and the bound at `level` less `slack`; draws end where it cannot exceed `needed`.

    All (B,). For certain, or, where may_give_up, at level FUTILITY; the bound is then 0.
    """

    def stop(images: np.ndarray, counts: Tensor | None, drawn: np.ndarray) -> np.ndarray:
        count = np.zeros(len(images)) if counts is None else counts.numpy()[np.arange(len(images)), classes[images]]
        attainable = clopper_pearson(count + n - drawn, n, level[images]) - slack[images]
        upper = anytime_upper(count, drawn, FUTILITY)
        # the margin: whoever could tie is counted to the end
        return (attainable <= needed[images] - 1e-12) | (may_give_up[images] & (upper < needed[images]))

    counts, drawn = draw_until(stream, n, stop)
    count = np.zeros(len(drawn), dtype=np.int64) if counts is None else counts.numpy()[np.arange(len(drawn)), classes]
    return count, drawn, np.where(drawn == n, clopper_pearson(count, n, level) - slack, 0.0)


def _needed_gap(report: str, theta: Tensor, classes: np.ndarray, axes: Tensor, certified: np.ndarray) -> np.ndarray:
    """The gap above which a region of scales theta (B, ...) for classes (B,) adds to those found: (B,).

    Found: axes (candidates, B, ...) and classes certified (candidates, B); zeros and ABSTAIN where nothing is.
    """
    if report == "superset":
        of_kept = _last_superset(axes, certified), np.arange(len(classes))
        gap = (axes[of_kept] / theta).flatten(1).amax(dim=1).numpy()
        return np.where((certified[of_kept] == ABSTAIN) | (certified[of_kept] == classes), gap, np.inf)
    (theta_min, theta_gmean), found = scales(theta), axes.flatten(2)
    volume = found.clamp(min=1e-300).log().mean(dim=2).exp().amax(dim=0).numpy() / theta_gmean
    if report == "largest":
        return volume
    same = torch.from_numpy(certified == classes)
    return np.minimum(volume, (found.amin(dim=2) * same).amax(dim=0).numpy() / theta_min)


def _last_superset(axes: Tensor, certified: np.ndarray) -> np.ndarray:
    """The last candidate whose region contains, for its class, that of each one kept before it; 0 if none: (B,)."""
    kept, image = np.zeros(axes.shape[1], dtype=np.int64), np.arange(axes.shape[1])
    for k, (a, c) in enumerate(zip(axes, certified, strict=True)):
        contains = (a >= axes[kept, image]).flatten(1).all(dim=1).numpy()
        of_kept = certified[kept, image]
        kept[(c != ABSTAIN) & ((of_kept == ABSTAIN) | ((c == of_kept) & contains))] = k
    return kept


def _reported(report: str, candidates: Sequence[Certificate], last_superset: int) -> list[int]:
    """Which of one image's certificates are reported, the largest first; the baseline where all abstain."""
    volumes = [c.log_volume for c in candidates]
    largest = volumes.index(max(volumes))
    if report == "largest":
        return [largest]
    if report == "superset":
        return [last_superset]
    certified = [k for k, c in enumerate(candidates) if c.prediction != ABSTAIN]
    members = [largest]
    for k in sorted(certified, key=lambda k: -volumes[k]):
        region, same = candidates[k].region, candidates[k].prediction == candidates[largest].prediction
        if same and not any(superset(candidates[m].region, region) for m in members):
            members.append(k)
    return members


def _check(candidates, shares, n: int, n0: int, alpha: float, report: str) -> dict[str, float]:
    """The shares, by candidate, checked with the other arguments."""
    check_budget(n, n0, alpha)
    if report not in REPORTS:
        raise ValueError(f"report must be one of {REPORTS}, found {report!r}")
    laws = {type(noise) for noise in candidates.values() if isinstance(noise, Noise)}
    if len(laws) != 1 or not all(isinstance(noise, Noise) for noise in candidates.values()):
        raise ValueError(f"candidates must be one or more noises of one law, found {dict(candidates)}")
    if shares is None:
        return dict.fromkeys(candidates, 1 / len(candidates))
    if set(shares) != set(candidates):
        raise ValueError(f"shares must name the candidates {list(candidates)}, found {list(shares)}")
    if not all(s > 0 for s in shares.values()) or sum(shares.values()) > 1 + 1e-9:
        raise ValueError(f"shares of alpha must be > 0 and sum to at most 1, found {dict(shares)}")
    return {name: shares[name] for name in candidates}
