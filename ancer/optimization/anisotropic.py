"""One theta for each coordinate of each image, by ascent on log theta, then search of its scale."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ancer.classifier import Classifier
from ancer.confidence import clopper_pearson
from ancer.noise import Noise
from ancer.optimization._common import MeanProbabilities, check_schedule, in_groups
from ancer.optimization._scale import leading_class, radii_by_scale
from ancer.smoothing import Queries

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
    kappa: float = 1.0,
    outside: float = 0.2,
    temperature: float = 1.0,
    window: int = 1,
    enlarge: float = 1.2,
    search_draws: int = 400,
    tolerance: float = 0.04,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """One theta for each coordinate of each image x (B, ...): like x.

    The class is the one that leads at `noise`. The ascent maximizes
    log proxy radius + kappa * log inscribed radius = mean(log theta) + (1 + kappa) * log gap(p)
    + const over theta >= enlarge * noise.theta, with p its mean probability, clamped at the largest
    bound that n draws at alpha can give: volume is bought, not confidence that cannot be certified.
    What a semi-axis theta * gap exceeds 1 counts `outside` times (in [0, 1]; 1 is the paper's
    volume): pixels live in [0, 1], and beyond it certifies nothing more. Probabilities are those of
    logits / temperature: certification counts votes, so a network whose confidence is far below its
    share of votes (stability training) needs a temperature below 1. Gradients are averaged over
    window x window pixels (odd; neighbours share information). Adam, the step decays linearly.

    Then theta is scaled as a whole, by votes (`search_draws`): among 0.8 to 2, by the smallest
    scale whose box proxy radius, the geometric mean of min(semi-axis, 1), is within `tolerance` of
    the largest. A larger region would hold hardly more images, but overlap the regions of others.

    n, alpha: those planned for certification. Raises ValueError outside these domains.
    """
    check_schedule(iterations, draws, step)
    _check(kappa, temperature, enlarge, outside, tolerance, window, search_draws)
    largest_bound = float(clopper_pearson(n, n, alpha))

    def propose(queries: Queries) -> Tensor:
        anchor = leading_class(queries, draws=search_draws, seed=seed)
        probabilities = MeanProbabilities(queries, draws, seed, temperature)

        # 1. the shape: ascent on log theta, from above the start
        of_class = anchor.to(queries.x.device)
        floor = (enlarge * queries.theta).log().expand_as(queries.x)
        log_theta = floor.clone().requires_grad_()
        optimizer = torch.optim.Adam([log_theta], lr=step)
        for t in range(iterations):
            p = probabilities(log_theta.exp()).gather(1, of_class)[:, 0]
            gap = noise.gap(p.clamp(1e-3, largest_bound))
            # the gradient of log gap where gap > 0.05; below, that of gap / 0.05, which is defined
            # for p <= 1/2 too, where the gap is not positive
            scale = gap.detach().clamp(min=LEAST_GAP)
            objective = _log_volume(log_theta, scale, outside) + (1 + kappa) * gap / scale
            (gradient,) = torch.autograd.grad(objective.sum(), log_theta)
            log_theta.grad = -_averaged(gradient, window)
            optimizer.param_groups[0]["lr"] = step * (1 - t / iterations)
            optimizer.step()
            with torch.no_grad():
                torch.maximum(log_theta, floor, out=log_theta)

        # 2. the scale: by votes
        shaped = queries.scaled(log_theta.detach().exp())
        radius = radii_by_scale(
            shaped, anchor, SCALES, n=n, alpha=alpha, draws=search_draws, seed=seed
        )
        return _scaled(shaped, radius, tolerance)

    return in_groups(propose, model, x, noise, draws, indices)


def _log_volume(log_theta: Tensor, gap: Tensor, outside: float) -> Tensor:
    """mean(log theta), in which log semi-axes over log 1 count `outside` times: (B,)."""
    log_theta = log_theta.flatten(1)
    excess = (log_theta + gap.log()[:, None]).clamp(min=0)
    return (log_theta - (1 - outside) * excess).mean(dim=1)


def _averaged(gradient: Tensor, window: int) -> Tensor:
    """(B, C, H, W) averaged over window x window pixels; other shapes have no neighbours."""
    if gradient.dim() != 4 or window == 1:
        return gradient
    margin = window // 2
    return F.avg_pool2d(gradient, window, stride=1, padding=margin, count_include_pad=False)


def _scaled(queries: Queries, radius: Tensor, tolerance: float) -> Tensor:
    """theta times the smallest scale whose box proxy radius is within tolerance of the largest.

    radius: (S, B), the inscribed radius in multiples of theta at each of SCALES.
    """
    theta = queries.theta
    log_axes = [
        (queries.per_image(r) * theta).clamp(max=1).log().flatten(1).mean(dim=1)
        for r in radius.to(theta)
    ]
    box = torch.stack(log_axes).exp()
    largest = box.amax(dim=0)
    enough = box >= (1 - tolerance) * largest
    smallest = enough.int().argmax(dim=0)
    # where every scale would abstain there is nothing to choose
    best = torch.where(largest > 0, SCALES.to(theta)[smallest], 1.0)
    return theta * queries.per_image(best)


def _check(kappa, temperature, enlarge, outside, tolerance, window, search_draws) -> None:
    if not 0 <= kappa < math.inf or not 0 < temperature < math.inf or not 0 < enlarge < math.inf:
        raise ValueError(
            "kappa must be >= 0, temperature and enlarge > 0, "
            f"found {kappa}, {temperature} and {enlarge}"
        )
    if not 0 <= outside <= 1 or not 0 <= tolerance < 1:
        raise ValueError(
            f"outside must lie in [0, 1] and tolerance in [0, 1), found {outside} and {tolerance}"
        )
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be odd and >= 1, found {window}")
    if search_draws < 1:
        raise ValueError(f"search_draws must be >= 1, found {search_draws}")
