import math
import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import BAD_SHAPES
from scipy import stats

from ancer import noise
from ancer.bases.lattice import check_on_lattice, levels
from ancer.noise.sampled import LAWS, GaussianNoise, UniformNoise

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
    """Correlations of neighbours and of their squares.

    A right sampler fails for 1 seed in 10,000 each.
    """
    z = draws(law, (20_000, 8)).double()
    for values in (z, z**2):
        for a, b in [(values[:, :-1], values[:, 1:]), (values[:-1], values[1:])]:
            assert stats.pearsonr(a.flatten().numpy(), b.flatten().numpy()).pvalue > 1e-4


@pytest.mark.parametrize("law", LAWS)
def test_from_sigma_gives_coordinates_that_standard_deviation(law):
    """4e6 draws put the sample's standard deviation within 5 standard errors.

    Fails for 1 seed in 1.7e6.
    """
    law_of_sigma = LAWS[law].from_sigma(0.25)
    z = law_of_sigma.theta * draws(law, (2000, 2000))
    kurtosis = UNIT[law].stats(moments="k") + 3
    tolerance = 5 * math.sqrt((float(kurtosis) - 1) / 4 / z.numel())
    assert z.double().std().item() == pytest.approx(0.25, rel=tolerance)
    assert law_of_sigma.sigma.item() == pytest.approx(0.25, rel=1e-7)


