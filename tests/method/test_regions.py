"""The geometry of regions against independent convex solvers, high precision and closed forms."""

import itertools
import math

import cvxpy as cp
import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from ancer import Region, superset
from ancer.regions import _geometry as geometry
from ancer.regions.region import SHRINKS, intersect, largest_in_subset, largest_out_subset

NORMS = [1, 2]


def region(center, axes, norm):
    return Region(
        torch.tensor(center, dtype=torch.float64), torch.tensor(axes, dtype=torch.float64), norm
    )


def pairs(norm, count, *, seed, n_max=12, spread=1.0):
    """Random pairs: u = difference of centers, a and b = axes, flat numpy vectors."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        n = rng.integers(1, n_max + 1)
        a, b = np.exp(spread * rng.standard_normal((2, n)))
        yield rng.standard_normal(n) * 2 ** rng.uniform(-1, 2), a, b


def torch_pair(u, a, b):
    return torch.tensor(u)[None], torch.tensor(a)[None], torch.tensor(b)


def solve(problem):
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    return problem.value


def cvx_distance(u, a, b, norm):
    """min ||y / b|| over ||(y - u) / a|| <= 1, as a cone program."""
    y = cp.Variable(len(u))
    return solve(cp.Problem(cp.Minimize(cp.norm((y) / b, norm)), [cp.norm((y - u) / a, norm) <= 1]))


# --- distance, intersect --------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_distance_agrees_with_a_convex_solver(norm):
    for u, a, b in pairs(norm, 60, seed=norm):
        d = geometry.distance(*torch_pair(u, a, b), norm)[0].item()
        assert d == pytest.approx(cvx_distance(u, a, b, norm), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_distance_with_compact_axes_and_points(norm):
    """One axis for all coordinates, and a point: ||u / b||."""
    for u, a, b in pairs(norm, 20, seed=norm):
        u_, a_, b_ = torch_pair(u, a, b)
        n = len(u)
        full = geometry.distance(u_, a_[:, :1].expand(1, n), b_[:1].expand(n), norm)[0]
        assert geometry.distance(u_, a_[:, :1], b_[:1], norm)[0].item() == pytest.approx(
            full.item(), rel=1e-12
        )
        point = geometry.distance(u_, torch.zeros(1, 1, dtype=torch.float64), b_, norm)[0].item()
        assert point == pytest.approx(np.linalg.norm(u / b, norm), rel=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_rows_of_a_batch_are_solved_as_if_alone(norm):
    torch.manual_seed(norm)
    u, a = torch.randn(50, 30).double(), torch.rand(50, 30).double() + 0.1
    a[::7] = 0
    b = torch.rand(30).double() + 0.1
    d, multiplier = geometry.distance(u, a, b, norm)
    for i in range(50):
        alone = geometry.distance(u[i : i + 1], a[i : i + 1], b, norm)
        assert d[i].item() == pytest.approx(alone[0].item(), rel=1e-12)
        assert multiplier[i].item() == pytest.approx(alone[1].item(), rel=1e-9)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_one_pass_bounds_the_distance_and_decides_most(norm, spread):
    """Of regions crowded round x, at distances of about 1 in multiples of b."""
    torch.manual_seed(norm)
    n = 1000
    u, a = torch.randn(400, n).double(), torch.exp(spread * torch.randn(400, n)).double()
    b = torch.exp(spread * torch.randn(n)).double()
    scale = brentq(
        lambda s: geometry.distance(u, s * a, s * b, norm)[0].quantile(0.1).item() - 1, 1e-2, 1e6
    )
    d, bound = (
        geometry.distance(u, scale * a, scale * b, norm)[0],
        geometry.bound(u, scale * a, scale * b, norm),
    )
    assert (bound <= d * (1 + 1e-12)).all()
    assert (bound[d > 1.01] >= 1).float().mean() > 0.97


@pytest.mark.parametrize("norm", NORMS)
def test_intersect_agrees_with_a_convex_solver(norm):
    decided = 0
    for u, a, b in pairs(norm, 60, seed=10 + norm):
        exact = cvx_distance(u, a, b, norm)
        if abs(exact - 1) > 1e-6:
            decided += 1
            one, other = region(u, a, norm), region(np.zeros_like(u), b, norm)
            assert intersect(one, other) == intersect(other, one) == (exact < 1)
    assert decided > 50


# --- float-safe bounds against 60 digits ----------------------------------------------------------


def mp_distance(u, a, b, norm):
    """The exact distance of the float64 inputs: bisection (l2), fractional knapsack (l1)."""
    u, a, b = ([mp.mpf(float(v)) for v in vector] for vector in (u, a, b))
    if norm == 1:
        w, r = (
            [abs(x) / y for x, y in zip(u, a, strict=True)],
            [x / y for x, y in zip(a, b, strict=True)],
        )
        return max(
            mp.mpf(0), *(sum(x * min(y, mu) for x, y in zip(w, r, strict=True)) - mu for mu in r)
        )
    w, c = (
        [(x / y) ** 2 for x, y in zip(u, a, strict=True)],
        [(x / y) ** 2 for x, y in zip(b, a, strict=True)],
    )
    total = sum(w)
    if total <= 1:
        return mp.mpf(0)
    low, high = (mp.sqrt(total) - 1) / max(c), (mp.sqrt(total) - 1) / min(c)
    for _ in range(110):
        lam = mp.sqrt(low * high)
        if sum(x / (1 + lam * y) ** 2 for x, y in zip(w, c, strict=True)) > 1:
            low = lam
        else:
            high = lam
    return mp.sqrt(
        max(mp.mpf(0), low * (sum(x / (1 + low * y) for x, y in zip(w, c, strict=True)) - 1))
    )


def close_pairs(norm, count, *, seed, spread=1.0):
    """Pairs at a scaled distance of about 1e-12 to 10.

    X just outside the region and far from it.
    """
    rng = np.random.default_rng(seed)
    for u, a, b in pairs(norm, count, seed=seed, n_max=20, spread=spread):
        yield u / np.linalg.norm(u / a, norm) * (1 + 10 ** rng.uniform(-12, 1)), a, b


@pytest.mark.parametrize("norm", NORMS)
def test_distance_is_never_above_the_exact_value(norm):
    with mp.workdps(60):
        for spread in (1, 7):
            for u, a, b in close_pairs(norm, 80, seed=20 + norm, spread=spread):
                exact = mp_distance(u, a, b, norm)
                d = geometry.distance(*torch_pair(u, a, b), norm)[0].item()
                assert d <= exact
                assert d >= exact * (1 - 1e-7) or np.linalg.norm(u / a, norm) < 1 + 1e-6
                assert geometry.bound(*torch_pair(u, a, b), norm).item() <= exact


@pytest.mark.parametrize("norm", NORMS)
def test_without_padding_the_distance_would_be_unsafe(norm, monkeypatch):
    monkeypatch.setattr(geometry, "gamma", lambda k: 0.0)
    monkeypatch.setattr(geometry, "U", 0.0)
    with mp.workdps(60):
        unsafe = sum(
            geometry.distance(*torch_pair(u, a, b), norm)[0].item() > mp_distance(u, a, b, norm)
            for u, a, b in close_pairs(norm, 120, seed=20 + norm)
        )
    assert unsafe > 10


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shrink", SHRINKS)
def test_out_subset_is_disjoint_in_60_digits(norm, shrink):
    shrunk = 0
    with mp.workdps(60):
        for u, a, b in close_pairs(norm, 60, seed=30 + norm):
            axes = geometry.axes_outside(
                *(t.flatten() for t in torch_pair(u, a, b)), norm, shrink=shrink
            ).numpy()
            assert (axes <= b).all()
            if axes.all():
                shrunk += (axes < b).any()
                assert mp_distance(u, a, axes, norm) > 1
    assert shrunk > 10


def mp_inside(u, a, b, norm):
    """Whether the region of axes b lies in that of axes a around -u.

    The S-lemma or the vertices, exactly.
    """
    u, a, b = ([mp.mpf(float(v)) for v in vector] for vector in (u, a, b))
    if norm == 1:
        rho = sum(abs(x) / y for x, y in zip(u, a, strict=True))
        return rho + max(x / y for x, y in zip(b, a, strict=True)) <= 1
    dd, t = (
        [(x / y) ** 2 for x, y in zip(u, a, strict=True)],
        [(x / y) ** 2 for x, y in zip(b, a, strict=True)],
    )
    low, high = mp.mpf(0), 1 / max(t)
    for _ in range(150):
        eta = (low + high) / 2
        if sum(x / (1 - eta * y) ** 2 for x, y in zip(dd, t, strict=True)) < 1:
            low = eta
        else:
            high = eta
    return low * (1 - sum(x / (1 - low * y) for x, y in zip(dd, t, strict=True))) >= 1


@pytest.mark.parametrize("norm", NORMS)
def test_inclusion_is_never_claimed_in_excess_in_60_digits(norm):
    rng = np.random.default_rng(40 + norm)
    with mp.workdps(60):
        for u, a, b in pairs(norm, 80, seed=40 + norm, n_max=10):
            u = (
                u
                / np.linalg.norm(u / a, norm)
                * (1 - 10 ** rng.uniform(-8, 0))
                * rng.choice([1, 1e-9])
            )
            s = geometry.inside_scale(*torch_pair(u, a, b), norm).item()
            assert s > 0
            assert mp_inside(u, a, s * b, norm)
            assert not mp_inside(u, a, s * (1 + 1e-5) * b, norm)  # and nearly tight
            largest = geometry.largest_inside(*torch_pair(u, a, b)[:2], norm)[0].numpy()
            assert mp_inside(u, a, largest, norm)


# --- largest in- and out-subsets, superset --------------------------------------------------------


def inner_pairs(norm, count, *, seed):
    """Pairs with the center x strictly inside R, n <= 5."""
    rng = np.random.default_rng(seed)
    for u, a, b in pairs(norm, count, seed=seed, n_max=5):
        yield u / np.linalg.norm(u / a, norm) * rng.uniform(0.01, 0.95), a, b


def lmi_inside(v, beta):
    """That the ellipsoid v + diag(beta) z lies in the unit ball (Boyd & Vandenberghe, 2004, section
    8.4.2).
    """
    n, lam = len(v), cp.Variable()
    blocks = [
        [cp.reshape(1 - lam, (1, 1), order="C"), np.zeros((1, n)), v[None]],
        [np.zeros((n, 1)), lam * np.eye(n), cp.diag(beta)],
        [v[:, None], cp.diag(beta), np.eye(n)],
    ]
    return cp.bmat(blocks) >> 0


def vertices_inside(v, beta):
    """That the cross-polytope v + diag(beta) z lies in the unit one: so do its 2n vertices."""
    n = len(v)
    return [
        cp.norm(v + sign * beta[k] * np.eye(n)[k], 1) <= 1 for k in range(n) for sign in (-1, 1)
    ]


@pytest.mark.parametrize("norm", NORMS)
def test_scaled_copy_touches_the_boundary_and_is_never_larger_than_the_largest(norm):
    """In the direction away from the center the copy's far end lies at 1 = rho + (1 - rho) of the
    region.
    """
    for u, a, _ in pairs(norm, 40, seed=norm):
        u *= 0.7 / np.linalg.norm(u / a, norm)
        other = region(np.zeros_like(u), a, norm)
        copy = largest_in_subset(torch.tensor(u), other, keep_shape=True)
        # they touch: more is not decidable
        assert superset(region(np.zeros_like(u), a * (1 + 1e-9), norm), copy)
        assert copy.flat_axes.numpy() == pytest.approx(0.3 * a, rel=1e-12)
        far = u + u / 0.7 * 0.3  # a boundary point of both
        assert np.linalg.norm(far / a, norm) == pytest.approx(1)
        assert np.linalg.norm((far - u) / copy.flat_axes.numpy(), norm) == pytest.approx(1)
        largest = largest_in_subset(torch.tensor(u), other)
        assert largest.log_volume >= copy.log_volume - 1e-9
        assert norm == 2 or largest.log_volume == pytest.approx(copy.log_volume)
    assert largest_in_subset(torch.tensor(u * 2), other, keep_shape=True) is None


@pytest.mark.parametrize("norm", NORMS)
def test_largest_in_subset_agrees_with_a_convex_solver(norm):
    for u, a, _ in inner_pairs(norm, 25, seed=50 + norm):
        beta = cp.Variable(len(u), pos=True)
        inside = [lmi_inside(u / a, beta)] if norm == 2 else vertices_inside(u / a, beta)
        problem = cp.Problem(cp.Maximize(cp.sum(cp.log(beta))), inside)
        problem.solve(solver=cp.CLARABEL)
        ours = largest_in_subset(torch.tensor(u), region(np.zeros_like(u), a, norm))
        volume = (ours.axes.expand(len(u)) / torch.tensor(a)).log().sum().item()
        assert volume == pytest.approx(problem.value, abs=2e-5)
        rho = np.linalg.norm(u / a, norm)
        assert volume >= len(u) * math.log(1 - rho) - 1e-9  # not below the scaled copy


@pytest.mark.parametrize("norm", NORMS)
def test_inside_scale_agrees_with_a_convex_solver(norm):
    for u, a, b in inner_pairs(norm, 25, seed=60 + norm):
        s = cp.Variable(nonneg=True)
        inside = (
            [lmi_inside(u / a, s * (b / a))] if norm == 2 else vertices_inside(u / a, s * (b / a))
        )
        expected = solve(cp.Problem(cp.Maximize(s), inside))
        assert geometry.inside_scale(*torch_pair(u, a, b), norm).item() == pytest.approx(
            expected, rel=1e-5
        )
        for scale in (0.999, 1.001):
            outer, inner = region(u, a, norm), region(np.zeros_like(u), expected * scale * b, norm)
            assert superset(outer, inner) == (scale < 1)


def test_inside_scale_in_the_hard_case():
    """No offset along the widest axis: eta ends at 1 / max(t).

    Checked against dense boundary points.
    """
    u, a, b = np.array([0.3, 0.0]), np.array([1.0, 1.0]), np.array([0.1, 1.0])
    s = geometry.inside_scale(*torch_pair(u, a, b), 2).item()
    angle = np.linspace(0, 2 * math.pi, 200_001)
    worst = np.hypot(0.3 + s * 0.1 * np.cos(angle), s * np.sin(angle)).max()
    assert 1 - 1e-8 < worst <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_a_center_on_or_outside_the_boundary_has_no_in_subset(norm):
    other = region([0.0, 0.0], [1.0, 2.0], norm)
    for point in ([1.0, 0.0], [0.0, -2.0], [0.9, 1.9], [5.0, 0.0]):
        assert largest_in_subset(torch.tensor(point), other) is None


@pytest.mark.parametrize("norm", NORMS)
def test_out_subset_uniform_touches_and_direction_keeps_more(norm):
    for u, a, b in pairs(norm, 40, seed=70 + norm):
        new, old = region(np.zeros_like(u), b, norm), region(u, a, norm)
        d = cvx_distance(u, a, b, norm)
        if d < 1e-3:
            continue
        uniform, direction = (
            largest_out_subset(new, old, shrink=s) for s in ("uniform", "direction")
        )
        assert uniform.radius == pytest.approx(b.min() * min(d, 1), rel=1e-5)
        assert direction.log_volume >= uniform.log_volume - 1e-6
        for out in (uniform, direction):
            assert superset(new, out)
            assert not intersect(out, old)
            assert cvx_distance(u, a, out.axes.numpy(), norm) >= 1 - 1e-6


@pytest.mark.parametrize("norm, kept", [(1, 0.93), (2, 0.98)])
def test_direction_keeps_volume_in_high_dimension(norm, kept):
    """Two regions of one size whose conflict costs the uniform shrink 10 % of every axis, n =
    3,072.
    """
    torch.manual_seed(0)
    n = 3072
    u, a, b = torch.randn(n).double(), *torch.exp(0.5 * torch.randn(2, n)).double()
    scale = brentq(
        lambda s: geometry.distance(u[None], s * a[None], s * b, norm)[0].item() - 0.9, 0.1, 1e5
    )
    uniform, direction = (
        (geometry.axes_outside(u, scale * a, scale * b, norm, shrink=s) / scale / b)
        .log()
        .mean()
        .exp()
        .item()
        for s in ("uniform", "direction")
    )
    assert uniform == pytest.approx(0.9, abs=1e-6)
    assert direction > kept


@pytest.mark.parametrize("norm", NORMS)
def test_superset_of_concentric_pairs_is_exact(norm):
    one = region([1.0, 2.0], [1.0, 3.0], norm)
    assert superset(one, one)
    assert superset(one, region([1.0, 2.0], 1.0, norm))
    assert not superset(one, region([1.0, 2.0], [np.nextafter(1, 2), 1.0], norm))
    assert superset(region([1.0, 2.0], 3.0, norm), one)


@pytest.mark.parametrize("norm", NORMS)
def test_superset_never_claims_a_touching_pair_in_excess(norm):
    """Balls that touch from inside, and exceed by the last bit of an axis."""
    for r in (0.5, 0.3, 1e-3):
        big = region([0.0, 0.0], 1.0, norm)
        assert superset(big, region([1 - r, 0.0], r * (1 - 1e-9), norm))
        assert not superset(big, region([1 - r, 0.0], np.nextafter(r, 1) * (1 + 1e-15), norm))


# --- volume, radii, contains ----------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 150_528])
def test_log_volume_in_closed_form(n):
    rng = np.random.default_rng(n)
    axes = np.exp(rng.standard_normal(n))
    with mp.workdps(40):
        product = mp.fsum(mp.log(mp.mpf(float(a))) for a in axes)
        ball = mp.mpf(n) / 2 * mp.log(mp.pi) - mp.loggamma(mp.mpf(n) / 2 + 1)
        cross = n * mp.log(2) - mp.loggamma(n + 1)
        for norm, unit in ((2, ball), (1, cross)):
            value = region(np.zeros(n), axes, norm).log_volume
            assert value == pytest.approx(float(unit + product), rel=1e-12)
            compact = Region(torch.zeros(n), torch.tensor(0.5), norm).log_volume
            assert compact == pytest.approx(float(unit + n * mp.log(mp.mpf("0.5"))), rel=1e-12)


def test_volumes_of_known_shapes():
    assert region([0.0, 0.0], [2.0, 3.0], 2).log_volume == pytest.approx(math.log(6 * math.pi))
    assert region([0.0, 0.0], [2.0, 3.0], 1).log_volume == pytest.approx(math.log(12))
    assert region([0.0] * 3, 2.0, 2).log_volume == pytest.approx(math.log(4 / 3 * math.pi * 8))


@pytest.mark.parametrize("norm", NORMS)
def test_radii(norm):
    r = region([[0.0, 0.0], [0.0, 0.0]], [[0.5, 2.0], [4.0, 1.0]], norm)
    assert (r.n, r.radius) == (4, 0.5)
    assert r.proxy_radius == pytest.approx(4**0.25)


def test_compact_axes_stay_compact_and_count_for_all_coordinates():
    center = torch.rand(3, 8, 8)
    for shape in ((), (1, 1, 1), (3, 1, 1), (1, 8, 8), (8, 8), (3, 8, 8)):
        axes = torch.rand(shape, dtype=torch.float64) + 0.1
        r, full = Region(center, axes, 2), Region(center, axes.expand(3, 8, 8), 2)
        assert r.axes.shape == shape
        assert r.n == 192
        for name in ("radius", "proxy_radius", "in_box_proxy_radius", "log_volume"):
            assert getattr(r, name) == pytest.approx(getattr(full, name), rel=1e-13)
        assert len(r.flat_axes) == (1 if axes.numel() == 1 else 192)
        assert superset(r, full)
        assert superset(full, r)


@pytest.mark.parametrize("norm", NORMS)
def test_contains_is_open_and_batched(norm):
    r = region([1.0, 0.0], [0.5, 2.0], norm)
    points = torch.tensor([[[1.0, 0.0], [1.5, 0.0]], [[1.0, 1.9], [1.4, 1.9]]])
    assert r.contains(points).tolist() == [[True, False], [True, False]]
    assert r.contains(torch.tensor([1.49, 0.0])).item()
    assert r.contains(torch.rand(0, 2)).shape == (0,)


# --- the peers' errors ----------------------------------------------------------------------------


def test_peers_axes_are_squared_in_intersect():
    """RANCER: x^T A x with A = 1/(sigma gap) instead of its square."""
    assert intersect(region([0.0, 0.0], 3.0, 2), region([5.0, 0.0], 3.0, 2))
    near, far = region([0.0, 0.0], [0.25, 1.0], 2), region([0.9, 0.0], [0.25, 1.0], 2)
    assert not intersect(near, far)
    assert largest_out_subset(near, far).proxy_radius == pytest.approx(0.5)


def test_peers_projection_finds_the_distance():
    """RANCER: balls of radius 3 with centers 3.2 apart, new radius 1.47; it is 0.2."""
    new, old = region([3.2, 0.0], 3.0, 2), region([0.0, 0.0], 3.0, 2)
    assert largest_out_subset(new, old, shrink="uniform").radius == pytest.approx(0.2, rel=1e-8)


def test_peers_a_center_near_the_boundary_has_a_distance():
    """RANCER's bisection bracket [0.01, 1000] raises for a center 1.003 from a unit ball."""
    new, old = region([1.003, 0.0], 1.0, 2), region([0.0, 0.0], 1.0, 2)
    assert largest_out_subset(new, old, shrink="uniform").radius == pytest.approx(0.003, rel=1e-6)


