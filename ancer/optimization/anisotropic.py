"""One theta for each coordinate of each image, by ascent on log theta, then search of its scale."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ancer.classifier import Classifier
from ancer.noise.law import Noise
from ancer.optimization._common import (
    MeanProbabilities,
    PlannedGap,
    check_schedule,
    in_groups,
)
from ancer.optimization._scale import gaps_of, leading_class, radii_by_scale
from ancer.perturbations.shares import Perturbation, Toward, energy_shares, perturbations_of
from ancer.queries import Queries
from ancer.regions.in_box import log_volume_in_box, weights

LEAST_GAP = 0.05  # below it the ascent widens the gap itself, not its logarithm
SCALES = torch.logspace(-1 / 3, 1, 5, base=2, dtype=torch.float64)  # of the last choice: 0.8 to 2


def optimize_anisotropic(
    model: nn.Module | Classifier,
    x: Tensor,
    noise: Noise,
    *,
    seed: int,
    n: int = 10_000,
    alpha: float = 0.001,
    iterations: int = 100,
    draws: int = 16,
    step: float = 0.3,
    kappa: float = 2.0,
    temperature: float = 1.0,
    window: int = 1,
    enlarge: float = 1.3,
    growth: float = math.inf,
    search_draws: int = 400,
    tolerance: float = 0.2,
    toward: Toward | None = None,
    mix: float = 0.5,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """One theta for each coordinate of each image, in noise's basis.

    The class is the one that leads at `noise`. The ascent (Adam, its step decays linearly)
    maximizes, over theta >= enlarge * noise.theta, log in-box proxy radius + kappa * log inscribed
    radius of the region with semi-axes theta * gap, the gap of the mean probabilities of the class
    and of the runner-up, clamped at the bounds that n draws at alpha can give at best: volume is
    bought, not confidence that cannot be certified. Volume counts inside the image box only, so log
    theta_i has the weight d ln V / d ln a_i, which falls from 1 to 0 as the box cuts axis i
    (`regions.in_box`); of the paper's volume, and in another basis than pixels, each weight is 1.

    Then theta is scaled as a whole, by votes (`search_draws`): among 0.8 to 2, by the smallest
    scale whose in-box proxy radius is within `tolerance` of the largest. A larger region would
    overlap the regions of other images, to which a memory then gives way.

    Args:
        model, x, seed, indices: as in `optimize_isotropic`.
        noise: where the ascent starts.
        n, alpha: those planned for certification.
        iterations, draws, step: of the ascent; draws of each image in each.
        kappa: what a radius is worth, beside volume.
        temperature: probabilities are those of logits / temperature. Certification counts votes, so
            a network whose confidence is far below its share of votes (stability training) needs
            one below 1.
        window: gradients are averaged over window x window pixels (odd; neighbours share
            information; 1 in another basis).
        enlarge: theta is at least so many times its start.
        growth: no theta leaves `enlarge` to `growth` times its start then (growth >= enlarge), at
            any scale, and the start is a candidate too. `SplittingNoise` wants it: it counts 2 max
            theta / lattice draws, and has few scales just below the largest.
        search_draws: noisy copies at each scale.
        tolerance: in [0, 1).
        toward: perturbations that the region should hold for: families by name and a severity of
            each ({"brighter": 0.2, "contrast": 0.3}, see `perturbations.families`), or functions of
            images.
        mix: in [0, 1]. With e_i the share of coordinate i in the perturbations' energy round the
            image, so much of the logarithm of the volume gives way to -1/2 log sum_i e_i /
            theta_i^2, which grows as the region reaches farther towards them.

    Returns:
        theta: like x.

    Raises:
        ValueError: outside these domains.

    Example:
        >>> x = torch.tensor([[0.9, 0.1]])
        >>> noise = GaussianNoise(0.25)
        >>> theta = optimize_anisotropic(nn.Identity(), x, noise, seed=0, iterations=5)
        >>> theta.shape
        torch.Size([1, 2])
    """
    check_schedule(iterations, draws, step)
    _check(kappa, temperature, enlarge, growth, tolerance, window, search_draws)
    perturbations = perturbations_of(toward or {})
    part = part_of_reach(mix, perturbations)
    if window > 1 and not noise.basis.is_pixels:
        raise ValueError(f"window must be 1 in basis {noise.basis.name}, found {window}")
    planned_gap = PlannedGap(noise, n, alpha)

    def propose(queries: Queries) -> Tensor:
        anchor = leading_class(queries, draws=search_draws, seed=seed)
        probabilities = MeanProbabilities(queries, draws, seed, temperature)

        # 1. the shape: ascent on log theta, from above the start
        of_class = anchor.to(queries.x.device)
        floor = (enlarge * queries.theta).log().expand_as(queries.x)
        ceiling = (growth * queries.theta).log().expand_as(queries.x)
        log_theta = floor.clone().requires_grad_()
        optimizer = torch.optim.Adam([log_theta], lr=step)
        shares = energy_shares(noise.basis, queries.x, perturbations).flatten(1).to(floor)
        tilts = None
        for t in range(iterations):
            gap = planned_gap(probabilities(log_theta.exp()), of_class)
            # the gradient of log gap where gap > 0.05; below, that of gap / 0.05, which is defined
            # where the gap is not positive too
            scale = gap.detach().clamp(min=LEAST_GAP)
            flat = log_theta.flatten(1)
            with torch.no_grad():
                axes = scale[:, None] * flat.exp()
                weight, tilts = _weights(queries, axes, tilts)
            size = (weight * flat).mean(dim=1)
            worth = weight.mean(dim=1)
            if part:
                size = (1 - part) * size + part * log_reach(shares, flat)
                worth = (1 - part) * worth + part
            objective = size + (worth + kappa) * gap / scale
            (gradient,) = torch.autograd.grad(objective.sum(), log_theta)
            log_theta.grad = -_averaged(gradient, window)
            optimizer.param_groups[0]["lr"] = step * (1 - t / iterations)
            optimizer.step()
            with torch.no_grad():
                torch.clamp(log_theta, floor, ceiling, out=log_theta)

        # 2. the scale: by votes
        shaped = log_theta.detach()
        planned: dict[str, Any] = {"n": n, "alpha": alpha, "draws": search_draws, "seed": seed}
        if growth == math.inf:
            shaped_queries = queries.scaled(shaped.exp())
            radius = radii_by_scale(shaped_queries, anchor, SCALES, **planned)
            return _scaled(shaped_queries, radius, tolerance)
        candidates = [queries]
        for scale in SCALES.log().to(shaped):
            candidates.append(queries.scaled((shaped + scale).clamp(floor, ceiling).exp()))
        return _chosen(candidates, gaps_of(candidates, anchor, **planned), tolerance)

    return in_groups(propose, model, x, noise, draws, indices)


def log_reach(shares: Tensor, log_theta: Tensor) -> Tensor:
    """-1/2 log sum_i e_i / theta_i^2, of shares e and log theta (B, n): (B,).

    The logarithm of how far, in multiples of a unit perturbation over the gap, the region reaches.
    """
    return -(shares * (-2 * log_theta).exp()).sum(dim=1).clamp(min=1e-300).log() / 2


def part_of_reach(mix: float, perturbations: Sequence[Perturbation]) -> float:
    """mix, or 0 without perturbations; ValueError unless it lies in [0, 1]."""
    if not 0 <= mix <= 1:
        raise ValueError(f"mix must lie in [0, 1], found {mix}")
    return mix if perturbations else 0.0


def _weights(queries: Queries, axes: Tensor, tilts: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The weight of each log axis in the volume, of axes (B, n); and where to search from next."""
    if not queries.law.basis.is_pixels:
        return torch.ones_like(axes), None
    return weights(queries.x.flatten(1), axes, queries.law.norm, start=tilts)


