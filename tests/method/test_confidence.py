import bisect
import functools
import itertools

import mpmath
import numpy as np
import pytest
from scipy.special import logit, ndtri
from scipy.stats import binom, binomtest

from ancer.confidence.bounds import (
    anytime_lower,
    anytime_upper,
    clopper_pearson,
    crossing_probability,
    log_e_value,
)

SIZES = [1, 2, 10, 100, 1000]


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.5])
@pytest.mark.parametrize("n", SIZES)
def test_bound_agrees_with_scipys_exact_interval(n, alpha):
    counts = np.unique(np.linspace(0, n, 30).astype(int))
    interval = [
        binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, "exact").low for k in counts
    ]
    np.testing.assert_allclose(clopper_pearson(counts, n, alpha), interval, rtol=1e-9, atol=2e-12)


@pytest.mark.parametrize("n", [*SIZES, 100_000])
def test_bound_is_where_the_tail_has_mass_alpha(n):
    """The definition: L is the p at which count or more successes have probability alpha.

    Never above it.
    """
    counts = np.unique(np.linspace(1, n, 50).astype(int))
    bound = clopper_pearson(counts, n, 0.001)
    inside = bound > 0  # the lowering by 1e-12 makes the smallest 0
    tail = binom.sf(counts - 1, n, bound)[inside]
    assert (tail <= 0.001).all()
    np.testing.assert_allclose(tail, 0.001, rtol=1e-4)


@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize("n", [1, 7, 100, 1000])
def test_miss_rate_is_at_most_alpha_for_every_p(n, alpha):
    """Exact, by summing over all counts.

    P(bound > p) <= alpha, and close to it somewhere (not wastefully low).
    """
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


# --- bounds for any stopping rule: the evidence


def log_evidence_by_quadrature(count, n, log_odds):
    """log of the integral of (v + (1 - v) / p)^count v^(n - count) over v ~ Beta(1/2, 1), to 30
    digits; v = w^2.

    The interval is cut round the mode and at the scale of the decay from v = 1, so that no peak is
    missed.
    """
    with mpmath.workdps(30):
        p = 1 / (1 + mpmath.exp(-mpmath.mpf(log_odds)))
        mode = min((n - count) / (1 - p) / n, mpmath.mpf(1))
        width = mpmath.sqrt((count + 1) * (n - count + 1) / mpmath.mpf(n) ** 3) / (1 - p)
        decay = 1 / (1 + abs(n - count - count * (1 - p) / p))
        cuts = [
            mode + k * scale
            for k in (-81, -27, -9, -3, -1, 0, 1, 3, 9, 27)
            for scale in (width, decay)
        ]
        cuts = [0, *sorted({mpmath.sqrt(c) for c in cuts if 0 < c < 1}), 1]
        failures = n - count
        return float(
            mpmath.log(
                mpmath.quad(lambda w: (w**2 + (1 - w**2) / p) ** count * w ** (2 * failures), cuts)
            )
        )


# p: 1/2, .88, .989, 1 - 1e-6, 1 - 1.4e-11
@pytest.mark.parametrize("log_odds", [0.0, 2.0, 4.5, 13.8155, 25.0])
def test_evidence_is_the_mixture_of_likelihood_ratios(log_odds):
    """Against high precision; -inf only where the evidence is far below 1, too small to reject
    anything.
    """
    p = 1 / (1 + np.exp(-log_odds))
    cases = [
        (s, n)
        for n in (1, 10, 1000, 100_000)
        for s in {0, n // 2, int(n * p), int(0.995 * n), n - 1, n}
    ]
    exact = np.array([log_evidence_by_quadrature(s, n, log_odds) for s, n in cases])
    found = log_e_value(*np.array(cases).T, log_odds)
    finite = np.isfinite(found)
    assert finite.sum() >= 8 and (exact[~finite] < -2).all() and (found[~finite] == -np.inf).all()
    # terms of the size of n cancel; the bound's margin is a thousand times this
    np.testing.assert_allclose(found[finite], exact[finite], rtol=1e-10, atol=1e-9)


def test_evidence_falls_in_p_and_rises_with_the_votes():
    count, n = np.array(
        [(1, 10), (7, 10), (10, 10), (60, 100), (99, 100), (99_990, 10**5), (10**5, 10**5)]
    ).T
    evidence = log_e_value(count, n, np.linspace(-20, 30, 2001)[:, None])
    # far below what rejects, the incomplete beta function may underflow
    evidence = np.maximum(evidence, -3)
    assert (
        (np.diff(evidence, axis=0) <= 1e-9 * n).all()
        and (evidence[0] > 1).all()
        and (evidence[-1] < 1e-3).all()
    )
    for log_odds in (0.0, 3.0, 10.0):
        assert (np.diff(log_e_value(np.arange(50, 101), 100, log_odds)) > 0).all()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.99999])
