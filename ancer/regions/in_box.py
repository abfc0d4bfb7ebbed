"""Volume of a region inside [0, 1]^n, where images live; all in logarithms.

A point Y drawn uniformly from the box lies in the region where T = sum_i t_i <= 1, with t_i =
(|Y_i - x_i| / a_i)^p: a sum of independent numbers. Tilted by exp(-s T), s t_i has a Gamma(1/p)
law on either side of x_i, cut off where the box ends. At the s with E T = 1 a saddlepoint gives
P(T <= 1), and importance sampling an unbiased estimate.
"""

import math

import torch
from torch import Tensor

from ancer.regions.volume import log_unit_volume

FEW = 8  # dimensions up to which the estimate is taken: a saddlepoint is for many
DRAWS = 20_000
LEAST = 1e-6  # no smaller tilt is searched for
REACH = 8.0  # standard deviations (l1: 32 means) beyond which a tilted law no more meets the box


def log_volume_in_box(center: Tensor, axes: Tensor, p: int) -> Tensor:
    """ln of the volume of {y in [0, 1]^n: ||(y - center) / axes||_p < 1}: (B,).

    center, axes: (B, n). By saddlepoint, never above the volume of the whole region or of the box;
    for n <= 8 by `estimate_in_box`. Raises ValueError where a center lies outside the box.
    """
    check(center)
    x = center.double()
    a = axes.double()
    n = x.shape[1]
    if n <= FEW:
        estimates = [estimate_in_box(*image, p)[0] for image in zip(x, a, strict=True)]
        found = torch.tensor(estimates, dtype=x.dtype, device=x.device)
    else:
        found = _saddlepoint(x, a, p)
    whole = log_unit_volume(n, p) + a.log().sum(dim=1)
    return torch.minimum(found, whole).clamp(max=0)


