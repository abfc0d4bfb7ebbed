"""What a query of the memory costs, and what volume a conflict leaves. One run: python
benchmarks/memory.py

Stored regions have smooth random images as centers and log-normal axes (spread 0.5) of two scales:
'apart', like images at sigma 0.25, where balls round the regions tell them apart; and 'crowded',
where about one region in a thousand meets the query's and balls tell nothing. They are stored
without asking, the queries ask. One thread.

The plain way minimizes a function of one variable for each pair: for l2, K(t) = 1 - sum u^2 / (a^2
/ t + b^2 / (1 - t)), negative somewhere in (0, 1) exactly if the ellipsoids are disjoint
(Gilitschenski & Hanebeck, 2012); for l1, where nothing is published, the negative dual of the
distance.
- 'plain': scipy.optimize.minimize, method trust-constr, as in the published memory of RANCER;
- 'early': the same unless the first value already tells the regions apart (RANCER's short cut);
- 'scalar': scipy.optimize.minimize_scalar, bounded, which suits such functions better.
A sample of pairs is timed and scaled to the number of regions."""

import json
import math
import platform
import statistics
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import scipy
import torch
from scipy.optimize import Bounds, brentq, minimize, minimize_scalar

from ancer import Memory, Region
from ancer.regions import _geometry as geometry

QUERIES, PAIRS, SPREAD = 9, 15, 0.5
CASES = [(3072, 100), (3072, 1_000), (3072, 10_000), (150_528, 500)]


