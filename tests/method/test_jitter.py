"""Noise with shifts of light and colour: what it is in a basis, and what certifies under it."""

import math

import pytest
import torch
from torch import nn

from ancer import GaussianNoise, UniformNoise, certify, jitter
from ancer.bases import basis_named
from ancer.bases.images import OPPONENT

SHAPE = (3, 8, 8)
WITH_MEANS = ["dct+colours", "haar+colours", "square+colours", "dct4+means+colours"]


@pytest.mark.parametrize("name", WITH_MEANS)
def test_its_covariance_is_that_of_noise_and_shifts(name):
    """Q^T diag(theta^2) Q = sigma^2 + light^2 1 1^T + colour^2 (d d^T + e e^T), entry by entry."""
    basis = basis_named(name, SHAPE)
    noise = GaussianNoise(0.25, basis=basis)
    theta = jitter(None, torch.zeros(2, *SHAPE), noise, light=0.15, colour=0.08)
    assert theta.shape == (1, *SHAPE) and theta.dtype == torch.float32
    n = math.prod(SHAPE)
    q = basis.to(torch.eye(n, dtype=torch.float64).reshape(n, *SHAPE)).reshape(n, n)
    covariance = (q * theta.flatten().double().square()) @ q.T
    directions = (OPPONENT * math.sqrt(3))[:, :, None].expand(3, 3, 64).reshape(3, n)
    sizes = torch.tensor([0.15, 0.08, 0.08], dtype=torch.float64)
    expected = 0.25**2 * torch.eye(n, dtype=torch.float64)
    for size, direction in zip(sizes, directions, strict=True):
        assert direction.square().mean() == pytest.approx(1)
        expected += size**2 * torch.outer(direction, direction)
    assert torch.allclose(covariance, expected, atol=1e-6)


def test_a_classifier_that_does_not_look_at_light_bears_more_of_it_in_proportion():
    """A half-space of one contrast: the same p_A; unclipped light up to gap * theta / sqrt(n)."""

    class Striped(nn.Module):
        def forward(self, x):
            contrast = x[:, 0, 0, 0] - x[:, 0, 7, 7]
            return torch.stack([contrast, -contrast], dim=1) * 1e6

    x = torch.full((1, 1, 8, 8), 0.5)
    x[:, :, 0, 0] = 0.9
    plain = GaussianNoise(0.25, basis=basis_named("haar", (1, 8, 8)))
    theta = jitter(None, x, plain, light=0.15)
    (before,) = certify(Striped(), x, plain, n=20_000, alpha=0.001, seed=0)
    (after,) = certify(Striped(), x, plain.with_theta(theta), n=20_000, alpha=0.001, seed=1)
    # p_A = Phi(.4 / (.25 sqrt 2)) for both: the bounds differ by chance alone
    expected = torch.special.ndtr(torch.tensor(0.4 / (0.25 * math.sqrt(2)))).item()
    for c in (before, after):
        assert c.prediction == 0 and expected - 0.02 < c.p_a_lower < expected
    assert after.radius == pytest.approx(before.radius, rel=0.05)
    reach = after.gap * math.sqrt(0.25**2 + 64 * 0.15**2) / 8
    assert after.region.contains(x[0] + 0.999 * reach)
    assert not after.region.contains(x[0] + 1.001 * reach)
    assert not before.region.contains(x[0] + 0.3 * reach)


@pytest.mark.parametrize(
    "basis, shape, options, message",
    [
        ("dct4+colours", SHAPE, {"light": 0.1}, "dct4.colours a shift of all pixels is no coeffic"),
        ("dct", SHAPE, {"colour": 0.1}, "in basis dct a shift .* and .colours for colour"),
        ("dct", SHAPE, {"light": 0.1}, "in basis dct a shift .* and .colours for colour"),
        ("dct", (1, 8, 8), {"colour": 0.1}, r"three channels, found shape \(1, 8, 8\)"),
        ("dct", (1, 8, 8), {"light": -0.1}, r"light must be >= 0 and finite, found -0\.1"),
        ("dct", (1, 8, 8), {"colour": math.nan}, "colour must be >= 0 and finite, found nan"),
        ("dct", (1, 4, 4), {}, "is for images of shape"),
    ],
)
def test_what_it_cannot_be_is_named(basis, shape, options, message):
    noise = GaussianNoise(0.25, basis=basis_named(basis, shape))
    x = torch.zeros(1, shape[0], 8, 8)
    with pytest.raises(ValueError, match=message):
        jitter(None, x, noise, **options)


def test_it_starts_from_one_number_in_a_basis():
    x = torch.zeros(2, 1, 8, 8)
    basis = basis_named("dct", (1, 8, 8))
    with pytest.raises(ValueError, match="starts from one number"):
        jitter(None, x, GaussianNoise(torch.tensor([0.1, 0.2]), basis=basis), light=0.1)
    with pytest.raises(ValueError, match="in basis pixels a shift"):
        jitter(None, x, GaussianNoise(0.1), light=0.1)
    with pytest.raises(ValueError, match="in basis pixels a shift"):
        jitter(None, x, UniformNoise(0.1), light=0.1)