def test_peers_shrinking_keeps_the_shape():
    """RANCER: shrinks to a ball, proxy radius 0.5 -> 0.25, where 0.1 of overlap costs a tenth or
    less.
    """
    new, old = region([0.0, 1.9], [0.25, 1.0], 2), region([0.0, 0.0], [0.25, 1.0], 2)
    assert largest_out_subset(new, old, shrink="uniform").proxy_radius == pytest.approx(
        0.45, rel=1e-6
    )
    direction = largest_out_subset(new, old, shrink="direction")
    assert direction.axes.tolist() == pytest.approx([0.25, 0.9], rel=1e-6)


def test_peers_proxy_radius_in_log_space():
    """ANCER and RANCER: float32 prod(theta^(1/n)) errs by up to 0.6 % at n = 150,528."""
    torch.manual_seed(0)
    axes = torch.exp(torch.randn(150_528))
    assert Region(torch.zeros(150_528), axes, 2).proxy_radius == pytest.approx(
        math.exp(axes.double().log().mean()), rel=1e-12
    )


# --- extremes and bad inputs ----------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_extreme_axes_stay_sound(norm):
    """Axes over the whole admitted range.

    Bounds are finite, at most exact, and shrunk regions are disjoint.
    """
    rng = np.random.default_rng(80 + norm)
    with mp.workdps(400):
        for power in (6, 30, 74):
            for _ in range(12):
                u, a, b = 10.0 ** rng.uniform(-power, power, (3, 3))
                d = geometry.distance(*torch_pair(u, a, b), norm)[0].item()
                assert math.isfinite(d)
                assert d <= mp_distance(u, a, b, norm)
                for shrink in SHRINKS:
                    axes = geometry.axes_outside(
                        *(t.flatten() for t in torch_pair(u, a, b)), norm, shrink=shrink
                    )
                    assert ((axes >= 0) & (axes <= torch.tensor(b))).all()
                    if axes.all():
                        assert mp_distance(u, a, axes.numpy(), norm) > 1


