"""Search of one scale for a theta by votes, without gradients; what it finds is a proposal, `certify` alone proves."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ancer.confidence import clopper_pearson
from ancer.smoothing import SmoothedClassifier


def leader(smoothed: SmoothedClassifier, x: Tensor, *, draws: int, seed: int, indices) -> Tensor:
    """The class that most of `draws` noisy copies get: (B, 1)."""
    return smoothed.counts(x, draws, seed=seed, purpose="search", indices=indices).argmax(dim=1, keepdim=True)


def radii_by_scale(
    smoothed: SmoothedClassifier,
    x: Tensor,
    anchor: Tensor,
    scales: Tensor,
    n: int,
    alpha: float,
    *,
    draws: int,
    seed: int,
    indices: Sequence[int] | None,
) -> Tensor:
    """scale * gap of the class `anchor` (B, 1), as n draws at alpha would bound it, at each scale * theta: (S, B).

    scales: ascending. Votes on common draws, a quarter of `draws` at every scale and all at the five round each image's
    best; where there are no more than five, all at once. They are smoothed (Jeffreys' half vote, and a Gaussian kernel
    over log scale, width 0.2), so that luck at one large scale is not mistaken for radius.
    """
    noise, images = smoothed.noise, torch.arange(len(x))
    kernel = torch.softmax(-((scales.log()[:, None] - scales.log()) ** 2) / (2 * 0.2**2), dim=1)

    def share(scale: Tensor, draws: int) -> Tensor:
        theta = noise.theta_for(x)
        theta = theta * scale.to(theta).reshape(-1, *[1] * (x.dim() - 1))
        scaled = SmoothedClassifier(smoothed.classifier, type(noise)(theta))
        votes = scaled.counts(x, draws, seed=seed, purpose="search", indices=indices)
        return votes.gather(1, anchor)[:, 0].add(0.5).double() / (draws + 1)

    def radii(p: Tensor) -> Tensor:
        gap = noise.gap(torch.from_numpy(clopper_pearson(p.numpy() * n, n, alpha))).clamp(min=0)
        return kernel @ (scales[:, None] * gap)

    everywhere = draws if len(scales) <= 5 else math.ceil(draws / 4)
    p = torch.stack([share(scale.expand(len(x)), everywhere) for scale in scales])
    if len(scales) > 5:
        first = (radii(p).argmax(dim=0) - 2).clamp(0, len(scales) - 5)
        for k in range(5):
            p[first + k, images] = share(scales[first + k], draws)
    return radii(p)
