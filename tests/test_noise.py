import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import BAD_SHAPES
from scipy import stats

from ancer import noise
from ancer.noise import LAWS, GaussianNoise, UniformNoise

UNIT = {"gaussian": stats.norm(), "uniform": stats.uniform(-1, 2)}


def draws(law, shape, *, seed=0, dtype=torch.float32):
    return LAWS[law](1.0).unit(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("law", LAWS)
def test_unit_draws_follow_their_law(law, dtype):
    """Kolmogorov-Smirnov; a right sampler fails for 1 seed in 10,000 (in each of 4 cases)."""
    z = draws(law, (200, 100), dtype=dtype)
    assert z.dtype == dtype
    assert stats.kstest(z.flatten().double().numpy(), UNIT[law].cdf).pvalue > 1e-4


@pytest.mark.parametrize("law", LAWS)
def test_coordinates_and_draws_are_independent(law):
    """Correlations of neighbours and of their squares; a right sampler fails for 1 seed in 10,000 each."""
    z = draws(law, (20_000, 8)).double()
    for values in (z, z**2):
        for a, b in [(values[:, :-1], values[:, 1:]), (values[:-1], values[1:])]:
            assert stats.pearsonr(a.flatten().numpy(), b.flatten().numpy()).pvalue > 1e-4


@pytest.mark.parametrize("law", LAWS)
def test_from_sigma_gives_coordinates_that_standard_deviation(law):
    """4e6 draws put the sample's standard deviation within 5 standard errors; fails for 1 seed in 1.7e6."""
    law_of_sigma = LAWS[law].from_sigma(0.25)
    z = law_of_sigma.theta * draws(law, (2000, 2000))
    kurtosis = UNIT[law].stats(moments="k") + 3
    tolerance = 5 * math.sqrt((float(kurtosis) - 1) / 4 / z.numel())
    assert z.double().std().item() == pytest.approx(0.25, rel=tolerance)
    assert law_of_sigma.sigma.item() == pytest.approx(0.25, rel=1e-7)


@pytest.mark.parametrize("sigma", [0.25, torch.tensor([0.12, 0.5]), torch.rand(2, 3).double() + 0.1])
def test_uniform_lambda_is_sqrt_3_sigma(sigma):
    law = UniformNoise.from_sigma(sigma)
    expected = torch.as_tensor(sigma) * math.sqrt(3)
    torch.testing.assert_close(law.theta, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(law.sigma, torch.as_tensor(sigma), rtol=1e-6, atol=0)
    assert law.theta.shape == torch.as_tensor(sigma).shape


def test_gaussian_theta_is_sigma():
    assert GaussianNoise(0.25).theta == GaussianNoise(0.25).sigma == GaussianNoise.from_sigma(0.25).theta == 0.25


def test_only_the_noise_knows_sqrt_3():
    root = re.compile(r"sqrt\(3|\b3(\.0)? ?\*\* ?\(?-?(0?\.5|1 ?/ ?2)|1\.73")
    homes = [f.name for f in Path(noise.__file__).parent.glob("*.py") if root.search(f.read_text())]
    assert homes == ["noise.py"]


def test_norms():
    assert GaussianNoise.norm == 2 and UniformNoise.norm == 1


@pytest.mark.parametrize("law, exact", [("gaussian", stats.norm.ppf), ("uniform", lambda p: 2 * p - 1)])
def test_gap_in_closed_form(law, exact):
    p = np.concatenate([np.linspace(0.001, 0.999, 999), [0.5, 1e-9, 1 - 1e-9, 0.001 ** (1 / 100_000)]])
    gap = LAWS[law](1.0).gap(torch.from_numpy(p))
    assert gap.dtype == torch.float64
    np.testing.assert_allclose(gap.numpy(), exact(p), rtol=1e-12, atol=1e-13)
    assert ((gap > 0).numpy() == (p > 0.5)).all()


@pytest.mark.parametrize("law", LAWS)
def test_gap_is_differentiable(law):
    p = torch.linspace(0.05, 0.95, 19, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(LAWS[law](1.0).gap(p).sum(), p)
    exact = 1 / stats.norm.pdf(stats.norm.ppf(p.detach())) if law == "gaussian" else np.full(19, 2.0)
    np.testing.assert_allclose(slope.numpy(), exact, rtol=1e-9)


@pytest.mark.parametrize("shape", [(), (2,), (2, 1, 1, 1), (2, 1, 4, 4), (2, 3, 4, 4), (2, 3, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_theta_broadcasts_image_by_image(shape, dtype):
    x = torch.rand(2, 3, 4, 4, dtype=dtype)
    theta = torch.rand(shape) + 0.1
    fitted = GaussianNoise(theta).theta_for(x)
    assert fitted.dtype == dtype and fitted.dim() == 4 and len(fitted) == 2
    expected = theta.reshape(2, 1, 1, 1) if shape == (2,) else theta
    assert torch.equal(fitted.expand_as(x), expected.to(dtype).expand_as(x))


def test_one_theta_an_image_also_where_the_features_are_as_many():
    fitted = GaussianNoise(torch.tensor([1.0, 2.0])).theta_for(torch.rand(2, 2))
    assert fitted.tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize("shape", BAD_SHAPES)
def test_other_shapes_of_theta_are_refused(shape):
    with pytest.raises(ValueError, match=re.escape(str(tuple(shape)))):
        GaussianNoise(torch.ones(shape)).theta_for(torch.rand(2, 1, 4, 4))


def test_whole_numbers_are_scales():
    assert GaussianNoise(1).theta.is_floating_point()
    assert UniformNoise(torch.tensor([1, 2])).theta.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("bad", [0, 0.0, -0.25, float("nan"), float("inf"), float("-inf")])
def test_scales_outside_their_domain_are_named(law, bad):
    for theta in (bad, torch.tensor([0.25, bad]), torch.full((2, 1, 4, 4), bad)):
        with pytest.raises(ValueError, match=f"found {float(bad)}|found {bad}"):
            LAWS[law](theta)
        with pytest.raises(ValueError, match=f"found {float(bad)}|found {bad}"):
            LAWS[law].from_sigma(theta)


def test_no_scale_at_all_is_refused():
    with pytest.raises(ValueError, match="found nothing"):
        GaussianNoise(torch.ones(0))


@pytest.mark.parametrize("theta", [1e-50, 1e50])
def test_a_scale_that_the_images_dtype_cannot_hold_is_refused(theta):
    """It would be 0 or infinite as evaluated: no noise at all, and a region of axes 0."""
    law = GaussianNoise(torch.tensor(theta, dtype=torch.float64))
    assert law.theta_for(torch.rand(1, 2).double()).item() == theta
    with pytest.raises(ValueError, match=re.escape(f"{theta}")):
        law.theta_for(torch.rand(1, 2))


def test_repr_shows_the_scale():
    assert repr(UniformNoise(0.5)) == "UniformNoise(theta=0.5)"
