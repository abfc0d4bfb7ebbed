"""The optimizers as the papers have them, with the published defaults."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ancer.classifier import Classifier, check_images
from ancer.noise.law import Noise
from ancer.optimization._common import (
    MeanProbabilities,
    check_schedule,
    in_groups,
    isotropic_start,
)
from ancer.queries import Queries


def optimize_isotropic_paper(
    model: nn.Module | Classifier,
    x: Tensor,
    noise: Noise,
    *,
    seed: int,
    iterations: int = 900,
    draws: int = 100,
    step: float = 0.04,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """The paper's isotropic start (Alfarra et al., UAI 2022), with the published defaults.

    Plain gradient ascent on theta * gap of the two largest mean probabilities, each clamped to
    [0.001, 0.999], from noise.theta. Not monotone: the result can have a smaller radius than the
    start. theta is kept >= 1e-3, where the published code lets it turn negative.

    Args:
        model, x, noise, seed, indices: as in `optimize_isotropic`.
        iterations, draws, step: as published.

    Returns:
        theta: (B,).

    Raises:
        ValueError: where iterations, draws or step are not > 0.

    Example:
        >>> x = torch.tensor([[0.9, 0.1]])
        >>> noise = GaussianNoise(0.25)
        >>> optimize_isotropic_paper(nn.Identity(), x, noise, seed=0, iterations=2).shape
        torch.Size([1])
    """
    check_schedule(iterations, draws, step)
    check_images(x)
    start = noise.with_theta(isotropic_start(noise, x))

    def ascend(queries: Queries) -> Tensor:
        probabilities = MeanProbabilities(queries, draws, seed)
        theta = queries.theta.clone().requires_grad_()
        for _ in range(iterations):
            radius = theta.flatten() * _gap_of_top_two(noise, probabilities(theta))
            (gradient,) = torch.autograd.grad(radius.sum(), theta)
            with torch.no_grad():
                theta.add_(gradient, alpha=step).clamp_(min=1e-3)
        return theta.detach().flatten()

    return in_groups(ascend, model, x, start, draws, indices)


def optimize_anisotropic_paper(
    model: nn.Module | Classifier,
    x: Tensor,
    noise: Noise,
    *,
    seed: int,
    iterations: int = 100,
    draws: int = 100,
    step: float = 0.04,
    kappa: float = 2.0,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """ANCER as published (section 5 and algorithm 1 of the paper), with its defaults.

    Adam on gap * GM(theta) + kappa * min(theta) * gap of the two largest mean probabilities, each
    clamped to [0.001, 0.999], from noise.theta, and theta projected to >= noise.theta after each
    step.

    Args:
        model, x, noise, seed, indices: as in `optimize_anisotropic`.
        iterations, draws, step, kappa: as published.

    Returns:
        theta: like x.

    Raises:
        ValueError: where iterations, draws or step are not > 0, or kappa is < 0.

    Example:
        >>> x = torch.tensor([[0.9, 0.1]])
        >>> noise = GaussianNoise(0.25)
        >>> optimize_anisotropic_paper(nn.Identity(), x, noise, seed=0, iterations=2).shape
        torch.Size([1, 2])
    """
    check_schedule(iterations, draws, step)
    if not 0 <= kappa < math.inf:
        raise ValueError(f"kappa must be >= 0, found {kappa}")

    def ascend(queries: Queries) -> Tensor:
        probabilities = MeanProbabilities(queries, draws, seed)
        floor = queries.theta.expand_as(queries.x)
        theta = floor.clone().requires_grad_()
        optimizer = torch.optim.Adam([theta], lr=step)
        for _ in range(iterations):
            gap = _gap_of_top_two(noise, probabilities(theta))
            proxy_radius = gap * theta.flatten(1).log().mean(dim=1).exp()
            radius = theta.flatten(1).amin(dim=1) * gap
            objective = proxy_radius + kappa * radius
            (gradient,) = torch.autograd.grad(objective.sum(), theta)
            theta.grad = -gradient
            optimizer.step()
            with torch.no_grad():
                torch.maximum(theta, floor, out=theta)
        return theta.detach()

    return in_groups(ascend, model, x, noise, draws, indices)


def _gap_of_top_two(noise: Noise, probabilities: Tensor) -> Tensor:
    """(gap(p_1) - gap(p_2)) / 2 of the two largest probabilities (B, K), clamped: (B,)."""
    top = noise.gap(probabilities.topk(2, dim=1).values.clamp(0.001, 0.999))
    return (top[:, 0] - top[:, 1]) / 2
