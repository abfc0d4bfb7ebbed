"""Volume inside the box of regions in a basis of blocks."""

import math

import pytest
import torch

from ancer import Region
from ancer.bases import basis_named
from ancer.bases.blocks import blocks_of
from ancer.regions.in_box import log_volume_in_box


def region(name, shape, *, spread, seed=0, width=1.0):
    stream = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=stream, dtype=torch.float64)
    z = torch.randn(shape, generator=stream, dtype=torch.float64)
    return Region(x, width * (spread * z).exp(), 2, basis_named(name, shape))


@pytest.mark.parametrize(
    "name, size",
    [("dct2", 4), ("dct4+colours", 48), ("haar1", 4), ("square2", 16), ("pixels+colours", 3)],
)
def test_blocks_are_those_of_the_basis(name, size):
    """Each index in one block; the matrices are all of the basis."""
    basis = basis_named(name, (3, 8, 8))
    pixels, coefficients, matrices = blocks_of(basis)
    for indices in (pixels, coefficients):
        assert indices.shape == (192 // size, size)
        assert sorted(indices.flatten().tolist()) == [*range(192)]
    x = torch.rand(3, 8, 8, dtype=torch.float64)
    y = basis.to(x).flatten()
    of_blocks = torch.einsum("bij,bj->bi", matrices, x.flatten()[pixels])
    torch.testing.assert_close(y[coefficients], of_blocks)


def test_in_a_basis_that_leaves_the_pixels_it_is_the_pixels_own():
    ours = region("dct1", (3, 8, 8), spread=1)
    pixels = log_volume_in_box(ours.center.reshape(1, -1), ours.axes.reshape(1, -1), 2).item()
    assert ours.in_box_log_volume == pytest.approx(pixels, abs=192 * 1e-5)


@pytest.mark.parametrize("radius", [0.5, 2.0, 5.0])
def test_of_a_ball_it_is_the_balls(radius):
    """All axes equal: the same ball in any basis."""
    x = region("dct4+colours", (3, 8, 8), spread=0).center
    axes = torch.full((3, 8, 8), radius)
    ours = Region(x, axes, 2, basis_named("dct4+colours", (3, 8, 8)))
    ball = Region(x, torch.tensor(radius), 2)
    assert ours.in_box_proxy_radius == pytest.approx(ball.in_box_proxy_radius, rel=5e-3)


@pytest.mark.parametrize("seed", range(3))
def test_against_monte_carlo(seed):
    """By a million points of the box, n = 16: to .02 of the proxy radius, above which a saddlepoint
    of so few coordinates is; a standard error of the points is at most .01."""
    ours = region("dct2", (1, 4, 4), spread=0.5, seed=seed, width=1.2)
    stream = torch.Generator().manual_seed(1)
    points = torch.rand(1_000_000, 1, 4, 4, generator=stream, dtype=torch.float64)
    share = ours.contains(points).double().mean().item()
    assert 1e-4 < share < 0.5
    assert (ours.in_box_log_volume - math.log(share)) / 16 == pytest.approx(0, abs=0.02)


def test_never_above_the_region_or_the_box():
    for width in (1e-3, 0.1, 1.0, 100.0):
        ours = region("dct4", (1, 8, 8), spread=1.5, width=width)
        assert ours.in_box_log_volume <= min(ours.log_volume, 0)
    tiny = region("dct4", (1, 8, 8), spread=0.1, width=1e-3)
    tiny = Region(torch.full((1, 8, 8), 0.5), tiny.axes, 2, tiny.basis)
    assert tiny.in_box_log_volume == pytest.approx(tiny.log_volume, abs=0.05)


def test_wide_blocks_and_whole_images_are_not_computed():
    for name in ("dct8+colours", "dct", "dct4+means"):
        assert math.isnan(region(name, (3, 16, 16), spread=1).in_box_proxy_radius)


def test_a_center_outside_the_box_is_refused():
    basis = basis_named("dct4", (1, 8, 8))
    outside = Region(torch.full((1, 8, 8), 1.5), torch.full((1, 8, 8), 0.5), 2, basis)
    with pytest.raises(ValueError, match="1.5"):
        _ = outside.in_box_log_volume
