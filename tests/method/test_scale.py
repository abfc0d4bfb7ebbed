"""The scale of a theta by votes: written out, in closed form, and as the optimizers use it."""

import functools
import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from problems import HalfSpace, Outputs, Recorder, Slabs, counting, network

from ancer import Region, optimize_anisotropic, optimize_isotropic
from ancer.classifier import Classifier
from ancer.confidence.bounds import clopper_pearson
from ancer.noise.sampled import LAWS, GaussianNoise
from ancer.optimization._scale import leading_class, radii_by_scale
from ancer.smoothing import SmoothedClassifier
from ancer.streams import generator

GRID = torch.from_numpy(np.geomspace(0.25, 4, 13))
FLAT = torch.tensor([0.0, 1.0])  # the half-space's margin at a point (a, b) is m - (b - 1/2)


def radii(
    model,
    noise,
    x,
    *,
    anchor=0,
    scales=GRID,
    n=10_000,
    alpha=0.001,
    draws=400,
    seed=0,
    indices=None,
):
    queries = SmoothedClassifier(model, noise).queries(x, indices)
    anchor = torch.as_tensor(anchor).expand(len(x))[:, None]
    return radii_by_scale(queries, anchor, scales, n=n, alpha=alpha, draws=draws, seed=seed)


def points(b, dtype=torch.float32):
    b = torch.as_tensor(b, dtype=dtype)
    return torch.stack([torch.full_like(b, 0.5), b], dim=1)


def smooth(radius, scales):
    """The weighted mean over neighbours in log scale, (S, ...) like the radius, one sum after the
    other.
    """
    logs, result = np.log(scales), np.zeros_like(radius)
    for i in range(len(scales)):
        weights = np.exp(-(((logs - logs[i]) / 0.2) ** 2) / 2)
        result[i] = sum(w * r for w, r in zip(weights, radius, strict=True)) / weights.sum()
    return result


def radius_of_votes(p, scales, law, n=10_000, alpha=0.001):
    """From shares p (S, ...) of the class.

    What n draws would certify, in units of theta, before smoothing. All other votes are for one
    class, so its upper bound, at .1 alpha, is looser than what the lower one, at .9 alpha, leaves.
    """
    bound = clopper_pearson(n * p, n, 0.9 * alpha)
    gap = LAWS[law](1.0).gap(torch.from_numpy(bound)).numpy()
    return np.asarray(scales).reshape(-1, *[1] * (p.ndim - 1)) * np.clip(gap, 0, None)


# --- exact answers


@pytest.mark.parametrize("draws", [37, 130, 400])
@pytest.mark.parametrize("per_coordinate", [False, True], ids=["isotropic", "anisotropic"])
@pytest.mark.parametrize("law", LAWS)
def test_the_search_written_out(law, per_coordinate, draws):
    """A quarter of the draws at each scale, all at five scales round the best, on draws that all
    scales and images have in common: a stream for each block of 100.
    """
    x, indices, seed = points([0.4, 0.5, 0.5, 0.6, 0.5, 0.5], torch.float64), [5, 3, 0, 1, 2, 9], 3
    theta = torch.tensor([0.02, 0.1, 0.3, 0.4, 0.6, 1.0], dtype=torch.float64)
    if per_coordinate:
        theta = torch.stack([theta.flip(0), theta], dim=1)
    model = Outputs(
        lambda x: torch.stack([0.3 - (x[:, 1] - 0.5).abs(), (x[:, 1] - 0.5).abs() - 0.3], dim=1)
    )
    scales = np.geomspace(0.25, 4, 13)
    found = radii(
        model,
        LAWS[law](theta),
        x,
        scales=torch.from_numpy(scales),
        draws=draws,
        seed=seed,
        indices=indices,
    )
    starts = set()
    unit = functools.partial(LAWS[law](1.0).unit, (100, 2), dtype=torch.float64)
    streams = [
        generator(seed, "search", block, torch.device("cpu"))
        for block in range(math.ceil(draws / 100))
    ]
    z = torch.cat([unit(generator=stream) for stream in streams])[:, 1].numpy()
    for i in range(len(x)):
        width = theta[i, 1].item() if per_coordinate else theta[i].item()

        def share(scale, n):
            hits = np.sum(np.abs(x[i, 1].item() + scale * width * z[:n] - 0.5) < 0.3)  # noqa: B023
            return (hits + 0.5) / (n + 1)

        p = np.array([share(s, math.ceil(draws / 4)) for s in scales])
        best = smooth(radius_of_votes(p, scales, law), scales).argmax()
        start = min(max(best - 2, 0), 13 - 5)
        starts.add(start)
        p[start : start + 5] = [share(s, draws) for s in scales[start : start + 5]]
        expected = smooth(radius_of_votes(p, scales, law), scales)
        np.testing.assert_allclose(found[:, i].numpy(), expected, rtol=1e-9, atol=1e-12)
    assert len(starts) >= 3 and {0, 8} < starts  # at both ends and between


