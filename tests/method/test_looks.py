"""Bounds on one class and on two, at looks: exact coverage, by enumeration and programming."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom, multinomial

from ancer.confidence.bounds import anytime_lower, clopper_pearson, crossing_probability
from ancer.confidence.looks import CLASSES, LAST, TOP, Always, Looks
from ancer.noise.law import gap_of
from ancer.noise.sampled import LAWS

MEANS = [0.05, 0.3, 0.5, 0.6, 0.75, 0.9, 0.99, 0.999]


# --- when it is looked


@pytest.mark.parametrize(
    "n, looks",
    [
        (1, [1]),
        (99, [99]),
        (100, [100]),
        (101, [100, 101]),
        (250, [100, 200, 250]),
        (1000, [100, 200, 300, 500, 1000]),
        (10_000, [100, 200, 400, 700, 1300, 2500, 5000, 10_000]),
    ],
)
def test_looks_double_up_to_n_in_whole_blocks(n, looks):
    plan = Looks.doubling(n)
    assert plan.draws.tolist() == looks and plan.n == n
    assert plan.shares.sum() == pytest.approx(1) and (plan.shares > 0).all()
    assert plan.shares[-1] == (LAST if len(looks) > 1 else 1)
    drawn, seen = np.array([0]), []
    while drawn[0] < n:
        drawn = plan.next(drawn)
        seen.append(int(drawn[0]))
    assert seen == looks


def test_one_look_is_clopper_pearson():
    plan = Looks.once(500)
    counts = np.arange(501)
    drawn = np.full(501, 500)
    assert plan.next(np.array([0, 0])).tolist() == [500, 500]
    np.testing.assert_array_equal(
        plan.lower(counts, drawn, 0.01), clopper_pearson(counts, 500, 0.01)
    )
    upper = plan.upper(counts, drawn, 0.01)
    np.testing.assert_array_equal(upper, 1 - clopper_pearson(500 - counts, 500, 0.01))


# --- one probability


def fewest(plan, p, alpha):
    """The fewest votes at each draw at which the bound is above p; t + 1 where nobody looks."""
    needed = np.arange(2, plan.n + 2)
    for draws in plan.draws:
        bound = plan.lower(np.arange(draws + 1), np.full(draws + 1, draws), alpha)
        needed[draws - 1] = np.searchsorted(bound, p, side="right")
    return needed


@pytest.mark.parametrize("n", [250, 2000])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_bounds_of_all_looks_hold_together_and_waste_little(alpha, n):
    """Exact, for who stops at the look where the bound is wrong: at most alpha, for every mean."""
    plan = Looks.doubling(n)
    wrong = [crossing_probability(fewest(plan, p, alpha), p) for p in MEANS]
    assert max(wrong) <= alpha
    assert wrong[3] > 0.3 * alpha  # at .6, where counts are fine enough


def test_the_last_look_needs_hardly_more_draws_than_one_alone():
    """Those that give the same bound, at n = 100,000: at most a twentieth more."""
    plan = Looks.doubling(100_000)
    for share in (0.6, 0.9, 0.99):
        alone = clopper_pearson(share * 100_000, 100_000, 0.001)
        more = np.arange(100_000, 106_000, 100)
        spent = clopper_pearson(share * more, more, 0.001 * plan.shares[-1])
        assert more[np.argmax(spent >= alone)] < 105_000


def test_planned_looks_are_tighter_at_the_end_than_the_sequence_that_always_holds():
    for n in (1000, 10_000, 100_000):
        for share in (0.6, 0.9, 0.99):
            count = np.array([int(share * n)])
            drawn = np.array([n])
            planned = Looks.doubling(n).lower(count, drawn, 0.001)
            assert (
                planned > anytime_lower(count, drawn, 0.001) == Always(n).lower(count, drawn, 0.001)
            )


# --- two classes


def outcomes(n, chances):
    """All counts of classes in n draws, and their probabilities: (M, K), (M,)."""
    counts = []
    for bars in itertools.combinations(range(n + len(chances) - 1), len(chances) - 1):
        edges = [-1, *bars, n + len(chances) - 1]
        counts.append(np.diff(edges) - 1)
    counts = np.array(counts)
    return counts, multinomial(n, chances).pmf(counts)


MIXTURES = [
    [0.5, 0.5],
    [0.5, 0.3, 0.2],
    [0.4, 0.3, 0.3],
    [0.34, 0.33, 0.33],
    [0.8, 0.15, 0.05],
    [0.9, 0.1, 0.0],
    [0.3, 0.25, 0.25, 0.2],
    [0.6, 0.2, 0.1, 0.1],
]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("alpha", [0.01, 0.2])
@pytest.mark.parametrize("chances", MIXTURES, ids=str)
def test_two_bounds_fail_with_at_most_alpha(chances, alpha, law):
    """Exact, over all counts of all classes: whichever class was chosen, and whoever comes second.

    With the class that truly leads the gap is above the true one with at most alpha; with any other
    it is positive with at most alpha.
    """
    n = 60 if len(chances) < 4 else 24
    counts, weights = outcomes(n, chances)
    plan = Looks.once(n)
    for chosen in range(len(chances)):
        others = np.delete(counts, chosen, axis=1).max(axis=1)
        bounds = plan.bounds(counts[:, chosen], others, n, alpha, "two")
        p_a = chances[chosen]
        p_b = max(np.delete(chances, chosen))
        wrong = (bounds.lower > p_a) | (bounds.upper < p_b)
        assert weights[wrong].sum() <= alpha
        gap = gap_of(LAWS[law](1.0), bounds.lower, bounds.upper)
        true_gap = gap_of(LAWS[law](1.0), np.array([p_a]), np.array([p_b]))
        too_large = gap > max(true_gap[0], 0) + 1e-12
        assert weights[too_large].sum() <= alpha


@pytest.mark.parametrize("law", LAWS)
def test_two_classes_give_no_less_than_one_at_its_share_and_more_where_others_share_the_rest(law):
    n, alpha = 10_000, 0.001
    plan = Looks.once(n)
    count = np.array([4000, 5000, 6000, 9000, 9900, 10_000])
    for part in (1, 0.5, 0.1, 0):
        rival = ((n - count) * part).astype(int)
        two = gap_of(LAWS[law](1.0), *plan.bounds(count, rival, n, alpha, "two"))
        one = gap_of(LAWS[law](1.0), *plan.bounds(count, rival, n, TOP * alpha, "one"))
        assert (two >= one).all()
        if part < 1:
            assert (two[:4] > one[:4] + 0.05).all()


def test_one_class_is_clopper_pearson_at_alpha():
    for classes in CLASSES:
        lower, upper = Looks.once(100).bounds(np.array([90]), np.array([10]), 100, 0.01, classes)
        level = 0.01 if classes == "one" else TOP * 0.01
        assert lower == clopper_pearson(90, 100, level)
        assert upper == (1 if classes == "one" else 1 - clopper_pearson(90, 100, 0.01 * (1 - TOP)))


def test_attainable_is_what_unanimous_draws_would_give():
    plan = Looks.doubling(1000)
    count, rival, drawn = np.array([80, 170]), np.array([15, 30]), np.array([100, 200])
    best = plan.attainable(count, rival, drawn, 0.01, "two")
    same = plan.bounds(np.array([980, 970]), rival, np.array([1000, 1000]), 0.01, "two")
    np.testing.assert_array_equal(best, same)


@pytest.mark.parametrize("p", [[0.6, 0.25, 0.15], [0.45, 0.3, 0.25]])
def test_two_bounds_at_all_looks_hold_together(p):
    """Monte Carlo: 20,000 runs that stop at the first look where either bound is wrong.

    At most alpha = 0.05; a right plan fails for fewer than 1 seed in 1e4.
    """
    plan, alpha, runs = Looks.doubling(800), 0.05, 20_000
    rng = np.random.default_rng(0)
    counts = np.zeros((runs, 3), dtype=int)
    wrong = np.zeros(runs, dtype=bool)
    for before, draws in itertools.pairwise([0, *plan.draws]):
        counts += rng.multinomial(draws - before, p, size=runs)
        rival = counts[:, 1:].max(axis=1)
        bounds = plan.bounds(counts[:, 0], rival, np.full(runs, draws), alpha, "two")
        wrong |= (bounds.lower > p[0]) | (bounds.upper < p[1])
    assert 0 < wrong.sum() <= binom.ppf(1 - 1e-4, runs, alpha)
