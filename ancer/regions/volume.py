"""Volumes of regions, in logarithms: right also where the volume itself underflows."""

import math

from torch import Tensor


def log_unit_volume(n: int, p: int) -> float:
    """Natural logarithm of the volume of the unit lp ball in n dimensions, p = 1 or 2."""
    if p == 2:
        return n / 2 * math.log(math.pi) - math.lgamma(n / 2 + 1)
    return n * math.log(2) - math.lgamma(n + 1)


def log_volume(axes: Tensor, n: int, p: int) -> float:
    """Of the region with these semi-axes, each number standing for equally many of n."""
    return log_unit_volume(n, p) + n * axes.log().mean().item()


def proxy_radius(axes: Tensor) -> float:
    """Radius of the ball of the same volume: the geometric mean of the semi-axes."""
    return math.exp(axes.log().mean().item())


def radius_of_volume(log_volume: float, n: int, p: int) -> float:
    """Radius of the lp ball of this volume; NaN of NaN."""
    return math.exp((log_volume - log_unit_volume(n, p)) / n)