@pytest.mark.parametrize("law", LAWS)
def test_radii_of_a_half_space_are_those_of_the_closed_form(law):
    """Within 5 % of the exact ones where p > 0.8, from 40,000 draws, for thetas that differ for the
    images.
    """
    m, theta = 0.3, torch.tensor([0.03, 0.1, 0.2, 0.4])
    found = radii(
        Classifier(HalfSpace(FLAT, m), batch_size=10_000),
        LAWS[law](theta),
        points([0.5] * 4),
        draws=40_000,
    )
    spread = GRID[:, None] * theta.double()
    p = torch.special.ndtr(m / spread) if law == "gaussian" else ((1 + m / spread) / 2).clamp(max=1)
    exact = smooth(radius_of_votes(p.numpy(), GRID, law), GRID.numpy())
    near = (p > 0.8).numpy()
    assert near.any(axis=0).all() and not near.all()
    np.testing.assert_allclose(found.numpy()[near], exact[near], rtol=0.05)


@pytest.mark.parametrize("law", LAWS)
def test_search_finds_the_best_scale_of_the_slabs(law):
    """The exact radius of class 0 peaks in log scale.

    Within two steps of the peak for 95 % of 50 images. Of 2,000 under 40 seeds, one was farther.
    """
    start = 0.3
    model = Classifier(Slabs(), batch_size=10_000)
    theta = optimize_isotropic(model, points([0.5] * 50).flip(1), LAWS[law](start), seed=0)
    fine = np.geomspace(0.25, 4, 1201)
    p = np.array([Slabs.probabilities(law, start * s)[0] for s in fine])
    best = start * fine[radius_of_votes(p, fine, law).argmax()]
    step = math.log(16) / 12
    assert 0.25 * start < best < 4 * start
    assert (theta / best).log().abs().quantile(0.95) < 2 * step


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("side", [-1, 1], ids=["class 1", "class 0"])
def test_found_radius_is_near_the_best_of_a_half_space(law, side):
    """85 % of the best exact radius, for each of 100 images from 4 starts, whatever the class
    (measured: 88 %).
    """
    m = 0.3
    model = Classifier(HalfSpace(FLAT, side * m), batch_size=10_000)

    def radius(theta):
        p = (
            torch.special.ndtr(m / theta)
            if law == "gaussian"
            else ((1 + m / theta) / 2).clamp(max=1)
        )
        return theta.numpy() * radius_of_votes(p.numpy(), np.ones(1), law)

    for start in (0.03, 0.07, 0.15, 0.3):
        theta = optimize_isotropic(model, points([0.5] * 100), LAWS[law](start), seed=0)
        assert (radius(theta.double()) > 0.85 * radius(start * GRID).max()).all()


# --- two stages


class Ones(GaussianNoise):
    """Every draw is 1: a copy x + theta tells its scale."""

    def unit(self, shape, *, generator, dtype):
        return torch.ones(shape, dtype=dtype, device=generator.device)


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 6, 9])
@pytest.mark.parametrize("draws", [1, 4, 10, 130])
def test_all_draws_are_spent_at_the_five_scales_round_the_best(steps, draws):
    """By the rows that the model sees.

    The class is lost above scale 2^best, which is so the best of 2^0, 2^1, ... A quarter at each
    scale first, where there are more than five.
    """
    scales = torch.from_numpy(2.0 ** np.arange(steps))
    for best in range(steps):
        seen = []
        model = counting(Recorder(HalfSpace(FLAT, 0.01 * 2**best * 1.1), seen.append), batch_size=1)
        radius = radii(model, Ones(0.01), points([0.5]), scales=scales, draws=draws)
        start, first = max(0, min(best - 2, steps - 5)), math.ceil(draws / 4) if steps > 5 else 0
        expected = {k: first + draws * (start <= k < start + 5) for k in range(steps)}
        assert Counter(round(math.log2((row[0, 1] - 0.5) / 0.01)) for row in seen) == expected
        assert radius.argmax() == best and (radius[: best + 1] > 0).all()


