"""When to stop drawing: rules that look at the votes so far. Soundness never depends on them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ancer.confidence import anytime_upper
from ancer.noise import Noise, gap_of, probability_of
from ancer.smoothing import BLOCK, Stream


@dataclass(frozen=True)
class Running:
    """Images whose votes are being counted: what a rule may look at.

    Arrays hold one number an image. count, drawn: votes for the leading class, of so many draws; n:
    the most that will be drawn; lower: bound on the class's probability that a certificate would
    report now; attainable: the same if all further votes were for the class; theta_min,
    theta_gmean: smallest theta and geometric mean.
    """

    noise: Noise
    count: np.ndarray
    drawn: np.ndarray
    n: int
    lower: np.ndarray
    attainable: np.ndarray
    theta_min: np.ndarray
    theta_gmean: np.ndarray

    def upper(self, level: float) -> np.ndarray:
        """Upper bound on the class's probability; wrong at some draw with probability <= level."""
        return anytime_upper(self.count, self.drawn, level)

    def gap(self, probability: np.ndarray) -> np.ndarray:
        """The gap that a bound on the class's probability gives."""
        return gap_of(self.noise, probability)

    def probability(self, gap: np.ndarray) -> np.ndarray:
        """The bound on the class's probability that a gap needs."""
        return probability_of(self.noise, gap)


@dataclass(frozen=True)
class Target:
    """Stop when it is settled whether the region reaches a radius, or a proxy radius.

    Give one of them, > 0. It is reached when the certificate's own radius is; given up when, at
    level `futility`, it never will be. Giving up wrongly costs radius, not soundness.
    """

    radius: float | None = None
    proxy_radius: float | None = None
    futility: float = 0.01

    def __post_init__(self):
        if (self.radius is None) == (self.proxy_radius is None):
            self._refuse()
        if self.radius is not None and not 0 < self.radius < np.inf:
            self._refuse()
        if self.proxy_radius is not None and not 0 < self.proxy_radius < np.inf:
            self._refuse()
        _check_level("futility", self.futility)

    def _refuse(self):
        raise ValueError(
            f"give either radius or proxy_radius, > 0, found {self.radius} and {self.proxy_radius}"
        )

    def __call__(self, running: Running) -> np.ndarray:
        if self.proxy_radius is None:
            target = self.radius
            scale = running.theta_min
        else:
            # it is computed in other ways than here, which may differ in the last digits
            target = self.proxy_radius * (1 + 1e-12)
            scale = running.theta_gmean
        reached = (running.lower > 0.5) & (scale * running.gap(running.lower) >= target)
        needed = running.probability(target / scale)
        hopeless = (running.upper(self.futility) < needed) | (running.attainable < needed)
        return reached | hopeless


@dataclass(frozen=True)
class Improvement:
    """Stop when more draws can widen the region by less than a factor 1 + eps, at `futility`."""

    eps: float = 0.05
    futility: float = 0.05

    def __post_init__(self):
        if not 0 < self.eps < np.inf:
            raise ValueError(f"eps must be > 0, found {self.eps}")
        _check_level("futility", self.futility)

    def __call__(self, running: Running) -> np.ndarray:
        best = np.minimum(running.upper(self.futility), running.attainable)
        enough = running.gap(best) <= (1 + self.eps) * running.gap(running.lower)
        return (running.lower > 0.5) & enough


@dataclass(frozen=True)
class Hopeless:
    """Stop where the radius, at level `futility`, stays below `radius` (>= 0): abstain early."""

    radius: float = 0.0
    futility: float = 0.05

    def __post_init__(self):
        if not 0 <= self.radius < np.inf:
            raise ValueError(f"radius must be >= 0, found {self.radius}")
        _check_level("futility", self.futility)

    def __call__(self, running: Running) -> np.ndarray:
        needed = running.probability(self.radius / running.theta_min)
        return (running.upper(self.futility) < needed) | (running.attainable <= needed)


Rule = Callable[[Running], np.ndarray]


class Tally:
    """Votes of images that draw on, each until it is stopped or has n draws.

    active: (A,) positions of the images that draw on; drawn: (B,) draws of each so far.
    """

    def __init__(self, stream: Stream, n: int):
        self._stream = stream
        self._counts: Tensor | None = None
        self.n = n
        self.drawn = np.zeros(len(stream.queries), dtype=np.int64)
        self.active = np.arange(len(stream.queries))

    def draw(self) -> None:
        """The next draws of each active image: 100 at first, later a twentieth more.

        The schedule is of the image alone, so its result does not depend on the others, and one
        that stops makes room in the batches.
        """
        drawn = self.drawn[self.active]
        blocks = np.maximum(1, drawn // (20 * BLOCK))
        step = np.zeros_like(self.drawn)
        step[self.active] = np.minimum(BLOCK * blocks, self.n - drawn)
        more = self._stream.counts(step.tolist())
        self._counts = more if self._counts is None else self._counts + more
        self.drawn = self.drawn + step

    def stop(self, where: np.ndarray) -> None:
        """Stop active images, (A,) true or false; those with n draws stop by themselves."""
        done = where | (self.drawn[self.active] >= self.n)
        self.active = self.active[~done]

    def leaders(self, images: np.ndarray) -> np.ndarray:
        """The class with the most votes of each of some images, which have drawn."""
        assert self._counts is not None
        return self._counts[images].argmax(dim=1).numpy()

    def votes(self, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Votes of some images for one class each."""
        if self._counts is None:
            return np.zeros(len(images), dtype=np.int64)
        return self._counts.numpy()[images, classes]


def _check_level(name: str, level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"{name} must lie in (0, 1), found {level}")