@pytest.mark.parametrize("norm", NORMS)
def test_image_net_size(norm):
    torch.manual_seed(0)
    n = 150_528
    center, axes = torch.rand(n), torch.rand(n).double() + 0.5
    one, other = Region(center, axes, norm), Region(center + 1e-6, axes, norm)
    assert intersect(one, other)
    assert superset(one, Region(center + 1e-9, axes * 0.9, norm))
    far = Region(center + 3, axes, norm)
    out = largest_out_subset(Region(center, axes * 10 ** (3 if norm == 2 else 6), norm), far)
    assert not intersect(out, far)


@pytest.mark.parametrize("bad", [float("nan"), 0.0, -1.0, float("inf"), 1e-80, 1e80])
def test_bad_axes_are_named(bad):
    with pytest.raises(
        ValueError, match="axes must be positive and finite.*found " + repr(bad).replace("+", r"\+")
    ):
        region([0.0, 0.0], [1.0, bad], 2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_centers_are_named(bad):
    with pytest.raises(ValueError, match="finite numbers, found " + str(bad)):
        region([0.0, bad], 1.0, 2)


@pytest.mark.parametrize(
    "axes", [torch.ones(3), torch.ones(2, 2), torch.ones(1, 1, 2), torch.ones(0)]
)
def test_bad_shapes_are_named(axes):
    with pytest.raises(ValueError, match="do not broadcast"):
        Region(torch.zeros(1, 2), axes, 2)


def test_other_bad_input():
    with pytest.raises(ValueError, match="norm must be 1 or 2, found 3"):
        region([0.0], 1.0, 3)
    with pytest.raises(ValueError, match="found nothing"):
        region([], 1.0, 2)
    a = region([0.0, 0.0], 1.0, 2)
    with pytest.raises(ValueError, match="must end in"):
        a.contains(torch.zeros(3))
    for other in (region([0.0, 0.0], 1.0, 1), region([0.0], 1.0, 2)):
        for function in (superset, intersect, largest_out_subset):
            with pytest.raises(ValueError, match="different spaces"):
                function(a, other)
    with pytest.raises(ValueError, match="shrink must be one of"):
        largest_out_subset(a, a, shrink="both")


def test_regions_are_frozen_and_do_not_touch_their_inputs():
    center = torch.zeros(2, requires_grad=True)
    r = Region(center, torch.ones(2, dtype=torch.float32), 2)
    assert (r.center.dtype, r.axes.dtype, r.center.requires_grad) == (
        torch.float64,
        torch.float64,
        False,
    )
    with pytest.raises(AttributeError):
        r.norm = 1


@pytest.mark.parametrize("norm", NORMS)
def test_all_answers_agree_in_one_dimension(norm):
    """Intervals: everything has a closed form."""
    for x, a, b in itertools.product([0.0, 0.3, 1.0, 2.5], [0.5, 1.0], [0.2, 1.5]):
        one, other = region([0.0], [a], norm), region([x], [b], norm)
        assert intersect(one, other) == (x <= a + b)
        if abs(x + b - a) > 1e-9:
            assert superset(one, other) == (x + b < a)
        out = largest_out_subset(other, one)
        if x > a:
            assert out.radius == pytest.approx(min(b, x - a), rel=1e-8)
        else:
            assert out is None