def test_each_image_has_its_own_five():
    """Three images in one call, told by the first coordinate, lose the class above scales 2^0, 2^6
    and 2^12.
    """
    seen, x = [], torch.tensor([[0.1, 0.5], [0.5, 0.5], [0.9, 0.5]])
    theta = torch.tensor([[1e-9, 0.9], [1e-9, 0.9 / 2**6], [1e-9, 0.9 / 2**12]])
    radius = radii(
        counting(Recorder(HalfSpace(FLAT, 1.0), seen.append), batch_size=1),
        Ones(theta),
        x,
        scales=torch.from_numpy(2.0 ** np.arange(13)),
        draws=40,
    )
    assert radius.argmax(dim=0).tolist() == [0, 6, 12]
    for image, t, start in zip(x, theta, [0, 4, 8], strict=True):
        rows = [row for row in seen if (row[0, 0] - image[0]).abs() < 1e-3]
        found = Counter(round(math.log2((row[0, 1] - 0.5) / t[1])) for row in rows)
        assert found == {k: 10 + 40 * (start <= k < start + 5) for k in range(13)}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("shape", [(), (1,), (1, 2)])
def test_all_scales_and_the_class_have_common_draws(law, shape):
    """The model's inputs, less x and over theta, are multiples of each other.

    The first are those of `counts`.
    """
    theta, seen = torch.full(shape, 0.25), []
    theta = theta * torch.tensor([1.0, 0.1]) if len(shape) == 2 else theta
    model = counting(Recorder(HalfSpace(FLAT, 0.1), seen.append), batch_size=40)
    x, scales = points([0.5], torch.float64), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    queries = SmoothedClassifier(model, LAWS[law](theta)).queries(x, [7])
    leading_class(queries, draws=40, seed=0)
    radii(model, LAWS[law](theta), x, scales=scales, draws=40, indices=[7])
    assert len(seen) == 4
    widths = [1.0, 0.5, 1.0, 2.0]
    unit = LAWS[law](1.0).unit(
        (100, 2), generator=generator(0, "search", 0, torch.device("cpu")), dtype=torch.float64
    )
    for batch, width in zip(seen, widths, strict=True):
        torch.testing.assert_close(
            batch.double(), x + width * theta * unit[:40], rtol=1e-5, atol=1e-6
        )


def test_luck_at_one_large_scale_is_not_mistaken_for_radius():
    """The class is kept up to scale 1, and at 1.59 alone.

    The raw radius is largest there, that of neighbours not.
    """

    def votes(x):
        d = x[:, 1] - 0.5
        right = (d < 0.11) | ((d - 0.1587).abs() < 0.001)
        return torch.stack([right, ~right], dim=1).float()

    radius = radii(Outputs(votes), Ones(0.1), points([0.5]), draws=100)[:, 0]
    lone = GRID.sub(4 ** (1 / 3)).abs().argmin()
    assert (GRID[lone] - 1.587).abs() < 1e-3
    assert GRID[radius.argmax()] <= 1.001
    exact = np.where((GRID < 1.1) | (torch.arange(13) == lone), 100.5 / 101, 0.5 / 101)
    first = int(radius_of_votes(exact, GRID.numpy(), "gaussian").argmax())
    assert first == lone


# --- the class


def test_the_leading_class_is_that_of_most_draws():
    """Of the slabs: class 0 under little noise, class 2 under much.

    Shares differ by over 0.3, so 400 draws tell.
    """
    model, x = Classifier(Slabs()), points([0.5] * 3).flip(1)
    theta = torch.tensor([0.1, 1.0, 3.0])
    assert Slabs.probabilities("gaussian", 1.0)[2] > 0.3 + Slabs.probabilities("gaussian", 1.0)[0]
    queries = SmoothedClassifier(model, GaussianNoise(theta)).queries(x)
    found = leading_class(queries, draws=400, seed=0)
    assert found.tolist() == [[0], [2], [2]]


def test_the_leading_class_is_counted_on_the_draws_of_the_search():
    images = torch.randint(0, 17, (6, 1, 4, 4), generator=torch.Generator().manual_seed(2)) / 16
    smoothed = SmoothedClassifier(network(), GaussianNoise(0.5))
    for draws in (1, 3, 130):
        counts = smoothed.counts(images, draws, seed=3, purpose="search", indices=range(4, 10))
        found = leading_class(smoothed.queries(images, range(4, 10)), draws=draws, seed=3)
        assert found.shape == (6, 1) and torch.equal(found[:, 0], counts.argmax(dim=1))
    assert len(found.unique()) > 1


