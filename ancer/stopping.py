"""When to stop drawing: rules that look at the votes so far. Soundness never depends on them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ancer.confidence import anytime_upper
from ancer.noise import Noise
from ancer.smoothing import BLOCK, Stream


@dataclass(frozen=True)
class Running:
    """Images whose votes are being counted: what a rule may look at; arrays hold one number an image.

    count, drawn: votes for the leading class, of so many draws; n: the most that will be drawn; lower: bound on
    the class's probability that a certificate would report now; attainable: the same if all further votes were for
    the class; theta_min, theta_gmean: smallest theta and geometric mean.
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
        """Upper bound on the class's probability; below it once in all draws with probability at most level."""
        return anytime_upper(self.count, self.drawn, level)

    def gap(self, p: np.ndarray) -> np.ndarray:
        return self.noise.gap(torch.from_numpy(np.asarray(p, dtype=np.float64))).numpy()

    def probability(self, gap: np.ndarray) -> np.ndarray:
        return self.noise.probability(torch.from_numpy(np.asarray(gap, dtype=np.float64))).numpy()


@dataclass(frozen=True)
class Target:
    """Stop when it is settled whether the region reaches a radius, or a proxy radius (give one of them, > 0).

    It is reached when the certificate's own radius is; given up when, at level `futility`, it never will be. Giving
    up wrongly costs radius, not soundness.
    """

    radius: float | None = None
    proxy_radius: float | None = None
    futility: float = 0.01

    def __post_init__(self):
        given = [r for r in (self.radius, self.proxy_radius) if r is not None]
        if len(given) != 1 or not 0 < given[0] < np.inf:
            raise ValueError(f"give either radius or proxy_radius, > 0, found {self.radius} and {self.proxy_radius}")
        _check_level("futility", self.futility)

    def __call__(self, running: Running) -> np.ndarray:
        # a proxy radius is computed in other ways than here, which may differ in the last digits
        target = self.radius if self.radius is not None else self.proxy_radius * (1 + 1e-12)
        scale = running.theta_min if self.radius is not None else running.theta_gmean
        reached = (running.lower > 0.5) & (scale * running.gap(running.lower) >= target)
        p = running.probability(target / scale)
        return reached | (running.upper(self.futility) < p) | (running.attainable < p)


@dataclass(frozen=True)
class Improvement:
    """Stop when further draws can widen the region by less than a factor 1 + eps, at level `futility`."""

    eps: float = 0.05
    futility: float = 0.05

    def __post_init__(self):
        if not 0 < self.eps < np.inf:
            raise ValueError(f"eps must be > 0, found {self.eps}")
        _check_level("futility", self.futility)

    def __call__(self, running: Running) -> np.ndarray:
        best = np.minimum(running.upper(self.futility), running.attainable)
        return (running.lower > 0.5) & (running.gap(best) <= (1 + self.eps) * running.gap(running.lower))


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


def draw_until(stream: Stream, n: int, stop: Callable[[np.ndarray, Tensor, np.ndarray], np.ndarray]) -> tuple:
    """Draw on for each image until `stop` says so, at most n: counts (B, K) and draws (B,).

    stop(images, counts, drawn) -> (A,) looks at the A images, by position, that are still drawing, first before any
    draw (counts is None), then after 100, 200, ... draws, later at each twentieth more: a schedule of the image
    alone, so that its result does not depend on the others. An image that stops makes room in the batches.
    """
    counts, drawn = None, np.zeros(len(stream.x), dtype=np.int64)
    active = np.arange(len(drawn))
    while True:
        active = active[~stop(active, None if counts is None else counts[active], drawn[active]) & (drawn[active] < n)]
        if not len(active):
            return counts, drawn
        step = np.zeros_like(drawn)
        step[active] = np.minimum(BLOCK * np.maximum(1, drawn[active] // (20 * BLOCK)), n - drawn[active])
        more = stream.counts(step.tolist())
        counts, drawn = more if counts is None else counts + more, drawn + step


def _check_level(name: str, level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"{name} must lie in (0, 1), found {level}")
