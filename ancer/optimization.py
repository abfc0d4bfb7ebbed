"""theta for each image: the paper's optimizers and ours; both only propose, `certify` alone proves.

Every function maps a noise (its theta is the start) to theta. The draws here are never those of certification.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ancer.confidence import clopper_pearson
from ancer.models import Classifier, as_classifier, check_images
from ancer.noise import Noise
from ancer.search import leader, radii_by_scale
from ancer.smoothing import SmoothedClassifier, generator, image_indices, unit_draws


def optimize_isotropic(
    model: nn.Module | Classifier,
    x: Tensor,
    noise: Noise,
    *,
    seed: int,
    n: int = 10_000,
    alpha: float = 0.001,
    draws: int = 400,
    scales: Sequence[float] = tuple(np.geomspace(0.25, 4, 13)),
    indices: Sequence[int] | None = None,
) -> Tensor:
    """One theta for each image x (B, ...): (B,), by search, without gradients.

    The class is the smoothed prediction at `noise`; theta = scale * noise.theta, with the scale whose radius for *that*
    class, as n draws at alpha would bound it, is largest (see `search.radii_by_scale`). scales: > 0, ascending, evenly
    spaced in log; n, alpha: those planned for certification; draws: noisy copies at the scales that matter.
    """
    clopper_pearson(0, n, alpha)  # the domains of n and alpha, before any work
    ascending = all(a < b for a, b in pairwise([0, *scales, math.inf]))
    if draws < 1 or len(scales) == 0 or not ascending:
        raise ValueError(f"draws must be >= 1 and scales > 0, finite and ascending, found {draws} and {list(scales)}")
    start, search = _one_scale_an_image(noise, x), {"draws": draws, "seed": seed, "indices": indices}
    smoothed, scales = SmoothedClassifier(model, noise), torch.as_tensor(scales, dtype=torch.float64)
    radius = radii_by_scale(smoothed, x, leader(smoothed, x, **search), scales, n, alpha, **search)
    # where every scale would abstain there is nothing to choose: keep the start
    best = torch.where(radius.amax(dim=0) > 0, scales[radius.argmax(dim=0)], 1.0)
    return start * best.to(start)


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
    """One theta for each coordinate of each image x (B, ...): like x, by ascent on log theta, then search of its scale.

    The class is the one that leads at `noise`. The ascent maximizes
    log proxy radius + kappa * log inscribed radius = mean(log theta) + (1 + kappa) * log gap(p) + const
    over theta >= enlarge * noise.theta, with p its mean probability, clamped at the largest bound that n draws at
    alpha can give: volume is bought, not confidence that cannot be certified. What a semi-axis theta * gap exceeds 1
    counts `outside` times (in [0, 1]; 1 is the paper's volume): pixels live in [0, 1], and beyond it certifies
    nothing more. Probabilities are those of logits / temperature: certification counts votes, so a network whose
    confidence is far below its share of votes (stability training) needs a temperature below 1. Gradients are averaged
    over window x window pixels (odd; neighbours share information). Adam, the step decays linearly.

    Then theta is scaled as a whole, by votes (`search_draws`, see `search.radii_by_scale`): among 0.8 to 2, by the
    smallest scale whose box proxy radius, the geometric mean of min(semi-axis, 1), is within `tolerance` of the
    largest. A larger region would hold hardly more images, but overlap the regions of others.
    """
    _check_schedule(iterations, draws, step)
    if not 0 <= kappa < math.inf or not 0 < temperature < math.inf or not 0 < enlarge < math.inf:
        raise ValueError(f"kappa must be >= 0, temperature and enlarge > 0, found {kappa}, {temperature} and {enlarge}")
    if not 0 <= outside <= 1 or not 0 <= tolerance < 1:
        raise ValueError(f"outside must lie in [0, 1] and tolerance in [0, 1), found {outside} and {tolerance}")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be odd and >= 1, found {window}")
    if search_draws < 1:
        raise ValueError(f"search_draws must be >= 1, found {search_draws}")
    largest, law = float(clopper_pearson(n, n, alpha)), type(noise)
    search = {"draws": search_draws, "seed": seed}

    def ascend(classifier: Classifier, x: Tensor, theta: Tensor, indices: list[int]) -> Tensor:
        anchor = leader(SmoothedClassifier(classifier, law(theta)), x, indices=indices, **search)
        probabilities = _sampler(classifier, x, noise, draws, seed, indices, temperature)
        of_class = anchor.to(x.device)
        floor = (enlarge * theta).log().expand_as(x)
        log_theta = floor.clone().requires_grad_()
        optimizer = torch.optim.Adam([log_theta], lr=step)
        for t in range(iterations):
            p = probabilities(log_theta.exp()).gather(1, of_class)[:, 0]
            gap = noise.gap(p.clamp(1e-3, largest))
            scale = gap.detach().clamp(min=0.05)
            excess = (log_theta.flatten(1) + scale.log()[:, None]).clamp(min=0)  # of log semi-axes over log 1
            volume = (log_theta.flatten(1) - (1 - outside) * excess).mean(dim=1)
            # the gradient of log gap where gap > 0.05; below, that of gap itself, which is defined for p <= 1/2
            objective = volume + (1 + kappa) * gap / scale
            (gradient,) = torch.autograd.grad(objective.sum(), log_theta)
            log_theta.grad = -_share_among_neighbours(gradient, window)
            optimizer.param_groups[0]["lr"] = step * (1 - t / iterations)
            optimizer.step()
            with torch.no_grad():
                torch.maximum(log_theta, floor, out=log_theta)
        theta, scales = log_theta.detach().exp(), torch.logspace(-1 / 3, 1, 5, base=2, dtype=torch.float64)
        smoothed = SmoothedClassifier(classifier, law(theta))
        radius = radii_by_scale(smoothed, x, anchor, scales, n, alpha, indices=indices, **search).to(theta)
        flat = theta.flatten(1)
        box = torch.stack([(r[:, None] * flat).clamp(max=1).log().mean(dim=1) for r in radius]).exp()
        enough = box >= (1 - tolerance) * box.amax(dim=0)
        best = torch.where(box.amax(dim=0) > 0, scales.to(theta)[enough.int().argmax(dim=0)], 1.0)
        return theta * best.reshape(-1, *[1] * (x.dim() - 1))

    return _in_groups(ascend, model, x, noise, draws, indices)


def _share_among_neighbours(gradient: Tensor, window: int) -> Tensor:
    """Average (B, C, H, W) over window x window pixels; other shapes have no neighbours."""
    if gradient.dim() != 4 or window == 1:
        return gradient
    return F.avg_pool2d(gradient, window, stride=1, padding=window // 2, count_include_pad=False)


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
    """The paper's isotropic start (Alfarra et al., UAI 2022), with the published defaults: (B,).

    Plain gradient ascent on theta * gap of the two largest mean probabilities, each clamped to [0.001, 0.999],
    from noise.theta. Not monotone: the result can have a smaller radius than the start. theta is kept >= 1e-3,
    where the published code lets it turn negative.
    """
    _check_schedule(iterations, draws, step)

    def ascend(classifier: Classifier, x: Tensor, theta: Tensor, indices: list[int]) -> Tensor:
        probabilities = _sampler(classifier, x, noise, draws, seed, indices)
        theta = theta.clone().requires_grad_()
        for _ in range(iterations):
            radius = theta.flatten() * _gap_of_top_two(noise, probabilities(theta))
            (gradient,) = torch.autograd.grad(radius.sum(), theta)
            with torch.no_grad():
                theta.add_(gradient, alpha=step).clamp_(min=1e-3)
        return theta.detach().flatten()

    return _in_groups(ascend, model, x, type(noise)(_one_scale_an_image(noise, x)), draws, indices)


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
    """ANCER as published (section 5 and algorithm 1 of the paper), with its defaults: theta like x (B, ...).

    Adam on gap * GM(theta) + kappa * min(theta) * gap of the two largest mean probabilities, each clamped to
    [0.001, 0.999], from noise.theta, and theta projected to >= noise.theta after each step.
    """
    _check_schedule(iterations, draws, step)
    if not 0 <= kappa < math.inf:
        raise ValueError(f"kappa must be >= 0, found {kappa}")

    def ascend(classifier: Classifier, x: Tensor, theta: Tensor, indices: list[int]) -> Tensor:
        probabilities = _sampler(classifier, x, noise, draws, seed, indices)
        floor = theta.expand_as(x)
        theta = floor.clone().requires_grad_()
        optimizer = torch.optim.Adam([theta], lr=step)
        for _ in range(iterations):
            gap = _gap_of_top_two(noise, probabilities(theta))
            proxy_radius = gap * theta.flatten(1).log().mean(dim=1).exp()
            objective = proxy_radius + kappa * theta.flatten(1).amin(dim=1) * gap
            (gradient,) = torch.autograd.grad(objective.sum(), theta)
            theta.grad = -gradient
            optimizer.step()
            with torch.no_grad():
                torch.maximum(theta, floor, out=theta)
        return theta.detach()

    return _in_groups(ascend, model, x, noise, draws, indices)


def _check_schedule(iterations: int, draws: int, step: float) -> None:
    if min(iterations, draws) < 1 or not 0 < step < math.inf:
        raise ValueError(f"iterations, draws and step must be > 0, found {iterations}, {draws} and {step}")


def _one_scale_an_image(noise: Noise, x: Tensor) -> Tensor:
    """noise.theta as (B,); ValueError when it is anisotropic."""
    check_images(x)
    theta = noise.theta_for(x)
    if theta[0].numel() != 1:
        raise ValueError(f"an isotropic start is one theta an image, found shape {tuple(noise.theta.shape)}")
    return theta.flatten()


def _gap_of_top_two(noise: Noise, probabilities: Tensor) -> Tensor:
    """(gap(p_1) - gap(p_2)) / 2 of the two largest probabilities (B, K), clamped as published: (B,)."""
    top = noise.gap(probabilities.topk(2, dim=1).values.clamp(0.001, 0.999))
    return (top[:, 0] - top[:, 1]) / 2


def _sampler(
    classifier: Classifier, x: Tensor, noise: Noise, draws: int, seed: int, indices: list[int], temperature=1.0
) -> Callable[[Tensor], Tensor]:
    """A function theta -> mean probabilities (B, K) over `draws` fresh draws an image, differentiable in theta."""
    streams = [generator(seed, "ascent", index, x.device) for index in indices]

    def probabilities(theta: Tensor) -> Tensor:
        z = unit_draws(noise, (draws, *x.shape[1:]), streams, x.dtype)
        inputs = x[:, None] + theta[:, None] * z
        p = classifier.probabilities(inputs.flatten(0, 1))
        if temperature != 1:
            p = (p.clamp(min=1e-30).log() / temperature).softmax(dim=1)
        return p.unflatten(0, (len(x), draws)).mean(dim=1)

    return probabilities


def _in_groups(ascend: Callable, model, x: Tensor, noise: Noise, draws: int, indices) -> Tensor:
    """Run `ascend` on as many images at once as draws for each fit the batch size; theta on x's device."""
    classifier = as_classifier(model)
    check_images(x)
    indices, theta = image_indices(x, indices), noise.theta_for(x)
    size = classifier.batch_size // draws
    if size < 1:
        raise ValueError(f"batch_size {classifier.batch_size} is below {draws} draws: raise it or lower draws")
    groups = [slice(i, i + size) for i in range(0, len(x), size)]
    inputs, theta = x.detach().to(classifier.device), theta.to(classifier.device)
    with torch.enable_grad(), classifier.enough_memory():
        return torch.cat([ascend(classifier, inputs[g], theta[g], indices[g]) for g in groups]).to(x.device)