@pytest.mark.parametrize("n", [1, 2, 10, 200])
def test_evidence_has_mean_1_for_the_true_mean(n, p):
    """What Ville's inequality needs, by summing over all counts: no more than 1, and no less."""
    counts = np.arange(n + 1)
    mean = (binom.pmf(counts, n, p) * np.exp(log_e_value(counts, n, logit(p)))).sum()
    assert mean == pytest.approx(1, rel=1e-8)


# --- bounds for any stopping rule: the bound

SHARES = np.append(np.linspace(0, 1, 40), [1e-5, 0.99999])
GRID = np.array(
    [(c, n) for n in (1, 2, 3, 11, 100, 1000, 10**5) for c in np.unique((n * SHARES).astype(int))]
).T


@pytest.mark.parametrize("alpha", [1e-6, 0.001, 0.05, 0.5])
def test_anytime_bound_is_where_the_evidence_reaches_1_over_alpha(alpha):
    """On the rejected side, and within 1e-5 of the odds."""
    count, n = GRID[:, GRID[0] > 0]
    bound = anytime_lower(count, n, alpha)
    assert ((0 < bound) & (bound < 1)).all()
    assert (log_e_value(count, n, logit(bound)) >= np.log(1 / alpha)).all()
    assert (log_e_value(count, n, logit(bound) + 1e-5) < np.log(1 / alpha)).all()


@pytest.mark.parametrize("alpha", [1e-6, 0.001, 0.05, 0.5, 0.99])
def test_anytime_bound_is_never_above_clopper_pearson(alpha):
    """No bound that holds for fixed n can be above Clopper-Pearson for every count: it is exact."""
    fixed = np.array([clopper_pearson(c, n, alpha) for c, n in GRID.T])
    assert (anytime_lower(*GRID, alpha) <= fixed).all()
    assert (anytime_lower(*GRID, alpha)[GRID[0] > 0] < fixed[GRID[0] > 0]).all()


@pytest.mark.parametrize("p", [0.02, 0.5, 0.9])
def test_upper_bound_is_below_p_at_any_of_300_draws_with_probability_at_most_alpha(p):
    """Exactly: the least number of failures at which the bound is below p, against all paths of the
    count.
    """
    needed = []
    for t in range(1, 301):
        below = anytime_upper(t - np.arange(t + 1), t, 0.05) < p
        needed.append(below.argmax() if below.any() else t + 1)
    assert 0 < crossing_probability(needed, 1 - p) <= 0.05


def test_upper_bound_lies_above_the_mean_of_the_draws():
    count, n = GRID
    assert (anytime_upper(count, n, 0.05) >= count / n).all() and anytime_upper(0, 0, 0.05) == 1


def test_anytime_bound_of_no_success_and_of_no_draws_is_0():
    assert anytime_lower(0, 0, 0.001) == 0
    assert (anytime_lower(0, [0, 1, 100, 100_000], 0.5) == 0).all()


def test_anytime_bound_rises_with_count_and_alpha_and_with_further_successes():
    bounds = np.stack(
        [anytime_lower(np.arange(501), 500, alpha) for alpha in (1e-6, 0.001, 0.05, 0.5)]
    )
    assert (np.diff(bounds, axis=1) > 0).all() and (np.diff(bounds[:, 1:], axis=0) > 0).all()
    # so that "all further votes for the class" is the most that can be attained
    for failures in (0, 1, 40):
        n = np.arange(failures + 1, 1000)
        assert (np.diff(anytime_lower(n - failures, n, 0.001)) > 0).all()


@pytest.mark.parametrize(
    "share, relative", [(0.6, 0.969), (0.9, 0.993), (0.99, 0.993), (0.999, 0.990), (1, 0.990)]
)
def test_anytime_gap_is_nearly_that_of_fixed_n(share, relative):
    """Section 3 of SPEC.md: what stopping at will costs at 100,000 draws and alpha = 0.001."""
    count = round(share * 100_000)
    gaps = (
        ndtri(anytime_lower(count, 100_000, 0.001)),
        ndtri(clopper_pearson(count, 100_000, 0.001)),
    )
    assert gaps[0] / gaps[1] == pytest.approx(relative, abs=6e-4)


def test_anytime_bound_broadcasts_counts_against_draws():
    assert anytime_lower(7, 10, 0.05).shape == ()
    assert anytime_lower([], 10, 0.05).shape == (0,)
    counts, n = np.array([[0], [3], [5]]), np.array([5, 50, 500, 5000])
    table = anytime_lower(counts, n, 0.05)
    assert table.shape == (3, 4)
    np.testing.assert_array_equal(
        table, [[anytime_lower(c, m, 0.05) for m in n] for c in counts[:, 0]]
    )


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 1.5, float("nan")])
def test_anytime_alpha_outside_its_domain_is_named(alpha):
    with pytest.raises(ValueError, match=rf"alpha.*{alpha}"):
        anytime_lower(5, 10, alpha)


@pytest.mark.parametrize(
    "count, n, value",
    [
        (-1, 10, -1),
        (11, 10, 11),
        ([3, 12], [5, 10], 12),
        (float("nan"), 5, "nan"),
        (0, -3, -3),
        (1, 0, 1),
    ],
)
def test_anytime_count_outside_its_domain_is_named(count, n, value):
    with pytest.raises(ValueError, match=f"counts.*{value}"):
        anytime_lower(count, n, 0.05)