@pytest.mark.parametrize(
    "sigma", [0.25, torch.tensor([0.12, 0.5]), torch.rand(2, 3).double() + 0.1]
)
def test_uniform_lambda_is_sqrt_3_sigma(sigma):
    law = UniformNoise.from_sigma(sigma)
    expected = torch.as_tensor(sigma) * math.sqrt(3)
    torch.testing.assert_close(law.theta, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(law.sigma, torch.as_tensor(sigma), rtol=1e-6, atol=0)
    assert law.theta.shape == torch.as_tensor(sigma).shape


def test_gaussian_theta_is_sigma():
    assert (
        GaussianNoise(0.25).theta
        == GaussianNoise(0.25).sigma
        == GaussianNoise.from_sigma(0.25).theta
        == 0.25
    )


def test_only_the_noise_knows_sqrt_3():
    root = re.compile(r"sqrt\(3|\b3(\.0)? ?\*\* ?\(?-?(0?\.5|1 ?/ ?2)|1\.73")
    homes = [f.name for f in Path(noise.__file__).parent.glob("*.py") if root.search(f.read_text())]
    assert homes == ["sampled.py"]


def test_norms():
    assert GaussianNoise.norm == 2 and UniformNoise.norm == 1


@pytest.mark.parametrize(
    "law, exact", [("gaussian", stats.norm.ppf), ("uniform", lambda p: 2 * p - 1)]
)
def test_gap_in_closed_form(law, exact):
    p = np.concatenate(
        [np.linspace(0.001, 0.999, 999), [0.5, 1e-9, 1 - 1e-9, 0.001 ** (1 / 100_000)]]
    )
    gap = LAWS[law](1.0).gap(torch.from_numpy(p))
    assert gap.dtype == torch.float64
    np.testing.assert_allclose(gap.numpy(), exact(p), rtol=1e-12, atol=1e-13)
    assert ((gap > 0).numpy() == (p > 0.5)).all()


@pytest.mark.parametrize("law", LAWS)
def test_gap_is_differentiable(law):
    p = torch.linspace(0.05, 0.95, 19, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(LAWS[law](1.0).gap(p).sum(), p)
    exact = (
        1 / stats.norm.pdf(stats.norm.ppf(p.detach())) if law == "gaussian" else np.full(19, 2.0)
    )
    np.testing.assert_allclose(slope.numpy(), exact, rtol=1e-9)


@pytest.mark.parametrize("law", LAWS)
def test_probability_is_the_inverse_of_gap(law):
    noise, p = LAWS[law](1.0), torch.linspace(0.5, 1, 500, dtype=torch.float64)[:-1]
    torch.testing.assert_close(noise.probability(noise.gap(p)), p, rtol=1e-14, atol=0)
    gap = torch.linspace(0, 0.999, 200, dtype=torch.float64) * (1 if law == "uniform" else 6)
    torch.testing.assert_close(noise.gap(noise.probability(gap)), gap, rtol=1e-6, atol=1e-12)
    assert (
        noise.probability(torch.zeros(())) == 0.5 and noise.probability(gap).dtype == torch.float64
    )


@pytest.mark.parametrize("gap", [1.0, 1.0 + 1e-9, 3.8, 1e6, math.inf])
def test_no_probability_is_enough_for_uniform_noise_to_reach_further_than_theta(gap):
    assert UniformNoise(1.0).probability(torch.tensor(gap, dtype=torch.float64)) == 1
    # as float64 has it
    assert GaussianNoise(1.0).probability(torch.tensor(40 * gap, dtype=torch.float64)) == 1


# --- noise in whole steps of a lattice


def steps(law, theta, draws, *, seed=0):
    """(draws, *theta.shape) whole numbers; theta in lattice steps."""
    theta = torch.as_tensor(theta, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    z = LAWS[law](1.0).unit((draws, *theta.shape), generator=generator, dtype=torch.float64)
    return LAWS[law](1.0).steps(theta, z)


def law_of_steps(law, theta):
    """The whole numbers that matter and their exact probabilities.

    The law rounded to whole numbers.
    """
    if law == "uniform":
        m = round(theta - 0.5)
        return np.arange(-m, m + 1), np.full(2 * m + 1, 1 / (2 * m + 1))
    k = np.arange(-math.ceil(9 * theta), math.ceil(9 * theta) + 1)
    return k, stats.norm.cdf((k + 0.5) / theta) - stats.norm.cdf((k - 0.5) / theta)


def fit(sample, values, p):
    """p-value of the chi-square test, values of fewer than 10 expected draws taken together."""
    assert set(np.unique(sample)) <= set(values)
    counts, often = np.array([(sample == v).sum() for v in values]), p * len(sample) >= 10
    found, expected = (
        np.append(counts[often], counts[~often].sum()),
        np.append(p[often], p[~often].sum()),
    )
    if expected[-1] * len(sample) < 10:  # too rare for a class of its own
        found, expected = found[:-1], expected[:-1] / expected[:-1].sum()
        expected = expected * found.sum() / len(sample)
    return stats.chisquare(found, expected * len(sample)).pvalue if len(found) > 1 else 1.0


SCALES = [("gaussian", t) for t in (0.1, 0.5, 1.0, 3.7, 63.75)] + [
    ("uniform", m + 0.5) for m in (0, 1, 2, 5, 16, 110)
]


@pytest.mark.parametrize("law, theta", SCALES)
def test_steps_follow_the_rounded_law_exactly(law, theta):
    """Chi-square on 100,000 draws; a right sampler fails for 1 seed in 10,000 (in each of 11
    cases).
    """
    k = steps(law, torch.full((4,), theta), 25_000)
    assert k.dtype == torch.float64 and torch.equal(k, k.round())
    values, p = law_of_steps(law, theta)
    assert fit(k.flatten().numpy(), values, p) > 1e-4
    if law == "uniform":
        assert set(k.flatten().tolist()) == set(values)  # all 2 m + 1 values, and none outside


def test_half_a_step_of_uniform_noise_is_none():
    assert (steps("uniform", torch.full((10,), 0.5), 1000) == 0).all()


@pytest.mark.parametrize(
    "law, scales", [("gaussian", [0.3, 1.0, 4.0, 20.0]), ("uniform", [0.5, 1.5, 4.5, 20.5])]
)
def test_each_coordinate_has_steps_of_its_own_law(law, scales):
    """Chi-square for each of 4 coordinates, and no correlation.

    Fails for 1 seed in 10,000 each (5 times).
    """
    k = steps(law, torch.tensor(scales).reshape(1, 2, 2), 25_000).flatten(1).numpy()
    for sample, theta in zip(k.T, scales, strict=True):
        assert fit(sample, *law_of_steps(law, theta)) > 1e-4
    assert stats.pearsonr(k[:, 2], k[:, 3]).pvalue > 1e-4


def test_float64_all_the_way_so_that_the_tail_of_the_normal_is_there():
    """Float32 normals end at 5.77 and have 24 binary digits.

    Scaled by 2^50 they are multiples of 2^25 or more. Of right draws, one in 2^25 is such a
    multiple by chance.
    """
    for law in LAWS:
        k = steps(law, torch.full((8,), 2.0**50 + 0.5, dtype=torch.float64), 100)
        assert ((k / 2**25).frac() == 0).double().mean() < 0.01, law


def test_uniform_steps_stay_in_their_range_for_the_smallest_and_largest_random_number():
    """The numbers next to -1 and 1, where a product that rounds up would leave the range."""
    extremes = torch.tensor([-1.0, 2.0**-52 - 1, 1 - 2.0**-51, 1 - 2.0**-52], dtype=torch.float64)
    for m in [*range(300), 2**20 - 1, 2**20, 12_345_678]:
        k = UniformNoise(1.0).steps(torch.tensor(m + 0.5, dtype=torch.float64), extremes.clone())
        assert k.tolist() == [-m, -m, m, m]


def test_snap_gives_the_nearest_scale_that_uniform_steps_have():
    theta = torch.linspace(1e-3, 40, 4001, dtype=torch.float64)
    snapped = UniformNoise(1.0).snap(theta)
    assert torch.equal(snapped - 0.5, (snapped - 0.5).round()) and (snapped >= 0.5).all()
    away = (snapped - theta).abs()
    assert (away[theta >= 0.5] <= 0.5).all() and (snapped[theta < 0.5] == 0.5).all()
    assert torch.equal(UniformNoise(1.0).snap(snapped), snapped)


def test_snap_leaves_gaussian_scales_alone():
    theta = torch.rand(100, dtype=torch.float64) * 40
    assert torch.equal(GaussianNoise(1.0).snap(theta), theta)


@pytest.mark.parametrize("lattice", [1 / 255, 1 / 16, 1 / 10, 1 / 3])
@pytest.mark.parametrize("shape", [(), (2,), (2, 1, 4, 4)])
def test_theta_on_a_lattice_is_in_float64_and_nearest(lattice, shape):
    given, x = (
        torch.rand(shape, generator=torch.Generator().manual_seed(0)) + 0.05,
        torch.rand(2, 1, 4, 4),
    )
    for law in LAWS.values():
        plain, snapped = law(given).theta_for(x).double(), law(given).theta_for(x, lattice)
        assert snapped.dtype == torch.float64 and snapped.shape == plain.shape
        if law is GaussianNoise:
            torch.testing.assert_close(snapped, plain, rtol=1e-15, atol=0)
        else:
            halves = snapped / lattice - 0.5
            torch.testing.assert_close(halves, halves.round(), rtol=0, atol=1e-9)
            assert ((snapped - plain).abs()[plain >= lattice / 2] <= lattice / 2 * (1 + 1e-9)).all()
        assert torch.equal(law(snapped).theta_for(x, lattice), snapped)  # once there it stays there


def variation(boundaries, grid, values):
    """Total variation between the uniform law and that of `values` cells of 0..grid - 1, cut at the
    boundaries.
    """
    cuts = [0, *boundaries, grid]
    return sum(abs(Fraction(b - a, grid) - Fraction(1, values)) for a, b in pairwise(cuts)) / 2


@pytest.mark.parametrize("k", [4, 7, 10])
def test_bound_of_the_slack_holds_on_every_small_grid(k):
    """The same formula on the multiples of 2^-k, by counting, in exact arithmetic.

    At most 2^-k for each value.
    """
    for values in range(1, 2 ** (k - 1), 2):
        law = np.bincount(np.arange(2**k) * values >> k, minlength=values)
        boundaries = np.cumsum(law)[:-1].tolist()
        assert len(law) == values and variation(boundaries, 2**k, values) <= Fraction(values, 2**k)


@pytest.mark.parametrize("m", [0, 1, 2, 3, 16, 27, 64, 110, 255, 1000])
def test_slack_of_uniform_steps_bounds_the_exact_total_variation(m):
    """The law of `steps` itself, from the exact boundaries of its float64 formula on the grid of
    2^-53.
    """
    values, grid = 2 * m + 1, 2**53

    def drawn(j):
        return math.floor(float(j) * 2.0**-53 * values)

    boundaries = []
    for i in range(1, values):
        # in exact arithmetic; the product in floating point may round up
        first = -(-i * grid // values)
        while drawn(first - 1) >= i:
            first -= 1
        assert drawn(first) == i and drawn(first - 1) == i - 1
        boundaries.append(first)
    exact = variation(boundaries, grid, values)
    slack = UniformNoise(1.0).slack(torch.tensor(m + 0.5, dtype=torch.float64))
    assert exact <= Fraction(slack) <= Fraction(values, grid) * 2


@pytest.mark.parametrize("law", LAWS)
def test_slack_adds_up_over_the_coordinates(law):
    """Total variation of independent coordinates is at most the sum.

    Small enough to cost nothing at any n.
    """
    theta = torch.arange(24, dtype=torch.float64).reshape(2, 3, 4) + 0.5
    slack = LAWS[law](1.0).slack
    assert slack(theta) == pytest.approx(sum(slack(t) for t in theta.flatten()), rel=1e-12)
    assert (
        0 < slack(theta) <= 24.1e-11
        and slack(torch.full((150_528,), 63.5, dtype=torch.float64)) < 2e-6
    )


@pytest.mark.parametrize("whole", [1, 2, 3, 10, 16, 49, 255, 256, 65_535])
def test_levels_of_a_lattice(whole):
    assert levels(1 / whole) == whole and isinstance(levels(1 / whole), int)


@pytest.mark.parametrize(
    "bad", [0, 0.0, -1, -1 / 255, 0.3, 2, 255, 0.0039, float("nan"), float("inf")]
)
def test_a_lattice_that_does_not_divide_1_is_named(bad):
    for refuse in (lambda: levels(bad), lambda: check_on_lattice(torch.ones(1, 2), bad)):
        with pytest.raises(ValueError, match=rf"lattice.*1/255.*{re.escape(repr(bad))}"):
            refuse()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("whole", [1, 10, 16, 255, 65_535])
def test_every_level_is_on_the_lattice_and_its_neighbours_are_not(whole, dtype):
    x = torch.arange(whole + 1).to(dtype).div(whole)[None]
    check_on_lattice(x, 1 / whole)
    for value in (x[0, 1:2], x[0, -1:]):
        for away in (torch.nextafter(value, torch.zeros_like(value)), value - 0.4 / whole):
            off = x.clone()
            off[0, 1] = away
            with pytest.raises(
                ValueError, match=rf"{re.escape(repr(away.item()))}.*1/{whole}\b.*exact=False"
            ):
                check_on_lattice(off, 1 / whole)


@pytest.mark.parametrize(
    "shape", [(), (2,), (2, 1, 1, 1), (2, 1, 4, 4), (2, 3, 4, 4), (2, 3, 1, 1)]
)
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
