"""Volume inside the image box: exact shapes, plain Monte Carlo, estimate against saddlepoint."""

import math

import pytest
import torch

from ancer import Region
from ancer.regions.in_box import estimate_in_box, log_volume_in_box, tilt, weights
from ancer.regions.volume import log_unit_volume

NORMS = [1, 2]
# of semi-axes: within the box or longer than it, one or many lengths
AXES = {
    "half": lambda n, g: torch.full((n,), 0.5, dtype=torch.float64),
    "four": lambda n, g: torch.full((n,), 4.0, dtype=torch.float64),
    "many": lambda n, g: torch.randn(n, generator=g, dtype=torch.float64).exp(),
}


def images(n, seed):
    """A center with pixels at both borders and between, as pictures have."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, generator=generator, dtype=torch.float64)
    x[::5] = 0
    x[1::7] = 1
    return x, generator


@pytest.mark.parametrize("norm", NORMS)
def test_known_volumes(norm):
    """A region inside the box, a quarter of one in its corner, one that holds the whole box."""
    one = torch.tensor([0.5, 0.5])
    whole = Region(one, torch.tensor([0.4, 0.5]), norm)
    assert whole.in_box_log_volume == pytest.approx(whole.log_volume, abs=0.02)
    corner = Region(torch.zeros(2), torch.tensor([0.4, 0.5]), norm)
    assert corner.in_box_log_volume == pytest.approx(corner.log_volume - math.log(4), abs=0.02)
    large = Region(one, torch.tensor(3.0), norm)
    assert large.in_box_log_volume == 0
    assert large.in_box_proxy_radius == pytest.approx(math.exp(-log_unit_volume(2, norm) / 2))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n", [64, 3072])
def test_a_ball_in_the_middle_of_the_box_has_its_own_volume(n, norm):
    """In many dimensions nothing is cut: the saddlepoint is off by less than 1e-3 a dimension."""
    ball = Region(torch.full((n,), 0.5), torch.tensor(0.4), norm)
    assert ball.in_box_proxy_radius == pytest.approx(ball.proxy_radius, rel=1e-3)
    assert ball.in_box_log_volume <= ball.log_volume


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "n, axes", [(2, "half"), (2, "many"), (3, "half"), (3, "four"), (8, "four"), (8, "many")]
)
def test_small_dimensions_agree_with_plain_monte_carlo(n, axes, norm):
    """Within five standard errors of both: one seed in a million of each of 12 fails."""
    x, generator = images(n, n)
    a = AXES[axes](n, generator)
    y = torch.rand(300_000, n, generator=generator, dtype=torch.float64)
    share = (((y - x) / a).abs() ** norm).sum(dim=1).le(1).double().mean().item()
    spread = math.sqrt((1 - share) / share / len(y))
    found, error = estimate_in_box(x, a, norm)
    assert abs(found - math.log(share)) <= 5 * math.hypot(spread, error) + 1e-5
    assert log_volume_in_box(x[None], a[None], norm).item() == pytest.approx(
        min(found, 0), abs=1e-12
    )


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("n, off", [(64, 0.06), (3072, 0.01), (150_528, 0.01)])
def test_saddlepoint_and_estimate_agree(n, off, axes, norm):
    """Within five standard errors and what a saddlepoint is off by, a part in a thousand of n."""
    x, generator = images(n, n)
    a = AXES[axes](n, generator)
    draws = 20_000 if n < 100_000 else 200
    found, error = estimate_in_box(x, a, norm, draws=draws)
    assert error < 0.3
    assert abs(log_volume_in_box(x[None], a[None], norm).item() - found) <= 5 * error + off


@pytest.mark.parametrize("norm", NORMS)
def test_the_estimate_is_unbiased_and_knows_its_error(norm):
    """Its z-scores over 100 seeds: mean 0 and deviation 1 (1 seed in 1e4 fails)."""
    x, generator = images(64, 1)
    a = AXES["many"](64, generator)
    exact, _ = estimate_in_box(x, a, norm, draws=200_000, seed=1000)
    scores = []
    for seed in range(100):
        found, error = estimate_in_box(x, a, norm, draws=500, seed=seed)
        scores.append((math.exp(found - exact) - 1) / error)
    scores = torch.tensor(scores)
    assert abs(scores.mean()) < 4 / math.sqrt(100)
    assert scores.std() == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("norm", NORMS)
def test_more_axis_is_more_volume_and_never_more_than_region_or_box(norm):
    x, generator = images(200, 0)
    a = AXES["many"](200, generator)
    before = -math.inf
    for scale in (0.1, 0.3, 1.0, 3.0, 10.0, 1e4):
        region = Region(x, scale * a, norm)
        inside = region.in_box_log_volume
        assert before <= inside <= min(0.0, region.log_volume)
        before = inside
    assert inside == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_the_weights_are_the_derivatives(norm):
    """Of ln volume by each ln axis, against a difference of saddlepoints."""
    x, generator = images(300, 3)
    a = AXES["many"](300, generator)
    found, _ = weights(x[None], a[None], norm)
    assert (found >= 0).all() and (found <= 1).all()
    for i in (0, 1, 2, 3, 50, 299):
        more = a.clone()
        less = a.clone()
        more[i] *= math.exp(0.01)
        less[i] *= math.exp(-0.01)
        both = log_volume_in_box(x.expand(2, 300), torch.stack([more, less]), norm)
        difference = (both[0] - both[1]).item() / 0.02
        assert found[0, i].item() == pytest.approx(difference, abs=0.02)


@pytest.mark.parametrize("norm", NORMS)
def test_tilts_of_a_batch_are_those_of_each_image(norm):
    """From wherever they are searched; none where the region holds most of the box."""
    x = torch.stack([images(64, seed)[0] for seed in range(4)])
    a = torch.stack([torch.full((64,), axis, dtype=torch.float64) for axis in (0.1, 1, 3, 100)])
    found = tilt(x, a, norm)
    assert found[3] == 0 and (found[:3] > 0).all()
    for k in range(4):
        torch.testing.assert_close(tilt(x[k : k + 1], a[k : k + 1], norm), found[k : k + 1])
    for start in (found / 100, found * 3):
        torch.testing.assert_close(tilt(x, a, norm, start=start), found)
    assert tilt(x.float(), a.float(), norm).tolist() == pytest.approx(found.tolist(), rel=1e-3)


def test_a_center_outside_the_box_is_refused():
    region = Region(torch.tensor([0.5, 1.5]), torch.tensor(0.1), 2)
    with pytest.raises(ValueError, match="images in \\[0, 1\\], found a number 1.5"):
        _ = region.in_box_proxy_radius