# --- bounds for any stopping rule: coverage, exactly

MOST = 20_000  # draws of the adversary
DRAWN = np.arange(1, MOST + 1)


@pytest.mark.parametrize("p", [0, 0.2, 0.5, 0.9, 1])
def test_crossing_probability_is_that_of_all_sequences(p):
    stream = np.random.default_rng(0)
    for most in range(1, 13):
        sequences = np.array(list(itertools.product([0, 1], repeat=most)))
        counts = sequences.cumsum(axis=1)
        chances = p ** counts[:, -1] * (1 - p) ** (most - counts[:, -1].astype(float))
        for needed in (
            stream.integers(1, most + 2, most),
            np.arange(most) // 2 + 2,
            np.arange(most) + 2,
            [0] * most,
        ):
            exact = chances[(counts >= needed).any(axis=1)].sum()
            assert crossing_probability(needed, p) == pytest.approx(exact, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("p", [0.3, 0.5, 0.99])
@pytest.mark.parametrize("n, count", [(1, 1), (50, 30), (1000, 990), (1000, 0)])
def test_crossing_probability_of_one_look_is_the_binomial_tail(n, count, p):
    needed = np.append(np.arange(2, n + 1), count)  # before the last, more successes than draws
    assert crossing_probability(needed, p) == pytest.approx(binom.sf(count - 1, n, p), rel=1e-9)


@functools.cache
def needed_for_evidence(p, alpha):
    """Least counts with E(p) >= 1 / alpha after 1..MOST draws (one more than the draws where there
    is none).
    """
    low, high = np.zeros_like(DRAWN), DRAWN + 1  # no success is no evidence
    while (high - low > 1).any():
        middle = (low + high) // 2
        enough = log_e_value(middle, DRAWN, logit(p)) >= np.log(1 / alpha)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high


@functools.cache
def needed_for_rechecked_clopper_pearson(p, alpha):
    """Least counts at which Clopper-Pearson, as if n were fixed, is above p.

    Looked at every 100 draws.
    """
    needed = DRAWN + 1
    for n in range(100, MOST + 1, 100):
        needed[n - 1] = bisect.bisect_right(
            range(n + 1), p, key=lambda count, n=n: clopper_pearson(count, n, alpha)
        )
    return needed


# Section 3 of SPEC.md, two digits, alpha = 0.001. Its row for the mixture is that of an adversary
# who looks after every draw: one who looks every 100 draws reaches a tenth of it at p = 1/2
# (8.1e-5), the same at .999 (5.1e-4).
WITHIN_20_000 = [
    (0.5, 8.0e-4, 1.5e-2),
    (0.7, 8.6e-4, 1.6e-2),
    (0.9, 9.2e-4, 1.4e-2),
    (0.99, 8.5e-4, 1.1e-2),
    (0.999, 5.3e-4, 3.8e-3),
]


@pytest.mark.parametrize("p, exact, _", WITHIN_20_000)
def test_no_stopping_rule_makes_the_anytime_bound_miss_more_often_than_alpha(p, exact, _):
    """Exact, for the worst rule.

    Stop at the first of 20,000 draws at which the bound is above p.
    """
    chance = crossing_probability(needed_for_evidence(p, 0.001), p)
    assert chance < 0.001 and chance == pytest.approx(
        exact, abs=0.51 * 10 ** (np.floor(np.log10(exact)) - 1)
    )


@pytest.mark.parametrize("p", [p for p, _, _ in WITHIN_20_000])
def test_the_bound_passes_p_where_the_evidence_does(p):
    """So that the coverage above is that of `anytime_lower`.

    Equal but for the bound's margin for rounding.
    """
    needed = needed_for_evidence(p, 0.001)
    possible = needed <= DRAWN
    count, n = needed[possible], DRAWN[possible]
    assert len(n) > 10_000
    assert (anytime_lower(count - 1, n, 0.001) <= p).all()
    close = log_e_value(count, n, logit(p)) < np.log(1000) + 2e-6
    assert ((anytime_lower(count, n, 0.001) > p) | close).all() and close.mean() < 1e-3


def test_neither_bound_is_ever_above_p_1():
    assert (anytime_lower(DRAWN, DRAWN, 0.001) < 1).all()
    assert (needed_for_rechecked_clopper_pearson(1, 0.001) > DRAWN).all()
    assert crossing_probability(DRAWN + 1, 1) == 0


@pytest.mark.parametrize("p, _, exact", WITHIN_20_000)
def test_clopper_pearson_checked_again_and_again_misses_too_often(p, _, exact):
    """Why there is another bound: the same adversary, though he looks every 100 draws only."""
    chance = crossing_probability(needed_for_rechecked_clopper_pearson(p, 0.001), p)
    assert chance > 0.003 and chance == pytest.approx(
        exact, abs=0.51 * 10 ** (np.floor(np.log10(exact)) - 1)
    )