def test_radii_are_those_of_the_anchored_class():
    """Slabs at scales so far apart that none smooths another.

    Each class has radius where it has most votes, alone.
    """
    scales = torch.tensor([2**-6, 1.0, 2**6], dtype=torch.float64)
    found = radii(
        Slabs(),
        Ones(0.35),
        points([0.5] * 3).flip(1),
        anchor=torch.tensor([0, 1, 2]),
        scales=scales,
    )
    assert torch.equal(found > 1e-6, torch.eye(3, dtype=torch.bool))


@pytest.mark.parametrize("n", [20, 1000, 10**9])
def test_radii_are_planned_for_n_draws_at_alpha(n):
    """All votes agree: one and the same share at all five scales, hence one gap."""
    scales = torch.from_numpy(2.0 ** np.arange(5))
    for alpha in (0.05, 0.001):
        found = radii(
            HalfSpace(FLAT, 10.0),
            Ones(0.01),
            points([0.5]),
            scales=scales,
            n=n,
            alpha=alpha,
            draws=100,
        )
        bound = clopper_pearson(n * 100.5 / 101, n, 0.9 * alpha)
        gap = GaussianNoise(1.0).gap(torch.from_numpy(bound))
        # neighbours are at twice the scale
        torch.testing.assert_close(found[:, 0], scales * gap, rtol=1e-2, atol=0)


def test_radii_do_not_depend_on_batch_order_or_subset():
    images = torch.randint(0, 17, (6, 1, 4, 4), generator=torch.Generator().manual_seed(2)) / 16
    theta = 0.1 + images.flip(0)

    def run(order, batch_size):
        model = Classifier(network(), batch_size=batch_size)
        return radii(
            model, GaussianNoise(theta[order]), images[order], draws=130, indices=order, seed=1
        )

    reference = run(list(range(6)), 1000)
    assert (reference > 0).any(dim=0).sum() >= 3 and len(reference.T.unique(dim=0)) >= 3
    for order, batch_size in [(list(range(6)), 30), ([5, 4, 3, 2, 1, 0], 100), ([4, 1], 77)]:
        assert torch.equal(run(order, batch_size), reference[:, order])


# --- the scale of an anisotropic theta

CHOICES = np.logspace(-1 / 3, 1, 5, base=2)  # of theta's scale, after the ascent
CONSTANT = HalfSpace(torch.zeros(16), 1.0)
PIXEL = torch.eye(16)[0]  # the only one that matters


def rescaled(model, start, law="gaussian", **arguments):
    """The scale that the search takes for each image, after an ascent that moves nothing: (B,)."""
    start = torch.as_tensor(start, dtype=torch.float64)
    arguments = {"seed": 0, "iterations": 1, "step": 1e-12, "enlarge": 1.0} | arguments
    theta = optimize_anisotropic(model, torch.full_like(start, 0.5), LAWS[law](start), **arguments)
    scales = (theta / start).numpy()
    nearest = CHOICES[np.abs(np.log(CHOICES / scales[:, :1])).argmin(axis=1)]
    # as a whole
    np.testing.assert_allclose(scales, np.broadcast_to(nearest[:, None], scales.shape), rtol=1e-6)
    return nearest.round(3).tolist()


def in_box_proxy_radii(model, start, law):
    """At each of the five scales, from the radii that the search finds: (5, B)."""
    center = torch.full_like(start, 0.5)
    noise = LAWS[law](start)
    radius = radii(model, noise, center, scales=torch.from_numpy(CHOICES))
    found = np.zeros(radius.shape)
    for k, image in itertools.product(range(5), range(len(start))):
        r = radius[k, image].item()
        if r > 0:
            region = Region(center[image], r * start[image], noise.norm)
            found[k, image] = region.in_box_proxy_radius
    return found


