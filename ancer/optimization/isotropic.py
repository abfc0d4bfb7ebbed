"""One theta for each image, by search."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from ancer.classifier import Classifier
from ancer.confidence.bounds import clopper_pearson
from ancer.noise.law import Noise
from ancer.optimization._common import isotropic_start
from ancer.optimization._scale import leading_class, radii_by_scale
from ancer.smoothing import SmoothedClassifier


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
    """One theta for each image, by search, without gradients.

    The class is the smoothed prediction at `noise`; theta = scale * noise.theta, with the scale
    whose radius for *that* class, as n draws at alpha would bound it, is largest.

    Args:
        model: a `Classifier`, or an nn.Module that returns logits.
        x: images (B, ...).
        noise: where the search starts.
        seed: of random streams that certification never sees.
        indices: the images' numbers in their data set.
        n, alpha: those planned for certification.
        draws: noisy copies at the scales that matter (see `_scale.radii_by_scale`).
        scales: > 0, ascending, evenly spaced in log.

    Returns:
        theta: (B,).

    Raises:
        ValueError: outside these domains.

    Example:
        >>> x = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
        >>> optimize_isotropic(nn.Identity(), x, GaussianNoise(0.25), seed=0).shape
        torch.Size([2])
    """
    clopper_pearson(0, n, alpha)  # the domains of n and alpha, before any work
    ascending = all(a < b for a, b in pairwise([0, *scales, math.inf]))
    if draws < 1 or len(scales) == 0 or not ascending:
        raise ValueError(
            "draws must be >= 1 and scales > 0, finite and ascending, "
            f"found {draws} and {list(scales)}"
        )
    queries = SmoothedClassifier(model, noise).queries(x, indices)
    start = isotropic_start(noise, x)

    # 1. the class at the start
    anchor = leading_class(queries, draws=draws, seed=seed)
    # 2. the scale of its largest radius
    grid = torch.as_tensor(scales, dtype=torch.float64)
    radius = radii_by_scale(queries, anchor, grid, n=n, alpha=alpha, draws=draws, seed=seed)
    best = grid[radius.argmax(dim=0)]
    # where every scale would abstain there is nothing to choose: keep the start
    best = torch.where(radius.amax(dim=0) > 0, best, 1.0)
    return start * best.to(start)
