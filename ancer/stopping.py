"""When to stop drawing: rules that look at the votes so far. Soundness never depends on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from torch import Tensor

from ancer.confidence.bounds import anytime_lower, anytime_upper
from ancer.confidence.looks import Plan
from ancer.noise.law import Noise, gap_of
from ancer.queries import Stream


@dataclass(frozen=True)
class Running:
    """Images whose votes are being counted: what a rule may look at.

    Arrays hold one number an image. count, rival, drawn: votes for the class and for the runner-up,
    of so many draws; n: the most that will be drawn; gap: that of the certificate if drawing
    stopped now, <= 0 where it would abstain; attainable: the same at the end if all further votes
    were for the class; theta_min, theta_gmean: smallest theta and geometric mean.
    """

    noise: Noise
    count: np.ndarray
    rival: np.ndarray
    drawn: np.ndarray
    n: int
    gap: np.ndarray
    attainable: np.ndarray
    theta_min: np.ndarray
    theta_gmean: np.ndarray

    def largest(self, level: float) -> np.ndarray:
        """The largest gap that more draws can give; wrong at some draw with probability <= level.

        Never above `attainable`, which is certain, nor below `gap`, which is there.
        """
        likely = likely_gap(self.noise, self.count, self.rival, self.drawn, level)
        return np.maximum(np.minimum(likely, self.attainable), self.gap)


def likely_gap(
    noise: Noise, count: np.ndarray, rival: np.ndarray, drawn: np.ndarray, level: float
) -> np.ndarray:
    """What no gap will exceed, however many draws follow: wrong at one with probability <= level.

    count, rival: votes of `drawn` draws for the class and for the runner-up.
    """
    p_a = anytime_upper(count, drawn, level / 2)
    p_b = anytime_lower(rival, drawn, level / 2)
    return gap_of(noise, p_a, p_b)


@dataclass(frozen=True)
class Target:
    """Stop when it is settled whether the region reaches a radius, or a proxy radius.

    It is reached when the certificate's own is; given up when, at level `futility`, it never will
    be. Giving up wrongly costs radius, not soundness.

    Args:
        radius, proxy_radius: one of them, > 0.
        futility: in (0, 1).

    Raises:
        ValueError: outside these domains.

    Example:
        >>> x = torch.tensor([[0.9, 0.1]])
        >>> rule = Target(radius=0.2)
        >>> (c,) = certify(nn.Identity(), x, GaussianNoise(0.25), n=100_000, stop=rule)
        >>> c.n < 100_000 and c.radius >= 0.2
        True
    """

    radius: float | None = None
    proxy_radius: float | None = None
    futility: float = 0.01

    def __post_init__(self):
        both = self.radius is not None and self.proxy_radius is not None
        radius = self.proxy_radius if self.radius is None else self.radius
        if both or not isinstance(radius, Real) or not 0 < radius < np.inf:
            self._refuse()
        _check_level("futility", self.futility)

    def _refuse(self):
        raise ValueError(
            "give either radius or proxy_radius, a number > 0, found "
            f"{self.radius!r} and {self.proxy_radius!r}"
        )

    def __call__(self, running: Running) -> np.ndarray:
        if self.proxy_radius is None:
            target = self.radius
            scale = running.theta_min
        else:
            # it is computed in other ways than here, which may differ in the last digits
            target = self.proxy_radius * (1 + 1e-12)
            scale = running.theta_gmean
        reached = scale * running.gap >= target
        hopeless = scale * running.largest(self.futility) < target
        return reached | hopeless


@dataclass(frozen=True)
class Improvement:
    """Stop when more draws can widen the region by less than a factor 1 + eps, at `futility`.

    Args:
        eps: > 0.
        futility: in (0, 1).

    Raises:
        ValueError: outside these domains.

    Example:
        >>> x = torch.tensor([[0.9, 0.1]])
        >>> rule = Improvement(0.1)
        >>> certify(nn.Identity(), x, GaussianNoise(0.25), n=100_000, stop=rule)[0].n < 100_000
        True
    """

    eps: float = 0.05
    futility: float = 0.05

    def __post_init__(self):
        if not 0 < self.eps < np.inf:
            raise ValueError(f"eps must be > 0, found {self.eps}")
        _check_level("futility", self.futility)

    def __call__(self, running: Running) -> np.ndarray:
        enough = running.largest(self.futility) <= (1 + self.eps) * running.gap
        return (running.gap > 0) & enough


@dataclass(frozen=True)
class Hopeless:
    """Stop where the radius, at level `futility`, stays below `radius`: abstain early.

    Args:
        radius: >= 0.
        futility: in (0, 1).

    Raises:
        ValueError: outside these domains.

    Example:
        >>> x = torch.tensor([[0.5, 0.5]])
        >>> rule = Hopeless(radius=0.1)
        >>> certify(nn.Identity(), x, GaussianNoise(0.25), n=100_000, stop=rule)[0].n < 100_000
        True
    """

    radius: float = 0.0
    futility: float = 0.05

    def __post_init__(self):
        if not 0 <= self.radius < np.inf:
            raise ValueError(f"radius must be >= 0, found {self.radius}")
        _check_level("futility", self.futility)

    def __call__(self, running: Running) -> np.ndarray:
        radius = running.theta_min * running.largest(self.futility)
        return (radius < self.radius) | (running.attainable <= 0)


@dataclass(frozen=True)
class Grid:
    """Stop when it is settled, at level `futility`, between which two of `radii` the radius lies.

    Args:
        radii: >= 0, ascending: those of a table of certified accuracy, which then stays as it would
            be with all draws; the radius itself is a lower bound (and any average of it).
        futility: in (0, 1).

    Raises:
        ValueError: outside these domains.

    Example:
        >>> x = torch.tensor([[0.9, 0.1]])
        >>> rule = Grid([0, 0.25, 0.5, 0.75])
        >>> certify(nn.Identity(), x, GaussianNoise(0.25), n=100_000, stop=rule)[0].n < 100_000
        True
    """

    radii: Sequence[float]
    futility: float = 0.01

    def __post_init__(self):
        if np.ndim(self.radii) != 1:
            raise ValueError(
                f"radii must be several numbers, found {self.radii!r}: Grid.every(step)"
            )
        if not len(self.radii) or not (np.diff([-np.inf, *self.radii, np.inf]) > 0).all():
            raise ValueError(f"radii must be ascending numbers, found {list(self.radii)}")
        if self.radii[0] < 0:
            raise ValueError(f"radii must be >= 0, found {self.radii[0]}")
        _check_level("futility", self.futility)

    @classmethod
    def every(cls, step: float) -> "Grid":
        """Of the thousand multiples of a step."""
        if not 0 < step < np.inf:
            raise ValueError(f"the step of a grid must be > 0, found {step}")
        return cls((np.arange(1000) * step).tolist())

    def __call__(self, running: Running) -> np.ndarray:
        now = running.theta_min * np.maximum(running.gap, 0)
        later = running.theta_min * np.maximum(running.largest(self.futility), 0)
        # a table asks for radius >= r, and at 0 for a certificate at all
        cells = np.array([np.nextafter(0, 1), *(r for r in self.radii if r > 0)])
        return np.searchsorted(cells, now, "right") == np.searchsorted(cells, later, "right")


Rule = Callable[[Running], np.ndarray]


def as_rules(stop: Rule | Sequence[Rule] | None) -> list[Rule]:
    """One rule or several as a list; ValueError where it is none."""
    if stop is None:
        return []
    rules = list(stop) if isinstance(stop, Sequence) else [stop]
    if not rules or not all(callable(rule) and not isinstance(rule, type) for rule in rules):
        raise ValueError(
            f"stop must be a rule such as Improvement(0.05), or several, found {stop!r}"
        )
    return rules


def asked(rule: Rule, running: Running) -> np.ndarray:
    """What a rule says of each image: bool (B,); ValueError where it is something else."""
    said = np.asarray(rule(running))
    if said.dtype != bool or said.shape != running.count.shape:
        found = f"{said.dtype} of shape {said.shape}" if said.shape else repr(said.item())
        raise ValueError(
            f"a stop rule must say True or False of each image, a bool array of shape "
            f"{running.count.shape}; {rule} said {found}"
        )
    return said


class Tally:
    """Votes of images that draw on, each until it is stopped or has all draws of a plan.

    active: (A,) positions of the images that draw on; drawn: (B,) draws of each so far.
    """

    def __init__(self, stream: Stream, plan: Plan):
        self._stream = stream
        self._counts: Tensor | None = None
        self.plan = plan
        self.drawn = np.zeros(len(stream.queries), dtype=np.int64)
        self.active = np.arange(len(stream.queries))

    def draw(self) -> None:
        """Draw each active image up to its next look.

        The plan is for each image alone, so its result does not depend on the others, and one that
        stops makes room in the batches.
        """
        drawn = self.drawn[self.active]
        step = np.zeros_like(self.drawn)
        step[self.active] = self.plan.next(drawn) - drawn
        more = self._stream.counts(step.tolist())
        if self._counts is not None:
            more = self._counts + more
        self._counts = more
        self.drawn = self.drawn + step

    def stop(self, where: np.ndarray) -> None:
        """Stop active images, (A,) true or false; those with all draws stop by themselves."""
        done = where | (self.drawn[self.active] >= self.plan.n)
        self.active = self.active[~done]

    def votes(self, images: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Votes of some images for one class each, and for the runner-up, the most of another."""
        if self._counts is None:
            none = np.zeros(len(images), dtype=np.int64)
            return none, none
        others = self._counts.numpy()[images]
        rows = np.arange(len(images))
        count = others[rows, classes].copy()
        others[rows, classes] = 0
        return count, others.max(axis=1)

    def all_votes(self) -> np.ndarray:
        """Votes of all images by class: (B, K)."""
        if self._counts is None:
            return np.zeros((len(self.drawn), 1), dtype=np.int64)
        return self._counts.numpy()


def _check_level(name: str, level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"{name} must lie in (0, 1), found {level}")
