"""One theta for each coordinate, the same for all images: an ordinary smoothed classifier."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ancer.classifier import Classifier
from ancer.noise.law import Noise
from ancer.optimization._common import (
    MeanProbabilities,
    PlannedGap,
    check_schedule,
    common_start,
    with_gradients,
)
from ancer.optimization.anisotropic import LEAST_GAP, log_reach, part_of_reach
from ancer.perturbations.shares import Toward, energy_shares, perturbations_of
from ancer.smoothing import SmoothedClassifier

CLASS_DRAWS = 100  # noisy copies that choose the class of an image


def optimize_dataset(
    model: nn.Module | Classifier,
    x: Tensor,
    noise: Noise,
    *,
    seed: int,
    n: int = 10_000,
    alpha: float = 0.001,
    epochs: int = 10,
    draws: int = 16,
    step: float = 0.1,
    kappa: float = 2.0,
    enlarge: float = 1.0,
    toward: Toward | None = None,
    mix: float = 0.5,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """One theta for each coordinate in noise's basis, the same for all images.

    The ascent of `optimize_anisotropic`, of the mean objective over images whose class is the one
    that leads at `noise`: (1 - mix) * mean log theta + mix * reach towards the perturbations
    `toward` (0 without) + (1 + kappa) * log gap, over theta >= enlarge * noise.theta.

    Args:
        model, n, alpha, step, kappa, toward, mix, seed, indices: as in `optimize_anisotropic`.
        x: images (B, ...), which must not be those that are certified: training images.
        noise: theta one number.
        epochs: passes over x, in batches that fill the classifier's.
        draws: of each image in a pass.
        enlarge: theta is at least so many times its start.

    Returns:
        theta: (1, *x.shape[1:]).

    Guarantee:
        The classifier smoothed with it is one for all images, so that its certificates are sound
        together without a `Memory` (ANCER, section 3: theorem 1 alone).

    Raises:
        ValueError: as `optimize_anisotropic`, and where no image is certified at `noise`.

    Example:
        >>> x = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
        >>> theta = optimize_dataset(nn.Identity(), x, GaussianNoise(0.25), seed=0, epochs=1)
        >>> theta.shape
        torch.Size([1, 2])
    """
    check_schedule(epochs, draws, step)
    perturbations = perturbations_of(toward or {})
    part = part_of_reach(mix, perturbations)
    planned_gap = PlannedGap(noise, n, alpha)
    start = common_start(noise, x)
    smoothed = SmoothedClassifier(model, noise.with_theta(start))
    queries = smoothed.queries(x, indices)
    classifier = queries.classifier
    size = max(1, classifier.batch_size // draws)

    # 1. the class of each image, where more than half of its copies have one
    most, leader = queries.counts(CLASS_DRAWS, seed=seed, purpose="search").max(dim=1)
    at = (most > CLASS_DRAWS / 2).nonzero()[:, 0].tolist()
    if not at:
        raise ValueError(
            f"no image of {len(x)} has a class under {noise}: was the network trained?"
        )
    decided = smoothed.queries(x[at], [queries.indices[i] for i in at])
    batches = []
    for first in range(0, len(at), size):
        rows = slice(first, first + size)
        classes = leader[at][rows, None].to(decided.x.device)
        batches.append((decided.part(rows), classes))

    # 2. the ascent
    with with_gradients(classifier):
        floor = (enlarge * queries.theta[:1]).log().expand_as(queries.x[:1])
        log_theta = floor.clone().requires_grad_()
        optimizer = torch.optim.Adam([log_theta], lr=step)
        of_batch = []
        for some, _ in batches:
            shares = energy_shares(noise.basis, some.x, perturbations).flatten(1).to(floor)
            of_batch.append((MeanProbabilities(some, draws, seed), shares))
        steps = epochs * len(batches)
        for t in range(steps):
            k = t % len(batches)
            some, classes = batches[k]
            probabilities, shares = of_batch[k]
            gap = planned_gap(probabilities(log_theta.exp().expand_as(some.x)), classes)
            scale = gap.detach().clamp(min=LEAST_GAP)
            flat = log_theta.flatten(1)
            volume = (1 - part) * flat.mean()
            if part:
                volume = volume + part * log_reach(shares, flat).mean()
            objective = volume + (1 + kappa) * (gap / scale).mean()
            (gradient,) = torch.autograd.grad(objective, log_theta)
            log_theta.grad = -gradient
            optimizer.param_groups[0]["lr"] = step * (1 - t / steps)
            optimizer.step()
            with torch.no_grad():
                torch.maximum(log_theta, floor, out=log_theta)
    return log_theta.detach().exp().to(x.device)
