"""Noise that shifts light and colour too: one theta for all images, chosen by hand."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ancer.bases.basis import Basis, check_shape
from ancer.bases.images import OPPONENT
from ancer.classifier import Classifier
from ancer.noise.law import Noise
from ancer.optimization._common import common_start


def jitter(
    model: nn.Module | Classifier | None,
    x: Tensor,
    noise: Noise,
    *,
    light: float = 0.0,
    colour: float = 0.0,
    seed: int = 0,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """theta of noise with a random shift of light and colour, for all images.

    theta_i^2 = noise.theta^2 + the shifts' variance in coefficient i: the jitter that people
    augment with is Gaussian noise in such a basis, and so it certifies. It is for a network that
    was trained under it: `train` takes this noise.

    Args:
        noise: Gaussian, one number, in a basis that holds the image's mean as a coefficient (and,
            for colour, opponent colours): "dct8+means+colours".
        light: standard deviation (>= 0, units of x) of the one number that is added to all pixels.
        colour: of that along each of two opponent colours, the root mean square over the channels.
        x: images (B, ...), looked at for their shape.
        model, seed, indices: not looked at; they are there for the pipeline.

    Returns:
        theta: (1, *x.shape[1:]).

    Raises:
        ValueError: for scales outside their domain or a basis where the shifts are no coefficients.

    Example:
        >>> from ancer import GaussianNoise
        >>> from ancer.bases import basis_named
        >>> noise = GaussianNoise(0.25, basis=basis_named("dct", (1, 8, 8)))
        >>> theta = jitter(None, torch.zeros(1, 1, 8, 8), noise, light=0.15)
        >>> theta[0, 0, :2, :2]
        tensor([[1.2258, 0.2500],
                [0.2500, 0.2500]])
    """
    for name, value in (("light", light), ("colour", colour)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be >= 0 and finite, found {value}")
    start = common_start(noise, x)
    shape = tuple(x.shape[1:])
    check_shape(noise.basis, shape)
    variance = torch.full(shape, start.item() ** 2, dtype=torch.float64)
    if light:
        variance += _variance(noise.basis, light * torch.ones(shape, dtype=torch.float64))
    if colour:
        if shape[0] != 3:
            raise ValueError(f"colour needs images of three channels, found shape {shape}")
        for direction in OPPONENT[1:] * math.sqrt(3):
            shift = colour * direction[:, None, None].expand(shape)
            variance += _variance(noise.basis, shift)
    return variance.sqrt()[None].to(x)


def _variance(basis: Basis, shift: Tensor) -> Tensor:
    """Of the coefficients of N(0, 1) * shift, where one alone varies."""
    found = basis.to(shift).square()
    if found.max() < (1 - 1e-6) * found.sum():
        raise ValueError(
            f"in basis {basis.name} a shift of all pixels is no coefficient: take one with the "
            "image's mean (dct, haar, dct8+means), and +colours for colour"
        )
    return found
