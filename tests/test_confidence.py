import numpy as np
import pytest
from scipy.stats import binom, binomtest

from ancer.confidence import clopper_pearson

SIZES = [1, 2, 10, 100, 1000]


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.5])
@pytest.mark.parametrize("n", SIZES)
def test_bound_agrees_with_scipys_exact_interval(n, alpha):
    counts = np.unique(np.linspace(0, n, 30).astype(int))
    interval = [binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, "exact").low for k in counts]
    np.testing.assert_allclose(clopper_pearson(counts, n, alpha), interval, rtol=1e-9, atol=2e-12)


@pytest.mark.parametrize("n", [*SIZES, 100_000])
def test_bound_is_where_the_tail_has_mass_alpha(n):
    """The definition: L is the p at which count or more successes have probability alpha; never above it."""
    counts = np.unique(np.linspace(1, n, 50).astype(int))
    bound = clopper_pearson(counts, n, 0.001)
    inside = bound > 0  # the lowering by 1e-12 makes the smallest 0
    tail = binom.sf(counts - 1, n, bound)[inside]
    assert (tail <= 0.001).all()
    np.testing.assert_allclose(tail, 0.001, rtol=1e-4)


@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize("n", [1, 7, 100, 1000])
def test_miss_rate_is_at_most_alpha_for_every_p(n, alpha):
    """Exact, by summing over all counts: P(bound > p) <= alpha, and close to it somewhere (not wastefully low)."""
    bound = clopper_pearson(np.arange(n + 1), n, alpha)
    p = np.concatenate([np.linspace(0, 1, 301), bound, np.nextafter(bound, -1)]).clip(0, 1)
    missed = np.array([binom.pmf(np.arange(n + 1), n, q)[bound > q].sum() for q in p])
    assert missed.max() <= alpha * (1 + 1e-9)
    assert missed.max() >= alpha * (1 - 1e-4)


@pytest.mark.parametrize("n", [1, 100, 100_000])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_no_success_and_only_successes(n, alpha):
    assert clopper_pearson(0, n, alpha) == 0
    largest = clopper_pearson(n, n, alpha)
    assert largest == pytest.approx(alpha ** (1 / n), abs=2e-12)
    assert largest < alpha ** (1 / n)


def test_bound_rises_with_the_count_and_with_alpha():
    counts = np.linspace(0, 100, 401)  # planned counts need not be whole
    bounds = np.stack([clopper_pearson(counts, 100, alpha) for alpha in (1e-6, 0.001, 0.05, 0.5)])
    assert (np.diff(bounds, axis=1) >= 0).all() and (np.diff(bounds[:, 40:], axis=1) > 0).all()
    assert (np.diff(bounds, axis=0) >= 0).all()
    assert (bounds >= 0).all() and (bounds[:3] <= counts / 100).all()


def test_shape_is_that_of_the_counts():
    assert clopper_pearson(7, 10, 0.05).shape == ()
    assert clopper_pearson(np.full((2, 3), 7), 10, 0.05).shape == (2, 3)
    assert clopper_pearson([], 10, 0.05).shape == (0,)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 1.5, float("nan")])
def test_alpha_outside_its_domain_is_named(alpha):
    with pytest.raises(ValueError, match=rf"alpha.*{alpha}"):
        clopper_pearson(5, 10, alpha)


@pytest.mark.parametrize("n", [0, -3])
def test_number_of_draws_outside_its_domain_is_named(n):
    with pytest.raises(ValueError, match=rf"n .*{n}"):
        clopper_pearson(0, n, 0.05)


@pytest.mark.parametrize("count", [-1, 11, [3, 12], float("nan")])
def test_count_outside_its_domain_is_named(count):
    value = np.max(count) if isinstance(count, list) else count
    with pytest.raises(ValueError, match=f"{value}"):
        clopper_pearson(count, 10, 0.05)