@pytest.mark.parametrize("tolerance", [0.0, 0.02, 0.05])
@pytest.mark.parametrize("law", LAWS)
def test_the_smallest_scale_whose_volume_is_within_the_tolerance_is_taken(law, tolerance):
    """Written out, for 40 images, of which 3 of 4 pixels do not matter.

    Narrow or wide starts, each pixel its own.
    """
    stream = torch.Generator().manual_seed(0)
    start = torch.rand((40, 4), generator=stream, dtype=torch.float64) + 0.5
    start *= torch.logspace(-2, 0.6, 40, dtype=torch.float64)[:, None]
    start[:, 0] = torch.linspace(0.05, 0.6, 40)[torch.randperm(40, generator=stream)]
    model = Classifier(HalfSpace(PIXEL[:4], 0.2), batch_size=4000)
    inside = in_box_proxy_radii(model, start, law)
    largest = inside.max(axis=0)
    assert (largest > 0).all()
    expected = CHOICES[(inside >= (1 - tolerance) * largest).argmax(axis=0)].round(3).tolist()
    assert rescaled(model, start, law, tolerance=tolerance) == expected
    assert len(set(expected)) >= 3  # of the five, so that a constant answer is none


def test_theta_is_not_scaled_beyond_what_the_box_needs():
    """A constant network certifies any region.

    Semi-axes of 0.01 double; those of 20 hold the whole box of 16 dimensions at any scale. Between
    them the image box ends what a larger scale gains. Each image has its own scale.
    """
    gap = (
        GaussianNoise(1.0)
        .gap(torch.from_numpy(clopper_pearson(10_000 * 400.5 / 401, 10_000, 0.001)))
        .item()
    )
    start = (torch.tensor([0.01, 0.7, 20.0]) / gap)[:, None].expand(3, 16)
    assert rescaled(CONSTANT, start, tolerance=0.0) == [2.0, 2.0, 0.794]
    assert rescaled(CONSTANT, start, tolerance=0.1) == [2.0, 1.587, 0.794]
    assert rescaled(CONSTANT, start, tolerance=0.6) == [0.794] * 3


def test_pixels_that_are_wide_enough_do_not_count():
    """15 of 16 axes reach past the image.

    2.5 times the last gains 2.5^(1/16) = 1.06, more than a tolerance of 0.02.
    """
    start = torch.full((1, 16), 30.0)
    start[0, 0] = 0.01
    model = Classifier(HalfSpace(PIXEL, 0.2), batch_size=400)  # saturated at all scales
    assert rescaled(model, start, tolerance=0.02) == [1.587]
    assert rescaled(model, start, tolerance=0.06) == [0.794]
    assert rescaled(model, start, tolerance=0.0) == [2.0]


def test_a_start_too_wide_for_the_class_shrinks():
    """p = 2 Phi(0.3 / theta) - 1 at theta = 0.35 is 0.61.

    Twice that abstains, and the least has the largest radius.
    """

    def slab(x):
        d = (x[:, 0] - 0.5).abs()
        return torch.stack([0.3 - d, d - 0.3], dim=1)

    assert rescaled(Outputs(slab), torch.full((5, 16), 0.35)) == [0.794] * 5


def test_scale_is_kept_where_every_scale_abstains():
    coin = Classifier(HalfSpace(PIXEL, 0.0))
    assert (
        rescaled(coin, torch.rand(6, 16, generator=torch.Generator().manual_seed(0)) + 0.1, n=20)
        == [1.0] * 6
    )


def test_the_class_is_that_of_the_start_not_of_the_enlarged_theta():
    """Class 0 of the slabs leads at the start.

    At five times that class 2 does, which must not count.
    """
    x = torch.full((20, 16), 0.5)
    assert (
        Slabs.probabilities("gaussian", 0.25)[0] > 0.75
        and Slabs.probabilities("gaussian", 1.25)[2] > 0.7
    )
    theta = optimize_anisotropic(
        Slabs(), x, GaussianNoise(0.25), seed=0, enlarge=5.0, iterations=1, step=1e-12
    )
    # no scale has class 0 back
    torch.testing.assert_close(theta, torch.full_like(x, 1.25), rtol=1e-6, atol=0)


def test_search_draws_are_spent_on_the_class_and_the_scales():
    """In batches of 20: the class, a step of the ascent, and 5 scales."""
    for search_draws, passes in [(20, 1 + 1 + 5), (60, 3 + 1 + 15)]:
        seen = []
        recorder = Recorder(CONSTANT, lambda x: seen.append(len(x)))  # noqa: B023
        model = counting(recorder, batch_size=20)
        rescaled(model, torch.full((1, 16), 0.1), draws=20, search_draws=search_draws)
        assert seen == [20] * passes
