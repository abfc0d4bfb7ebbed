"""The best of several certificates of one image: never worse than the first candidate's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ancer._contest import Contest
from ancer.bases.basis import PIXELS, Basis
from ancer.bases.lattice import step_of
from ancer.certificates.certificate import Certificate
from ancer.classifier import Classifier, as_classifier
from ancer.confidence.budget import check_budget, check_whole
from ancer.noise.law import Noise
from ancer.regions.region import superset
from ancer.smoothing import SmoothedClassifier

REPORTS = ("largest", "superset", "union")


@dataclass(frozen=True, eq=False)
class Best:
    """What `certify_best` reports of one image.

    Args:
        certificates: of every candidate, each at its own share of alpha; those given up early
            abstain.
        names: the candidates reported, the largest volume first: one, or several whose regions
            together are the region.
        alpha: of all together.
        draws: noisy copies spent, selection included.

    Example:
        >>> x = torch.tensor([[0.9, 0.1]])
        >>> noises = {"narrow": GaussianNoise(0.25), "wide": GaussianNoise(0.5)}
        >>> (best,) = certify_best(nn.Identity(), x, noises, n=1000)
        >>> best.radius == best.certificate.radius > 0
        True
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
        return max(member.radius for member in self.members)

    @property
    def proxy_radius(self) -> float:
        """Proxy radius of the largest member.

        That of a union is larger, at most by a factor 2^(1/n) for two.
        """
        return self.certificate.proxy_radius

    @property
    def log_volume(self) -> float:
        """Natural logarithm of the largest member's volume."""
        return self.certificate.log_volume

    def contains(self, points: Tensor) -> Tensor:
        """Whether points (*batch, *center.shape) lie in the region reported: (*batch,)."""
        batch = points.shape[: points.dim() - self.certificate.center.dim()]
        inside = torch.zeros(batch, dtype=torch.bool)
        for member in self.members:
            if member.region is not None:
                inside |= member.region.contains(points)
        return inside


def certify_best(
    model: nn.Module | Classifier,
    x: Tensor,
    candidates: Mapping[str, Noise],
    *,
    n: int = 100_000,
    alpha: float = 0.001,
    seed: int = 0,
    n0: int = 100,
    classes: str = "two",
    shares: Mapping[str, float] | None = None,
    report: str = "largest",
    shared: bool = True,
    exact: bool = False,
    lattice: float = 1 / 255,
    indices: Sequence[int] | None = None,
) -> list[Best]:
    """Certify each image of x (B, ...) with several noises of one law, and report the best.

    A candidate gets n draws only as long as it can still matter: the others are counted in the
    order of the volume that n0 draws promise, and given up when the planned bound cannot reach what
    is needed (for all but the baseline: at level 0.01).

    Args:
        model, x, seed, n0, n, classes, shared, exact, lattice, indices: as in `certify`, which
            gives a candidate the very same votes.
        candidates: name -> noise, the baseline first (for instance fixed, isotropic, anisotropic).
            At most one basis beside pixels; isotropic candidates are drawn in it too.
        alpha: of all together.
        shares: parts of alpha, one a candidate, > 0 with sum at most 1; equal by default.
        report: which certificates.

            - "largest": the largest volume. Always at least the volume that `certify` gives the
              baseline at its part of alpha, for every image: the baseline is given up only when it
              cannot become the largest any more.
            - "superset": the last candidate whose region contains the regions of all reported
              before it in that order, or else what came before: neither ball nor volume is given
              up, at any share.
            - "union": all members that certify the class of the largest, where they add radius or
              volume. Members speak for different smoothed classifiers, so a union means something
              only where a `Memory` answers, with each member's region stored:
              `[memory.answer(member) for member in best.members]`.

    Returns:
        A `Best` an image, in their order.

    Guarantee:
        Each certificate fails with probability at most its part of alpha, so together they hold
        with probability at least 1 - alpha, whichever is reported. Under `SplittingNoise`
        certificates have no chance of error to share: all candidates are counted, and the choice is
        free.

    Raises:
        ValueError: before any work, on arguments outside their domain.

    Example:
        >>> x = torch.tensor([[0.9, 0.1]])
        >>> noises = {"wide": GaussianNoise(0.25), "tiny": GaussianNoise(0.01)}
        >>> certify_best(nn.Identity(), x, noises, n=1000)[0].names
        ('wide',)
    """
    check_budget(n, n0, alpha, classes)
    check_whole(seed=seed)
    _check_candidates(candidates, report)
    deterministic = all(noise.deterministic for noise in candidates.values())
    if deterministic:
        alpha = n0 = 0  # no chance to share, no draws to choose on
    levels = _levels(candidates, shares, alpha)
    classifier = as_classifier(model)
    step = step_of(exact, lattice)
    basis = _common_basis(candidates)
    queries = []
    for noise in candidates.values():
        smoothed = SmoothedClassifier(
            classifier, noise.in_basis(basis), lattice=step, shared=shared
        )
        queries.append(smoothed.queries(x, indices))

    contest = Contest(queries, levels, n, classes)
    if deterministic:
        contest.count_all()
    else:
        # 1. each candidate's class, and the volume that it promises, on draws of their own
        promises = contest.choose_classes(n0, seed)
        # 2. certify one after the other, each only as long as it can still matter
        turns = np.argsort(-promises, axis=0, kind="stable")  # (candidates, B)
        if report == "superset":  # in the order given
            turns = np.repeat(np.arange(len(queries))[:, None], len(x), axis=1)
        for turn in turns:
            contest.count(turn, contest.needed(report, turn), seed)
    # 3. report
    by_candidate = contest.certificates()
    supersets = contest.last_superset()
    found = []
    for i, of_image in enumerate(zip(*by_candidate, strict=True)):
        named = dict(zip(candidates, of_image, strict=True))
        reported = _reported(report, of_image, supersets[i])
        best = Best(
            certificates=named,
            names=tuple(np.array(list(candidates))[reported].tolist()),
            alpha=alpha,
            draws=int(contest.draws[:, i].sum()) + n0 * len(candidates),
        )
        found.append(best)
    return found