def images(rng, count, n):
    """Smooth random images in [0, 1].

    Coarse noise, enlarged, with a little fine noise; float32 (count, n).
    """
    side = math.isqrt(n // 3)
    coarse = torch.tensor(rng.uniform(size=(count, 3, 8, 8))).float()
    image = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return (
        (image + 0.02 * torch.tensor(rng.standard_normal(image.shape)).float())
        .clamp(0, 1)
        .reshape(count, n)
    )


def log_normal(rng, *shape):
    return torch.tensor(np.exp(SPREAD * rng.standard_normal(shape)))


def median_axis(rng, n, norm, density):
    """0.5 (times n^(1/2) for l1), or such that one in a thousand of a sample of pairs meet."""
    if density == "apart":
        return 0.5 if norm == 2 else 0.5 * math.sqrt(n)
    m = 40
    u = images(rng, m, n).double() - images(rng, 1, n)[0]
    a, b = log_normal(rng, m, n), log_normal(rng, n)

    def excess(log_scale):
        d = geometry.distance(u, math.exp(log_scale) * a, math.exp(log_scale) * b, norm)[0]
        return (d.mean() - 3 * d.std()).item() - 1  # three deviations: one in a thousand

    return math.exp(brentq(excess, -3, 12, xtol=1e-3))


def fill(rng, n, count, norm, scale):
    """A memory of regions of nine classes, none the query's."""
    memory = Memory()
    memory._records.start(norm=norm, shape=[n], number="<f4")
    for i in range(0, count, 100):
        for j, center in enumerate(images(rng, min(100, count - i), n)):
            memory._records.append(j % 9, scale * log_normal(rng, n), center.double())
    return memory


def seconds(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def one_variable(u, a, b, norm):
    """The function to minimize for a pair, its start, its interval, and the value below which they
    are disjoint.
    """
    if norm == 2:
        u2, a2, b2 = u**2, a**2, b**2
        return lambda t: 1 - np.sum(u2 / (a2 / t + b2 / (1 - t))), 0.5, (0.001, 0.999), 0
    w, r = np.abs(u) / a, a / b
    return (
        lambda mu: float(np.sum(mu)) - np.sum(w * np.minimum(r, mu)),
        np.median(r),
        (0, r.max()),
        -1,
    )


def plain(*pair):
    f, start, interval, disjoint = one_variable(*pair)
    return minimize(f, start, method="trust-constr", bounds=Bounds(*interval)).fun < disjoint


def early(*pair):
    f, start, _, disjoint = one_variable(*pair)
    return f(start) < disjoint or plain(*pair)


def scalar(*pair):
    f, _, interval, disjoint = one_variable(*pair)
    return minimize_scalar(f, bounds=interval, method="bounded").fun < disjoint


def query_times():
    for (n, count), norm, density in [
        (c, p, d) for c in CASES for p in (2, 1) for d in ("apart", "crowded")
    ]:
        rng = np.random.default_rng(n + count + norm)
        scale = median_axis(rng, n, norm, density)
        memory, took, conflicts = fill(rng, n, count, norm, scale), [], []
        for x in images(rng, QUERIES, n):
            b = scale * log_normal(rng, n)
            query = SimpleNamespace(prediction=9, center=x, norm=norm, region=Region(x, b, norm))
            s, answer = seconds(memory.answer, query)
            took.append(s)
            conflicts.append(answer.conflicts)
        row = {
            "norm": norm,
            "n": n,
            "regions": count,
            "density": density,
            "median_axis": scale,
            "queries": QUERIES,
            "query_s": statistics.median(took),
            "query_s_min": min(took),
            "query_s_max": max(took),
            "conflicts": statistics.mean(conflicts),
            "pairs": PAIRS,
        }
        u, a = memory._records.files[1].load(
            list(range(0, count, max(1, count // PAIRS)))[:PAIRS], x.double()
        )
        pairs = [(*pair, b.numpy(), norm) for pair in zip(u.numpy(), a.numpy(), strict=True)]
        for method in (plain, early, scalar):
            pair_s = [seconds(method, *pair)[0] for pair in pairs]
            name = method.__name__
            row |= {
                f"{name}_pair_s": statistics.mean(pair_s),
                f"{name}_pair_s_min": min(pair_s),
                f"{name}_pair_s_max": max(pair_s),
                f"{name}_ratio": count * statistics.mean(pair_s) / row["query_s"],
            }
        yield row


def volume_kept(n=3072, pairs=20):
    """Regions of one size, so close that the uniform shrink keeps 0.9, 0.7 or 0.5 of the proxy
    radius.
    """
    for norm, uniform in [(p, k) for p in (2, 1) for k in (0.9, 0.7, 0.5)]:
        rng, kept = np.random.default_rng(norm), []
        for _ in range(pairs):
            u = (images(rng, 1, n)[0] - images(rng, 1, n)[0]).double()
            a, b = log_normal(rng, 2, n)

            def excess(log_scale, u=u, a=a, b=b, norm=norm, target=uniform):
                s = math.exp(log_scale)
                return geometry.distance(u[None], s * a[None], s * b, norm)[0].item() - target

            scale = math.exp(brentq(excess, -5, 15, xtol=1e-12))
            a, b = scale * a, scale * b
            axes = geometry.axes_outside(u, a, b, norm, shrink="direction")
            ball = geometry.distance(u[None], a[None], b.new_ones(1), norm)[0].clamp_max(b.min())
            proxies = [(t.log().mean() - b.log().mean()).exp().item() for t in (axes, ball)]
            kept.append([*proxies, (axes.min() / b.min()).item()])
        row = {"norm": norm, "n": n, "pairs": pairs, "uniform": uniform}
        for name, values in zip(
            ("direction", "ball", "direction_smallest_axis"), np.transpose(kept), strict=True
        ):
            row |= {name: values.mean(), f"{name}_sd": values.std(ddof=1)}
        yield row


def cpu():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def main():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # trust-constr remarks that the dual is piecewise linear
    times, volumes = [], []
    print(
        "norm       n  regions  density   query ms: median, range  conflicts   "
        "times faster: plain, early, scalar"
    )
    for r in query_times():
        times.append(r)
        print(
            f"l{r['norm']}   {r['n']:7,}  {r['regions']:7,}  {r['density']:8}"
            f"  {1e3 * r['query_s']:7.1f}"
            f"  {1e3 * r['query_s_min']:7.1f}-{1e3 * r['query_s_max']:<7.1f}"
            f"  {r['conflicts']:8.1f}"
            f"  {r['plain_ratio']:10,.0f}  {r['early_ratio']:8,.1f}  {r['scalar_ratio']:8,.1f}",
            flush=True,
        )
    print("\nproxy radius kept (mean and standard deviation of 20 pairs, n = 3,072)")
    print("norm  uniform  direction        isotropic ball   direction: smallest axis kept")
    for r in volume_kept():
        volumes.append(r)
        print(
            f"l{r['norm']}    {r['uniform']:7}"
            + "".join(
                f"  {r[name]:.3f} +- {r[name + '_sd']:.3f}"
                for name in ("direction", "ball", "direction_smallest_axis")
            )
        )
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
    results = {
        "cpu": cpu(),
        "threads": 1,
        "versions": versions,
        "axes_log_spread": SPREAD,
        "query_times": times,
        "volume_kept": volumes,
    }
    target = Path(__file__).parent / "results" / "memory.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