def estimate_in_box(
    center: Tensor, axes: Tensor, p: int, *, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """The same of one image, center and axes (n,): ln of an unbiased mean, its relative error.

    Coordinates that the box does not cut under the tilted law are integrated exactly, the others
    drawn. The error is +inf where no draw lies in the region: take more.
    """
    check(center)
    x = center.double().cpu()
    a = axes.double().cpu()
    s = tilt(x[None], a[None], p)[0].clamp(min=LEAST)
    low = x / a
    high = (1 - x) / a
    far = (REACH**2 / 2 / s) ** (1 / p)

    # 1. a side is whole where the tilted law ends before the box, or empty at the border itself
    whole = ((low > far) | (low == 0)) & ((high > far) | (high == 0))
    halves = int(((low == 0) ^ (high == 0))[whole].sum())
    m = int(whole.sum())
    exact = a[whole].log().sum().item() - halves * math.log(2)

    # 2. the other coordinates by importance sampling: t of each draw
    generator = torch.Generator().manual_seed(seed)
    low = low[~whole]
    high = high[~whole]
    total = torch.zeros(draws, dtype=torch.float64)
    constant = 0.0
    if m < len(x):
        cut = a[None, ~whole]
        masses, _, _ = _moments(_ends(x[None, ~whole], cut, p), s.reshape(1), p)
        constant = _log_masses(masses, cut, s.reshape(1), p).item()
        size = max(1, 2**22 // len(low))
        for first in range(0, draws, size):
            count = min(size, draws - first)
            u = torch.rand(count, len(low), generator=generator, dtype=torch.float64)
            total[first : first + count] = _tilted(u, low, high, s, p).sum(dim=1)

    # 3. what the whole ones may still take: a ball of m dimensions
    left = (1 - total).clamp(min=0)
    log_weights = s * total + constant + exact + log_unit_volume(m, p) + m / p * left.log()
    log_weights = torch.where(left > 0, log_weights, -torch.inf)
    mean = log_weights.logsumexp(dim=0).item() - math.log(draws)
    if mean == -math.inf:
        return mean, math.inf
    relative = (log_weights - mean).exp().std().item() / math.sqrt(draws)
    return mean, relative


def weights(
    center: Tensor, axes: Tensor, p: int, *, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """d ln volume / d ln axes inside the box, of center and axes (B, n): (B, n) in [0, 1].

    start: (B,) tilts to search from, of regions near by. Returns the weights and the tilts.
    """
    s = tilt(center, axes, p, start=start)
    _, first, _ = _moments(_ends(center, axes, p), s, p)
    return torch.where(s[:, None] > 0, p * first, 0.0), s


def tilt(center: Tensor, axes: Tensor, p: int, *, start: Tensor | None = None) -> Tensor:
    """The s with E T = 1 under the law tilted by exp(-s T): (B,), 0 where E T <= 1 without."""
    ends = _ends(center, axes, p)
    n = center.shape[1]
    low = torch.full((len(center),), math.log(LEAST), dtype=axes.dtype, device=axes.device)
    high = torch.full_like(low, math.log(n / p))
    at = high if start is None else start.clamp(min=LEAST).log()
    tolerance = torch.finfo(axes.dtype).eps ** 0.5
    # 1. is there any?
    mean, _ = _uniform_moments(center, axes, p)
    none = mean <= 1
    # 2. Newton's method for ln E T = 0 in ln s, kept between bounds that each step narrows
    for _ in range(100):
        _, first, second = _moments(ends, at.exp(), p)
        mean = first.sum(dim=1)
        variance = (second - first**2).sum(dim=1)
        excess = mean.log() - at  # ln E T
        low = torch.where(excess > 0, torch.maximum(low, at), low)
        high = torch.where(excess > 0, high, torch.minimum(high, at))
        following = at + excess * mean / variance
        inside = (following >= low) & (following <= high)
        following = torch.where(inside, following, (low + high) / 2)
        done = none | (excess.abs() < tolerance)
        if done.all():
            break
        at = torch.where(done, at, following)
    return torch.where(none, 0.0, at.exp())


def _saddlepoint(x: Tensor, a: Tensor, p: int) -> Tensor:
    """ln P(T <= 1) = K(s) + s + l^2 / 2 + ln Phi(-l), with l = s sqrt(K''(s)); x, a: (B, n)."""
    s = tilt(x, a, p)
    whole, first, second = _moments(_ends(x, a, p), s, p)
    steps = (second - first**2).sum(dim=1).sqrt()  # s sqrt(K'')
    tail = steps**2 / 2 + torch.special.log_ndtr(-steps)
    found = _log_masses(whole, a, s, p) + s + tail
    # without a tilt T <= 1 is the likely case: its normal law
    mean, variance = _uniform_moments(x, a, p)
    likely = torch.special.log_ndtr((1 - mean) / variance.sqrt())
    return torch.where(s > 0, found, likely)


def check(center: Tensor) -> None:
    """Raise ValueError where a number lies outside [0, 1]."""
    outside = ~((center >= 0) & (center <= 1))
    if outside.any():
        raise ValueError(
            "volume inside the image box is that of images in [0, 1], found a number "
            f"{center[outside][0].item():g}: make normalization a part of the network"
        )


def _ends(center: Tensor, axes: Tensor, p: int) -> Tensor:
    """t at both ends of the box: (2, B, n)."""
    return torch.stack([center / axes, (1 - center) / axes]) ** p


def _moments(ends: Tensor, s: Tensor, p: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mass, E q and E q^2 of q = s t under the tilted law: (B, n) each; the mass of both sides."""
    k = 1 / p
    c = s[:, None] * ends
    # regularized incomplete gamma functions of 1/p, 1/p + 1 and 1/p + 2, by their recurrence
    root = c**k
    density = root * (-c).exp()
    mass = root.erf() if p == 2 else -(-c).expm1()
    first = (mass - density / math.gamma(k + 1)).clamp(min=0)
    second = (first - c * density / math.gamma(k + 2)).clamp(min=0)
    whole = mass.sum(dim=0)
    return whole, k * first.sum(dim=0) / whole, k * (k + 1) * second.sum(dim=0) / whole


def _log_masses(whole: Tensor, axes: Tensor, s: Tensor, p: int) -> Tensor:
    """K(s): sum_i ln E exp(-s t_i), of masses and axes (B, n): (B,)."""
    k = 1 / p
    logs = axes.log() + whole.log() - k * s.log()[:, None] + math.lgamma(k + 1)
    return logs.sum(dim=1)


def _uniform_moments(x: Tensor, a: Tensor, p: int) -> tuple[Tensor, Tensor]:
    """E T and Var T of the uniform law, of x and a (..., n): (...)."""
    first = (x ** (p + 1) + (1 - x) ** (p + 1)) / (p + 1) / a**p
    second = (x ** (2 * p + 1) + (1 - x) ** (2 * p + 1)) / (2 * p + 1) / a ** (2 * p)
    return first.sum(dim=-1), (second - first**2).sum(dim=-1)


def _tilted(u: Tensor, low: Tensor, high: Tensor, s: Tensor, p: int) -> Tensor:
    """t of draws of the tilted law from uniform u, by its inverse distribution function."""
    if p == 2:
        scale = (2 * s).sqrt()
        below = torch.special.ndtr(-low * scale)
        above = torch.special.ndtr(high * scale)
        z = torch.special.ndtri(below + u * (above - below))
        return (z / scale) ** 2
    below = (-low * s).expm1()
    above = -(-high * s).expm1()
    side = below + u * (above - below)
    return -torch.log1p(-side.abs()) / s