def _reported(report: str, candidates: Sequence[Certificate], last_superset: int) -> list[int]:
    """Which of one image's certificates are reported, the largest first; the baseline if none."""
    volumes = [candidate.log_volume for candidate in candidates]
    largest = volumes.index(max(volumes))
    if report == "largest":
        return [largest]
    if report == "superset":
        return [last_superset]
    members = [largest]
    found = [candidates[largest]]
    for k in sorted(range(len(candidates)), key=lambda k: -volumes[k]):
        if _adds(candidates[k], found):
            members.append(k)
            found.append(candidates[k])
    return members


def _adds(candidate: Certificate, members: Sequence[Certificate]) -> bool:
    """Whether a certificate says more of its class than each of the members alone."""
    if candidate.region is None or candidate.prediction != members[0].prediction:
        return False
    for member in members:
        if member.region is not None and superset(member.region, candidate.region):
            return False
    return True


def _check_candidates(candidates: Mapping[str, Noise], report: str) -> None:
    if report not in REPORTS:
        raise ValueError(f"report must be one of {REPORTS}, found {report!r}")
    if not isinstance(candidates, Mapping):
        raise ValueError(f"candidates must be noises by name, found {candidates!r}")
    laws = {type(noise) for noise in candidates.values()}
    if len(laws) != 1 or not issubclass(laws.pop(), Noise):
        raise ValueError(
            f"candidates must be one or more noises of one law, found {dict(candidates)}"
        )


def _common_basis(candidates: Mapping[str, Noise]) -> Basis:
    """The basis of all that are not isotropic; ValueError where there are several."""
    common: Basis = PIXELS
    for noise in candidates.values():
        basis = noise.basis
        if not (basis.is_pixels or common.is_pixels or basis.key == common.key):
            raise ValueError(
                f"candidates must share one basis, found {common.name} and {basis.name}"
            )
        if not basis.is_pixels:
            common = basis
    return common


def _levels(
    candidates: Mapping[str, Noise], shares: Mapping[str, float] | None, alpha: float
) -> np.ndarray:
    """Each candidate's part of alpha, in their order."""
    if shares is None:
        shares = dict.fromkeys(candidates, 1 / len(candidates))
    if set(shares) != set(candidates):
        raise ValueError(
            f"shares must name the candidates {list(candidates)}, found {list(shares)}"
        )
    parts = np.array([shares[name] for name in candidates])
    if not (parts > 0).all() or parts.sum() > 1 + 1e-9:
        raise ValueError(f"shares of alpha must be > 0 and sum to at most 1, found {dict(shares)}")
    return alpha * parts
