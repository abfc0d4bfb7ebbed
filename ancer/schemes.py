"""What a base classifier is trained to minimize under noise: the losses of the published schemes.

A loss is `loss(module, x, labels, draw, done, **options)`: images x (B, ...) in [0, 1], labels (B,), draw() returns
fresh noise shaped like x, done is the share of the training that is over, in [0, 1). It returns the mean loss.
"""

import math
from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Draw = Callable[[], Tensor]


def augmentation_loss(module: nn.Module, x: Tensor, labels: Tensor, draw: Draw, done: float) -> Tensor:
    """Cross-entropy on one noisy copy of each image (Cohen et al. 2019; uniform noise: Yang et al. 2020)."""
    return F.cross_entropy(module(x + draw()), labels)


def stability_loss(
    module: nn.Module, x: Tensor, labels: Tensor, draw: Draw, done: float, *, weight: float = 6.0
) -> Tensor:
    """Cross-entropy plus weight * KL(f(x + z) || f(x + z')) between two noisy copies (RS4A, its weight 6)."""
    first, second = module(x + draw()), module(x + draw())
    divergence = F.kl_div(second.log_softmax(1), first.log_softmax(1), reduction="batchmean", log_target=True)
    return F.cross_entropy(first, labels) + weight * divergence


def macer_loss(
    module: nn.Module,
    x: Tensor,
    labels: Tensor,
    draw: Draw,
    done: float,
    *,
    draws: int = 16,
    weight: float = 1.5,
    hinge: float = 8.0,
    sharpness: float = 16.0,
) -> Tensor:
    """MACER (Zhai et al. 2020, algorithm 1): cross-entropy of the smoothed classifier + weight * hinge of the radius.

    The radius in multiples of sigma is estimated on `draws` noisy copies with logits times `sharpness`, for images
    that the estimate classifies correctly and whose gap is below `hinge`. weight: the published lambda * sigma / 2
    (12 * 0.25 / 2 at sigma 0.25); the other defaults are the published ones.
    """
    logits = module(torch.cat([x + draw() for _ in range(draws)])).float().reshape(draws, len(x), -1)
    smoothed = _log_mean(logits)
    top, classes = _log_mean(sharpness * logits).exp().topk(2, dim=1)
    gap = torch.special.ndtri(top[:, 0]) - torch.special.ndtri(top[:, 1])
    counts = (classes[:, 0] == labels) & (gap <= hinge)
    top = top[counts]  # ndtri again, without the others: the gradient of an infinite one would be NaN
    missing = hinge - (torch.special.ndtri(top[:, 0]) - torch.special.ndtri(top[:, 1]))
    return F.nll_loss(smoothed, labels) + weight * missing.sum() / len(x)


def smoothadv_loss(
    module: nn.Module,
    x: Tensor,
    labels: Tensor,
    draw: Draw,
    done: float,
    *,
    attack: str = "pgd",
    epsilon: float = 0.5,
    steps: int = 2,
    draws: int = 1,
    warmup: float = 0.0,
) -> Tensor:
    """SmoothAdv (Salman et al. 2019): cross-entropy on noisy copies of images that were attacked under that noise.

    The attack maximizes the cross-entropy of the mean probabilities over the same `draws` copies, within an l2 ball
    of radius `epsilon` (units of x) and the pixels' range, in `steps` steps. attack: a key of ATTACKS. warmup: the
    share of the training over which epsilon grows from 0 (published: 10 of 150 epochs).
    """
    noise = torch.cat([draw() for _ in range(draws)])
    epsilon = epsilon * min(1.0, done / warmup) if warmup else epsilon

    def smoothed(attacked: Tensor) -> Tensor:
        logits = module(torch.cat([attacked] * draws) + noise)
        return _log_mean(logits.float().reshape(draws, len(x), -1))

    with _attacked(module):
        x = ATTACKS[attack](smoothed, x, labels, epsilon, steps)
    return F.cross_entropy(module(torch.cat([x] * draws) + noise), labels.repeat(draws))


def pgd(smoothed: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor, epsilon: float, steps: int) -> Tensor:
    """Projected gradient ascent: steps of length 2 epsilon / steps along the gradient, from x (Salman et al. 2019)."""
    delta = torch.zeros_like(x)
    for _ in range(steps):
        direction, _ = _ascent(smoothed, x, delta, labels)
        delta = (x + delta + 2 * epsilon / steps * direction).clamp(0, 1) - x
        delta = delta.renorm(2, 0, epsilon)
    return x + delta


def ddn(smoothed: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor, epsilon: float, steps: int) -> Tensor:
    """Decoupled direction and norm (Rony et al. 2019) from norm 1, which each step changes by 5 %: down where the
    class is wrong already, else up. The smallest perturbation found, cut to epsilon; none where none was found.
    (SmoothAdv's own copy starts at epsilon and bounds the norm by the box.)"""
    ones = [1] * (x.dim() - 1)
    delta, found = torch.zeros_like(x), torch.zeros_like(x)
    norm, least = torch.ones(len(x), device=x.device), torch.full((len(x),), math.inf, device=x.device)
    for step in range(steps):
        direction, wrong = _ascent(smoothed, x, delta, labels)
        size = delta.flatten(1).norm(dim=1)
        better = wrong & (size < least)
        least = torch.where(better, size, least)
        found = torch.where(better.reshape(-1, *ones), delta, found)
        rate = 0.01 + 0.99 / 2 * (1 + math.cos(math.pi * step / steps))
        delta = delta + rate * direction
        norm = norm * torch.where(wrong, 0.95, 1.05)
        delta = delta * (norm / delta.flatten(1).norm(dim=1)).reshape(-1, *ones)
        delta = (((x + delta) * 255).round() / 255).clamp(0, 1) - x
    return x + found.renorm(2, 0, epsilon) if epsilon else x


def _ascent(smoothed, x: Tensor, delta: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Unit direction of steepest ascent of the loss at x + delta, and whether the class is wrong there: (B,)."""
    delta = delta.detach().requires_grad_()
    with torch.enable_grad():
        outputs = smoothed(x + delta)
        (gradient,) = torch.autograd.grad(F.nll_loss(outputs, labels, reduction="sum"), delta)
    length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12).reshape(-1, *[1] * (x.dim() - 1))
    return gradient / length, outputs.argmax(1) != labels


def _log_mean(logits: Tensor) -> Tensor:
    """Log of the mean probabilities (B, K) of noisy copies' logits (draws, B, K)."""
    return logits.log_softmax(2).logsumexp(0) - math.log(len(logits))


@contextmanager
def _attacked(module: nn.Module):
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
SCHEMES = {
    "augmentation": augmentation_loss,
    "stability": stability_loss,
    "smoothadv": smoothadv_loss,
    "macer": macer_loss,
}
