"""Attacks on a smoothed classifier, for adversarial training (SmoothAdv, Salman et al. 2019)."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ancer.training.checks import within

Smoothed = Callable[[Tensor], Tensor]  # images (B, ...) -> log probabilities (B, K)


def pgd(smoothed: Smoothed, x: Tensor, labels: Tensor, epsilon: float, steps: int) -> Tensor:
    """Projected gradient ascent: steps of length 2 epsilon / steps along the gradient, from x."""
    delta = torch.zeros_like(x)
    for _ in range(steps):
        direction, _ = _ascent(smoothed, x, delta, labels)
        delta = (x + delta + 2 * epsilon / steps * direction).clamp(0, 1) - x
        delta = delta.renorm(2, 0, epsilon)
    return x + delta


def ddn(smoothed: Smoothed, x: Tensor, labels: Tensor, epsilon: float, steps: int) -> Tensor:
    """Decoupled direction and norm (Rony et al. 2019).

    From norm 1, which each step changes by 5 %: down where the class is wrong already, else up. The
    smallest perturbation found, cut to epsilon; none where none was found. (SmoothAdv's own copy
    starts at epsilon and bounds the norm by the box.)
    """
    per_image = (-1, *[1] * (x.dim() - 1))
    delta = torch.zeros_like(x)
    found = torch.zeros_like(x)
    norm = torch.ones(len(x), device=x.device)
    least = torch.full((len(x),), math.inf, device=x.device)
    for step in range(steps):
        direction, wrong = _ascent(smoothed, x, delta, labels)

        # 1. keep the smallest that is wrong already
        size = delta.flatten(1).norm(dim=1)
        better = wrong & (size < least)
        least = torch.where(better, size, least)
        found = torch.where(better.reshape(per_image), delta, found)

        # 2. a step along the gradient, then to the new norm
        rate = 0.01 + 0.99 / 2 * (1 + math.cos(math.pi * step / steps))
        delta = delta + rate * direction
        norm = norm * torch.where(wrong, 0.95, 1.05)
        delta = delta * (norm / delta.flatten(1).norm(dim=1)).reshape(per_image)

        # 3. to 8-bit pixels
        delta = (((x + delta) * 255).round() / 255).clamp(0, 1) - x
    return x + found.renorm(2, 0, epsilon) if epsilon else x


def _ascent(smoothed: Smoothed, x: Tensor, delta: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Unit direction of steepest ascent of the loss at x + delta, and whether it is wrong there."""
    delta = delta.detach().requires_grad_()
    with torch.enable_grad():
        outputs = smoothed(x + delta)
        loss = F.nll_loss(outputs, within(outputs, labels), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, delta)
    length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)
    direction = gradient / length.reshape(-1, *[1] * (x.dim() - 1))
    return direction, outputs.argmax(1) != labels


@contextmanager
def attacked(module: nn.Module) -> Iterator[None]:
    """Eval mode, without gradients to the parameters: an attack needs only those to the images."""
    wanted = [p for p in module.parameters() if p.requires_grad]
    try:
        module.eval().requires_grad_(False)
        yield
    finally:
        module.train()
        for parameter in wanted:
            parameter.requires_grad_()


ATTACKS = {"pgd": pgd, "ddn": ddn}