def _averaged(gradient: Tensor, window: int) -> Tensor:
    """(B, C, H, W) averaged over window x window pixels; other shapes have no neighbours."""
    if gradient.dim() != 4 or window == 1:
        return gradient
    margin = window // 2
    return F.avg_pool2d(gradient, window, stride=1, padding=margin, count_include_pad=False)


def _scaled(queries: Queries, radius: Tensor, tolerance: float) -> Tensor:
    """theta times the smallest scale whose in-box proxy radius is within tolerance of the largest.

    radius: (S, B), the inscribed radius in multiples of theta at each of SCALES. In another basis
    than pixels by the proxy radius.
    """
    theta = queries.theta
    log_volume = _log_volumes([queries] * len(radius), radius)
    # where every scale would abstain there is nothing to choose
    certified = log_volume.amax(dim=0) > -math.inf
    smallest = _smallest(queries, log_volume, tolerance)
    best = torch.where(certified, SCALES.to(theta)[smallest], 1.0)
    return theta * queries.per_image(best)


def _chosen(candidates: list[Queries], gaps: Tensor, tolerance: float) -> Tensor:
    """theta of candidates with gaps (S, B), as `_scaled` chooses; of the first if all abstain."""
    log_volume = _log_volumes(candidates, gaps)
    chosen = _smallest(candidates[0], log_volume, tolerance)
    theta = torch.stack([queries.theta.expand_as(queries.x) for queries in candidates])
    return theta[chosen, torch.arange(len(chosen), device=chosen.device)]


def _log_volumes(candidates: list[Queries], gaps: Tensor) -> Tensor:
    """Log volume of regions with semi-axes theta * gap, in the box in pixels: like gaps (S, B).

    -inf where the gap is not positive. In another basis without its constant.
    """
    device = candidates[0].x.device
    log_volume = torch.full(gaps.shape, -torch.inf, dtype=torch.float64, device=device)
    for k, queries in enumerate(candidates):
        x = queries.x.flatten(1)
        gap = gaps[k].to(x)
        certified = gap > 0
        axes = queries.per_image(gap) * queries.theta.to(x).expand_as(queries.x)
        axes = axes.flatten(1)[certified]
        if queries.law.basis.is_pixels:
            log_volume[k, certified] = log_volume_in_box(x[certified], axes, queries.law.norm)
        else:
            log_volume[k, certified] = axes.double().log().sum(dim=1)
    return log_volume


def _smallest(queries: Queries, log_volume: Tensor, tolerance: float) -> Tensor:
    """The first of (S, B) whose proxy radius is within tolerance of the largest: (B,)."""
    n = queries.x[0].numel()
    enough = log_volume >= log_volume.amax(dim=0) + n * math.log1p(-tolerance)
    return enough.int().argmax(dim=0)


def _check(kappa, temperature, enlarge, growth, tolerance, window, search_draws) -> None:
    if not 0 <= kappa < math.inf or not 0 < temperature < math.inf or not 0 < enlarge < math.inf:
        raise ValueError(
            "kappa must be >= 0, temperature and enlarge > 0, "
            f"found {kappa}, {temperature} and {enlarge}"
        )
    if not growth >= enlarge:
        raise ValueError(f"growth must be >= enlarge = {enlarge}, found {growth}")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must lie in [0, 1), found {tolerance}")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be odd and >= 1, found {window}")
    if search_draws < 1:
        raise ValueError(f"search_draws must be >= 1, found {search_draws}")
