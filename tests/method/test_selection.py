"""The best of several certificates: never worse than the baseline's own, and sound together."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from problems import (
    BAD_IMAGES,
    BAD_SHAPES,
    PROBLEMS,
    HalfSpace,
    Outputs,
    Recorder,
    Slabs,
    Untouchable,
    counting,
    network,
)
from scipy.stats import binom, norm

from ancer._contest import FUTILITY
from ancer.certification import certify
from ancer.classifier import Classifier
from ancer.confidence.bounds import clopper_pearson
from ancer.noise.sampled import LAWS, GaussianNoise, UniformNoise
from ancer.regions.memory import Memory
from ancer.regions.region import ABSTAIN, superset
from ancer.selection import REPORTS, certify_best

IMAGES = torch.randint(0, 17, (12, 1, 4, 4), generator=torch.Generator().manual_seed(1)) / 16
SHARES = {
    "fixed": 0.5,
    "good": 0.1,
    "bad": 0.1,
    "hopeless": 0.05,
    "tiny": 0.05,
    "huge": 0.1,
    "same": 0.1,
}


def fast(module):
    """Fewer passes for small models."""
    return Classifier(module, batch_size=10_000)


def same(c):
    """A certificate as something comparable."""
    return {
        k: v.tolist() if isinstance(v, torch.Tensor) else v
        for k, v in dataclasses.asdict(c).items()
    }


def candidates_of(law, theta, good):
    """The baseline, one that may be better, and all kinds that are not, or need not be."""
    scales = {
        "fixed": theta,
        "good": good,
        "bad": good * theta.mean(),
        "hopeless": 40 * theta,
        "tiny": theta / 1e4,
        "huge": theta * 1e6,
        "same": theta,
    }
    return {name: LAWS[law](scale) for name, scale in scales.items()}


def alone(model, x, candidates, *, alpha, shares, **arguments):
    """What `certify` gives each candidate at its share of alpha: name -> certificates."""
    return {
        name: certify(model, x, noise, alpha=alpha * shares[name], **arguments)
        for name, noise in candidates.items()
    }


def check(model, x, candidates, *, report, alpha=0.01, shares=SHARES, n=300, **arguments):
    """All that holds for every image, whatever the luck; returns the answers."""
    singles = alone(model, x, candidates, alpha=alpha, shares=shares, n=n, **arguments)
    found = certify_best(
        model, x, candidates, alpha=alpha, shares=shares, report=report, n=n, **arguments
    )
    assert len(found) == len(x)
    for i, best in enumerate(found):
        baseline = singles["fixed"][i]
        # never worse than the baseline's own certificate: to the last bit
        assert best.log_volume >= baseline.log_volume
        assert best.proxy_radius >= baseline.proxy_radius
        # one that was counted to the end is what `certify` says; the others claim nothing
        assert list(best.certificates) == list(candidates)
        for name, c in best.certificates.items():
            if c.n == n:
                assert same(c) == same(singles[name][i])
            else:
                assert c.n < n and c.prediction == ABSTAIN and c.region is None and c.p_a_lower == 0
                assert c.alpha == singles[name][i].alpha and c.index == singles[name][i].index
        # what is reported
        assert (
            best.members[0] is best.certificate
            and best.certificates[best.names[0]] is best.certificate
        )
        assert {c.prediction for c in best.members} == {best.prediction} and len(
            set(best.names)
        ) == len(best.names)
        assert best.alpha == alpha and (len(best.names) == 1 or report == "union")
        assert (
            best.draws
            == sum(c.n for c in best.certificates.values()) + len(candidates) * arguments["n0"]
        )
        if report == "superset" and baseline.prediction != ABSTAIN:
            assert best.prediction == baseline.prediction and best.radius >= baseline.radius
            assert superset(best.certificate.region, baseline.region)
        if report != "superset":
            assert best.log_volume == max(c.log_volume for c in best.certificates.values())
        if report == "union":
            of_class = [c for c in best.certificates.values() if c.prediction == best.prediction]
            assert best.radius == max(c.radius for c in of_class)
            assert best.log_volume == max(c.log_volume for c in of_class)
            if baseline.prediction == best.prediction:
                assert best.radius >= baseline.radius
    return found


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_never_worse_on_half_spaces(problem, report):
    """5 images of each, whose luck differs.

    "good" is the closed form's best shape, "bad" is too wide.
    """
    theta = problem.axes_of_noise.float().expand(5, *problem.x.shape)
    w = problem.w.abs().expand_as(theta)
    good = (theta * w.mean() / w.clamp(min=0.2 * w.mean())).clamp(max=2)
    found = check(
        fast(problem.model),
        problem.batch(5),
        candidates_of(problem.law, theta, good),
        report=report,
        seed=0,
        n0=50,
    )
    assert all(best.prediction == 0 for best in found)


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("exact", [False, True], ids=["plain", "exact"])
@pytest.mark.parametrize("law", LAWS)
def test_never_worse_on_a_network(law, exact, report):
    """Four classes, 12 images, some of which abstain, and scales that differ between images."""
    theta = torch.full((12, 1, 4, 4), 0.25)
    found = check(
        fast(network()),
        IMAGES,
        candidates_of(law, theta, 0.15 + IMAGES / 2),
        report=report,
        seed=1,
        n0=50,
        exact=exact,
        lattice=1 / 16,
    )
    assert len({best.names[0] for best in found}) > 1
    assert any(best.names[0] != "fixed" for best in found)
    assert all(
        c.lattice == (1 / 16 if exact else None)
        for best in found
        for c in best.certificates.values()
    )
    assert sum(c.n == 0 for best in found for c in best.certificates.values()) > 0


def test_one_candidate_is_certify():
    found = certify_best(
        network(), IMAGES, {"only": GaussianNoise(0.3)}, n=300, alpha=0.01, seed=0, n0=30
    )
    expected = certify(network(), IMAGES, GaussianNoise(0.3), n=300, alpha=0.01, seed=0, n0=30)
    for best, c in zip(found, expected, strict=True):
        assert (best.prediction, best.radius, best.log_volume) == (
            c.prediction,
            c.radius,
            c.log_volume,
        )
        assert best.certificate.n < 300 or same(best.certificate) == same(c)


def test_equal_shares_are_the_default():
    candidates = {"a": GaussianNoise(0.25), "b": GaussianNoise(0.25), "c": GaussianNoise(0.25)}
    for best in certify_best(network(), IMAGES, candidates, n=100, alpha=0.03, seed=0):
        assert [c.alpha for c in best.certificates.values()] == [pytest.approx(0.01)] * 3
        assert best.alpha == 0.03 and best.names == ("a",)  # of equals the first


@pytest.mark.parametrize("law", LAWS)
def test_giving_up_costs_the_largest_only_as_rarely_as_it_says(law):
    """400 images and four candidates of similar volume.

    The largest of those alone is found but for 1 % + alpha. A right rule fails for fewer than 1
    seed in 1e4.
    """
    copies, alpha = 400, 0.01
    model, x = fast(HalfSpace(torch.tensor([0.0, 1.0]), 0.25)), torch.full((copies, 2), 0.5)
    noises = {
        str(t): LAWS[law](torch.tensor([[1.0, t]]).expand(copies, 2)) for t in (0.3, 0.35, 0.5, 0.7)
    }
    shares = dict.fromkeys(noises, 0.25)
    budget = {"n": 1000, "n0": 50, "alpha": alpha, "seed": 0, "shared": False}
    singles = alone(model, x, noises, shares=shares, **budget)
    found = certify_best(model, x, noises, **budget)
    largest = [max(singles[name][i].log_volume for name in noises) for i in range(copies)]
    lost = sum(best.log_volume < volume for best, volume in zip(found, largest, strict=True))
    assert lost <= binom.ppf(1 - 1e-4, copies, 3 * (FUTILITY + alpha / 4))
    given_up = [c.n < 1000 for best in found for c in best.certificates.values()]
    assert 0.2 < np.mean(given_up) < 0.9  # not by counting all to the end


# --- what it costs


def costs(theta, *, n=20_000, report="largest", m=0.25, **arguments):
    """Names -> draws of one image in the plane whose class depends on the second coordinate."""
    candidates = {name: GaussianNoise(torch.tensor([t])) for name, t in theta.items()}
    rows = []
    model = counting(
        Recorder(HalfSpace(torch.tensor([0.0, 1.0]), m), lambda x: rows.append(len(x))),
        batch_size=100,
    )
    [best] = certify_best(
        model,
        torch.full((1, 2), 0.5),
        candidates,
        n=n,
        alpha=0.01,
        seed=0,
        report=report,
        classes="one",
        **arguments,
    )
    assert (
        sum(rows) == best.draws == 100 * len(theta) + sum(c.n for c in best.certificates.values())
    )
    return {name: c.n for name, c in best.certificates.items()}, best


def test_a_baseline_that_cannot_win_even_with_every_vote_costs_nothing():
    """gap <= 3.6 at n = 20,000: an area of (0.25 * 3.6)^2 is below (20 * 1) * (0.25 * 1)."""
    draws, best = costs({"fixed": [0.25, 0.25], "good": [20.0, 0.25]})
    assert draws == {"fixed": 0, "good": 20_000} and best.names == ("good",)


def test_the_baseline_is_given_up_only_for_certain():
    """'again' is the same noise with the same votes, given up by a bound.

    The baseline is given up when no vote could help it.
    """
    n = 20_000
    draws, best = costs({"fixed": [0.25, 0.25], "good": [1.0, 0.25], "again": [0.25, 0.25]}, n=n)
    assert (
        best.names == ("good",)
        and draws["good"] == n
        and 0 < draws["again"] < draws["fixed"] / 5 < n / 5
    )
    c, needed = best.certificates["fixed"], best.certificate.proxy_radius / 0.25
    attainable = clopper_pearson(c.count + n - c.n, n, c.alpha)
    assert (
        norm.ppf(attainable)
        <= needed
        < norm.ppf(clopper_pearson(c.count + n - c.n + 150, n, c.alpha))
    )


@pytest.mark.parametrize("report", ["largest", "superset"])
def test_hopeless_candidates_cost_little(report):
    """Too small to matter, whatever the votes: nothing. Too wide, p_A = 0.52 where 0.64 is needed:
    a small share.

    (A union counts the wide one to the end: at a half-space all have the same radius, so it could
    always add some.)
    """
    theta = {"fixed": [0.25, 0.25], "good": [20.0, 0.25], "small": [0.01, 0.01], "wide": [6.0, 6.0]}
    draws, best = costs(theta, report=report)
    assert best.names[0] == "good" and draws["good"] == 20_000
    assert draws["small"] == 0 and draws["wide"] <= 2_000
    assert best.draws <= 400 + 2 * 20_000 + 2_000


def test_the_order_of_the_candidates_does_not_decide_the_cost():
    """Counted by promise: the good one first, wherever it stands."""
    theta = {"fixed": [0.25, 0.25], "good": [20.0, 0.25], "other": [2.0, 0.3], "third": [1.0, 0.1]}
    for names in (list(theta), ["fixed", "third", "other", "good"]):
        draws, best = costs({name: theta[name] for name in names})
        assert best.names == ("good",) and sum(draws.values()) <= 21_000


# --- statistics


def independent(law):
    """A classifier of 4 coordinates and 4 candidates, each noisy in one of them: their votes are
    independent.

    Class 0 where every |x_k - 1/2| < 0.3. All candidates have p_A = 0.8 and, with equal votes,
    equal volume.
    """
    model = fast(
        Outputs(
            lambda x: torch.stack(
                [(0.3 - (x - 0.5).abs()).amin(1), ((x - 0.5).abs() - 0.3).amax(1)], 1
            )
        )
    )
    wide = 0.3 / norm.ppf(0.9) if law == "gaussian" else 0.375
    return model, {
        f"{k}": torch.full((4,), 1e-3).index_fill(0, torch.tensor(k), wide) for k in range(4)
    }


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("law", LAWS)
def test_all_certificates_hold_together_at_alpha(law, report):
    """Rate of images with any reported bound above p_A, of 1,000, at alpha = 0.2.

    The shares keep it below alpha; each of the four at full alpha, on the same draws, would not.
    Fails for fewer than 1 seed in 1e4 each (twice).
    """
    copies, n, alpha, p = 1000, 100, 0.2, 0.8
    model, theta = independent(law)
    noises = {name: LAWS[law](t.expand(copies, 4)) for name, t in theta.items()}
    x = torch.full((copies, 4), 0.5)
    arguments = {"n": n, "n0": 50, "seed": 0, "classes": "one", "shared": False}
    found = certify_best(model, x, noises, alpha=alpha, report=report, **arguments)
    missed = sum(any(c.p_a_lower > p + 1e-6 for c in best.members) for best in found)
    assert missed <= binom.ppf(1 - 1e-4, copies, alpha)
    if report == "superset":
        return  # none contains another, so the baseline is reported alone
    # not vacuous: the best of four independent ones at alpha / 4, when none is given up, fails
    # nearly as often
    q = binom.pmf(np.arange(n + 1), n, p)[clopper_pearson(np.arange(n + 1), n, alpha / 4) > p].sum()
    assert missed >= binom.ppf(1e-4, copies, 0.8 * (1 - (1 - q) ** 4))
    # the mistake: the best of four, each at full alpha
    singles = alone(model, x, noises, alpha=alpha, shares=dict.fromkeys(noises, 1), **arguments)
    best = [
        max((singles[name][i] for name in noises), key=lambda c: c.log_volume)
        for i in range(copies)
    ]
    assert sum(c.p_a_lower > p + 1e-6 for c in best) > 1.5 * binom.ppf(1 - 1e-4, copies, alpha)


@pytest.mark.parametrize("law", LAWS)
def test_exact_certificates_pay_the_slack(law, monkeypatch):
    monkeypatch.setattr(LAWS[law], "slack", lambda self, theta: 0.01 * theta.mean().item())
    model = fast(Outputs(lambda x: torch.tensor([1.0, 0.0]).expand(len(x), 2)))
    noises = {"a": LAWS[law](4.5 / 16), "b": LAWS[law](20.5 / 16), "c": LAWS[law](60.5 / 16)}
    budget = {"n": 1000, "alpha": 0.03, "seed": 0, "classes": "one"}
    [best] = certify_best(model, IMAGES[:1], noises, exact=True, lattice=1 / 16, **budget)
    bound = clopper_pearson(1000, 1000, 0.01)
    assert best.names == ("b",) and best.certificate.p_a_lower == pytest.approx(
        bound - 0.205, rel=1e-9
    )
    assert best.certificates["c"].prediction == ABSTAIN


# --- what is reported


def plane(m=0.25):
    return fast(HalfSpace(torch.tensor([0.0, 1.0]), m)), torch.full((1, 2), 0.5)


def best_of(theta, *, report, model=None, law="gaussian", n=2000, **arguments):
    """Of one image in the plane; theta: name -> (first axis, second)."""
    (half_space, x), noises = (
        plane(),
        {name: LAWS[law](torch.tensor([t])) for name, t in theta.items()},
    )
    [best] = certify_best(
        model or half_space, x, noises, n=n, alpha=0.01, seed=0, report=report, **arguments
    )
    return best


BASE = {"fixed": (0.25, 0.25)}


@pytest.mark.parametrize("law", LAWS)
def test_superset_takes_the_last_that_contains_what_came_before(law):
    """The class depends on the second coordinate alone, so equal second scales get the same votes
    and gap.
    """
    theta = BASE | {"longer": (0.5, 0.25), "longest": (1.0, 0.25), "shorter": (0.4, 0.25)}
    best = best_of({k: (a * 2, b * 2) for k, (a, b) in theta.items()}, report="superset", law=law)
    assert best.names == ("longest",)
    assert best.certificate.region.axes[1] == best.certificates["fixed"].region.axes[1]


@pytest.mark.parametrize("other", [(9.0, 0.05), (3.0, 0.07)])
def test_superset_falls_back_where_the_ball_would_shrink(other):
    """A much larger volume, but gap <= 2.8 at n = 2,000: an axis of at most 0.2."""
    theta = BASE | {"thin": other}
    assert best_of(theta, report="largest").names == ("thin",)
    best = best_of(theta, report="superset")
    assert best.names == ("fixed",) and best.radius > 0.2


def test_superset_and_union_keep_to_one_class():
    """Under wide noise another class wins, with the larger region."""
    theta = {"fixed": (0.1, 0.1), "wide": (2.0, 2.0)}
    model = fast(Slabs())
    largest, nested, union = (
        best_of(theta, report=report, model=model) for report in ("largest", "superset", "union")
    )
    assert largest.names == ("wide",) and largest.prediction == 2
    assert nested.names == ("fixed",) and nested.prediction == 0
    assert union.names == ("wide",) and union.prediction == 2


def test_superset_is_another_certificate_where_the_baseline_abstains():
    best = best_of(
        {"fixed": (40.0, 40.0), "narrow": (0.25, 0.25), "longer": (1.0, 0.25)}, report="superset"
    )
    assert (
        best.certificates["fixed"].prediction == ABSTAIN
        and best.names == ("longer",)
        and best.prediction == 0
    )


def test_a_candidate_that_superset_passed_over_does_not_stand_in_the_way():
    """'wide' is of another class; 'longer' contains the baseline all the same, but not 'wide'."""
    theta = {"fixed": (0.1, 0.1), "wide": (2.0, 2.0), "longer": (0.1, 0.5)}
    best = best_of(theta, report="superset", model=fast(Slabs()))
    assert best.names == ("longer",)


@pytest.mark.parametrize("law", LAWS)
def test_a_union_is_all_members_that_add_something(law):
    """'inner' lies in the baseline's region and adds nothing.

    The long one adds volume, the baseline the ball.
    """
    theta = {"fixed": (0.5, 0.5), "long": (9.0, 0.05), "inner": (0.05, 0.05)}
    best = best_of(theta, report="union", law=law)
    assert best.names == ("long", "fixed")
    long, fixed = (best.certificates[name] for name in best.names)
    assert (
        best.radius == fixed.radius > long.radius
        and best.log_volume == long.log_volume > fixed.log_volume
    )
    assert best.proxy_radius == long.proxy_radius and best.certificate is long


def test_a_union_does_not_lose_its_ball_to_a_region_of_another_class():
    """'wide' (class 2) has the larger ball than the baseline, but the largest, 'long', is of class
    0 as the baseline.

    "all members that certify the class of the largest, where they add radius or volume": the
    baseline does.
    """
    theta = {"fixed": (0.1, 0.1), "wide": (2.0, 2.0), "long": (0.02, 200.0)}
    best = best_of(theta, report="union", model=fast(Slabs()))
    assert best.prediction == 0 and best.names[0] == "long"
    assert "fixed" in best.names and best.radius > 0.1


@pytest.mark.parametrize("report", REPORTS)
def test_contains_is_any_member(report):
    theta = {"fixed": (0.5, 0.5), "long": (9.0, 0.05)}
    best = best_of(theta, report=report)
    points = torch.tensor([0.5, 0.5]) + torch.tensor([1.0, 0.15]) * torch.randn(
        5, 400, 2, generator=torch.Generator().manual_seed(0)
    )
    inside = {name: best.certificates[name].region.contains(points) for name in best.names}
    found = best.contains(points)
    assert found.shape == (5, 400) and found.dtype == torch.bool
    assert torch.equal(found, torch.stack(list(inside.values())).any(0))
    assert best.contains(torch.tensor([0.5, 0.5])).item() is True
    if report == "union":
        assert (inside["fixed"] & ~inside["long"]).any() and (
            inside["long"] & ~inside["fixed"]
        ).any()


def test_a_memory_keeps_all_members_of_a_union():
    best = best_of({"fixed": (0.5, 0.5), "long": (9.0, 0.05)}, report="union")
    other = best_of(
        {"fixed": (0.5, 0.5)},
        report="largest",
        model=fast(HalfSpace(torch.tensor([0.0, 1.0]), -0.25)),
    )
    assert other.prediction == 1
    with Memory() as memory:
        answers = [memory.answer(member) for member in best.members]
        assert [a.prediction for a in answers] == [0, 0] and [a.event for a in answers] == [
            "kept",
            "kept",
        ]
        assert len(memory) == 2
        for a, member in zip(answers, best.members, strict=True):
            torch.testing.assert_close(a.region.axes, member.region.axes, rtol=1e-6, atol=0)
        # later queries in either region, whatever their own certificates say, get the class
        for step in (
            [0.0, best.radius * 0.99],
            [best.certificate.region.axes[0].item() * 0.99, 0.0],
        ):
            query = dataclasses.replace(
                other.certificate,
                evaluation=best.certificate.evaluation,
                center=torch.tensor([0.5, 0.5]) + torch.tensor(step),
            )
            assert best.contains(query.center) and memory.answer(query).prediction == 0


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("law", LAWS)
def test_where_all_abstain_so_does_the_best(law, report):
    theta = BASE | {"longer": (1.0, 0.25), "wide": (0.5, 0.5)}
    best = best_of(theta, report=report, law=law, model=plane(m=0.0)[0], n=200)
    assert best.prediction == ABSTAIN and best.names == ("fixed",) and len(best.members) == 1
    assert best.radius == best.proxy_radius == 0 and best.log_volume == -math.inf
    assert best.certificate.region is None
    assert best.contains(torch.full((3, 2, 2), 0.5)).tolist() == [[False] * 2] * 3
    assert best.contains(torch.tensor([0.5, 0.5])).item() is False


# --- the same whatever the batch


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("exact", [False, True], ids=["plain", "exact"])
@pytest.mark.parametrize("law", LAWS)
def test_the_best_does_not_depend_on_batch_order_or_subset(law, exact, report):
    theta = torch.full((12, 1, 4, 4), 0.25)

    def run(order, batch_size):
        candidates = candidates_of(law, theta[order], 0.15 + IMAGES[order] / 2)
        found = certify_best(
            Classifier(network(), batch_size=batch_size),
            IMAGES[order],
            candidates,
            n=250,
            alpha=0.01,
            n0=30,
            seed=0,
            indices=order,
            report=report,
            exact=exact,
            lattice=1 / 16,
        )
        return {
            best.certificate.index: (
                best.names,
                best.draws,
                [same(c) | {"evaluation": None} for c in best.certificates.values()],
            )
            for best in found
        }

    reference = run(list(range(12)), 1000)
    assert len({draws for _, draws, _ in reference.values()}) > 1
    for order, batch_size in [(range(12), 77), (range(11, -1, -1), 100), ([4, 1], 500)]:
        assert run(list(order), batch_size) == {i: reference[i] for i in order}


# --- bad input, refused before the model is called


TWO = {"fixed": GaussianNoise(0.25), "wide": GaussianNoise(0.5)}
GOOD = {"x": IMAGES[:2], "candidates": TWO, "n": 10, "n0": 10, "alpha": 0.01, "seed": 0}


def refuse(message, **changes):
    with pytest.raises(ValueError, match=message):
        certify_best(Classifier(Untouchable(), batch_size=1), **GOOD | changes)


@pytest.mark.parametrize(
    "candidates",
    [{}, {"fixed": GaussianNoise(0.25), "other": UniformNoise(0.25)}, {"fixed": 0.25}],
    ids=["none", "two laws", "no noise"],
)
def test_candidates_that_are_no_noises_of_one_law_are_refused(candidates):
    refuse(rf"one law.*{re.escape(str(candidates))}", candidates=candidates)


@pytest.mark.parametrize(
    "shares, message",
    [
        ({"fixed": 1.0}, r"\['fixed', 'wide'\].*\['fixed'\]"),
        ({"fixed": 0.5, "wdie": 0.5}, "'wide'.*'wdie'"),
        ({"fixed": 0.5, "wide": 0.3, "third": 0.2}, "'third'"),
        ({"fixed": 1.0, "wide": 0.0}, "'wide': 0.0"),
        ({"fixed": 1.1, "wide": -0.1}, "'wide': -0.1"),
        ({"fixed": 0.9, "wide": 0.2}, "'fixed': 0.9"),
        ({"fixed": 0.9, "wide": float("nan")}, "'wide': nan"),
    ],
)
def test_shares_that_are_no_parts_of_alpha_are_refused(shares, message):
    refuse(rf"shares.*{message}", shares=shares)


def test_shares_may_leave_some_of_alpha_and_come_in_any_order():
    found = certify_best(network(), **GOOD | {"shares": {"wide": 0.2, "fixed": 0.5}})
    assert [c.alpha for c in found[0].certificates.values()] == [0.005, 0.002]
    certify_best(network(), **GOOD | {"shares": {"fixed": 0.9, "wide": 0.1}})


@pytest.mark.parametrize("report", ["best", "Largest", "", None])
def test_an_unknown_report_is_named(report):
    refuse(f"report.*largest.*superset.*union.*{report!r}", report=report)


@pytest.mark.parametrize("alpha", [0, 1, -0.001, 1.5, float("nan")])
def test_alpha_outside_its_domain_is_named(alpha):
    refuse(f"alpha.*{alpha}", alpha=alpha)


@pytest.mark.parametrize("name", ["n", "n0"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_of_draws_outside_their_domain_are_named(name, value):
    refuse(rf"\b{name} .*{value}", **{name: value})


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images_are_named(kind):
    refuse(rf"(images|pixels).*{BAD_IMAGES[kind][1]}", x=BAD_IMAGES[kind][0])


@pytest.mark.parametrize("where", ["fixed", "wide"])
@pytest.mark.parametrize("shape", BAD_SHAPES)
def test_theta_of_a_wrong_shape_is_named(shape, where):
    refuse(re.escape(str(tuple(shape))), candidates=TWO | {where: GaussianNoise(torch.ones(shape))})


@pytest.mark.parametrize("indices", [[0], [0, 1, 2], [3, 3], [0, -1]])
def test_indices_that_do_not_number_the_images_are_named(indices):
    refuse(re.escape(str(indices)), indices=indices)


def test_pixels_off_the_lattice_and_bad_lattices_are_named():
    refuse("1/10.*exact=False", exact=True, lattice=1 / 10)
    for lattice in (0, -1, 0.3, 2):
        refuse(f"lattice.*{lattice}", exact=True, lattice=lattice)


def test_a_negative_seed_is_named():
    refuse("-1", seed=-1)
