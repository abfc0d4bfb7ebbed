"""What a base classifier is trained to minimize under noise: losses of the published schemes.

A loss is `loss(module, x, labels, draw, done, **options)`: images x (B, ...) in [0, 1], labels
(B,), draw() returns fresh noise shaped like x, done is the share of the training that is over, in
[0, 1). It returns the mean loss.
"""

import inspect
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ancer.training.attacks import ATTACKS, attacked
from ancer.training.checks import within

Draw = Callable[[], Tensor]


def augmentation_loss(
    module: nn.Module, x: Tensor, labels: Tensor, draw: Draw, done: float
) -> Tensor:
    """Cross-entropy on one noisy copy of each image (Cohen et al. 2019; Yang et al. 2020)."""
    logits = module(x + draw())
    return F.cross_entropy(logits, within(logits, labels))


def stability_loss(
    module: nn.Module, x: Tensor, labels: Tensor, draw: Draw, done: float, *, weight: float = 6.0
) -> Tensor:
    """Cross-entropy plus weight * KL(f(x + z) || f(x + z')) between two noisy copies (RS4A)."""
    first = module(x + draw())
    second = module(x + draw())
    divergence = F.kl_div(
        second.log_softmax(1), first.log_softmax(1), reduction="batchmean", log_target=True
    )
    return F.cross_entropy(first, within(first, labels)) + weight * divergence


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
    """MACER (Zhai et al. 2020, algorithm 1): cross-entropy of g + weight * hinge of the radius.

    The radius in multiples of sigma is estimated on `draws` noisy copies with logits times
    `sharpness`, for images that the estimate classifies correctly and whose gap is below `hinge`.
    weight: the published lambda * sigma / 2 (12 * 0.25 / 2 at sigma 0.25); the other defaults are
    the published ones.
    """
    copies = torch.cat([x + draw() for _ in range(draws)])
    logits = module(copies).float().reshape(draws, len(x), -1)
    smoothed = _log_mean(logits)
    top, classes = _log_mean(sharpness * logits).exp().topk(2, dim=1)
    counts = (classes[:, 0] == labels) & (_gap(top) <= hinge)
    # the gap again, without the others: the gradient of an infinite one would be NaN
    missing = hinge - _gap(top[counts])
    return F.nll_loss(smoothed, within(smoothed, labels)) + weight * missing.sum() / len(x)


def _gap(top: Tensor) -> Tensor:
    return torch.special.ndtri(top[:, 0]) - torch.special.ndtri(top[:, 1])


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
    """SmoothAdv (Salman et al. 2019): cross-entropy on noisy copies of attacked images.

    The attack maximizes the cross-entropy of the mean probabilities over the same `draws` copies,
    within an l2 ball of radius `epsilon` (units of x) and the pixels' range, in `steps` steps.
    attack: a key of ATTACKS. warmup: the share of the training over which epsilon grows from 0
    (published: 10 of 150 epochs).
    """
    noise = torch.cat([draw() for _ in range(draws)])
    if warmup:
        epsilon = epsilon * min(1.0, done / warmup)

    def smoothed(inputs: Tensor) -> Tensor:
        logits = module(torch.cat([inputs] * draws) + noise)
        return _log_mean(logits.float().reshape(draws, len(x), -1))

    with attacked(module):
        x = ATTACKS[attack](smoothed, x, labels, epsilon, steps)
    logits = module(torch.cat([x] * draws) + noise)
    return F.cross_entropy(logits, within(logits, labels.repeat(draws)))


def denoising_loss(module: nn.Module, x: Tensor, labels: Tensor, draw: Draw, done: float) -> Tensor:
    """Mean squared error of a `Denoised` module's denoiser (Salman et al. 2020, MSE)."""
    return F.mse_loss(_of_denoised(module, "denoised")(x + draw()), x)


def denoised_stability_loss(
    module: nn.Module, x: Tensor, labels: Tensor, draw: Draw, done: float
) -> Tensor:
    """Cross-entropy of a `Denoised` module to its model's own answer for the image without noise.

    Salman et al. 2020, Stab: no labels are needed. Best after `denoising`, on whole images.
    """
    with torch.no_grad():
        answers = _of_denoised(module, "model")(x).argmax(dim=1)
    return F.cross_entropy(module(x + draw()), answers)


def _of_denoised(module: nn.Module, part: str) -> Callable[[Tensor], Tensor]:
    if not hasattr(module, part):
        raise ValueError(
            "schemes denoising and denoised_stability train a denoiser before a model, "
            f"ancer.Denoised(denoiser, model), found {type(module).__name__}"
        )
    return getattr(module, part)


def _log_mean(logits: Tensor) -> Tensor:
    """Log of the mean probabilities (B, K) of noisy copies' logits (draws, B, K)."""
    return logits.log_softmax(2).logsumexp(0) - math.log(len(logits))


CLASSIFIERS = {
    "augmentation": augmentation_loss,
    "stability": stability_loss,
    "smoothadv": smoothadv_loss,
    "macer": macer_loss,
}
DENOISERS = {
    "denoising": denoising_loss,
    "denoised_stability": denoised_stability_loss,
}
SCHEMES = {**CLASSIFIERS, **DENOISERS}


def check_options(scheme: str, options: dict) -> None:
    """Raise ValueError for an unknown scheme or option, or a value outside its domain."""
    if scheme not in SCHEMES:
        raise ValueError(f"unknown training scheme {scheme!r}: choose one of {sorted(SCHEMES)}")
    known = _defaults(SCHEMES[scheme])
    for name, value in options.items():
        if name not in known:
            raise ValueError(
                f"the scheme {scheme!r} has no option {name!r}: it has {', '.join(known) or 'none'}"
            )
        if not isinstance(known[name], str) and not _in_domain(value, known[name]):
            domain = "a number >= 0"
            if isinstance(known[name], int):
                domain = "a whole number >= 1"
            raise ValueError(
                f"option {name} of the scheme {scheme!r} must be {domain}, found {value!r}"
            )
    if options.get("attack", "pgd") not in ATTACKS:
        raise ValueError(f"unknown attack {options['attack']!r}: choose one of {sorted(ATTACKS)}")


def _defaults(loss: Callable) -> dict:
    parameters = inspect.signature(loss).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _in_domain(value: object, default: object) -> bool:
    """A whole number >= 1 where the default is whole, else a number >= 0."""
    if isinstance(value, bool):
        return False
    if isinstance(default, int):
        return isinstance(value, int) and value >= 1
    return isinstance(value, int | float) and value >= 0
