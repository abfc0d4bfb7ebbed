"""Volume inside the image box: the saddlepoint against the unbiased estimate. One run:
python benchmarks/in_box.py

A random image, a fifth of its pixels black, and log-normal axes round 1 (l1: round n^(1/2)). One
thread. ln V of both, their difference in standard errors of the estimate, and the times of
REPEATS runs, one after the other in turn: median and range."""

import json
import math
import platform
import statistics
import time
from pathlib import Path

import torch
from memory import cpu

from ancer.regions.in_box import estimate_in_box, log_volume_in_box

CASES = {64: 20_000, 3_072: 20_000, 150_528: 1_000}  # dimensions: draws of the estimate
REPEATS = 7


def timed(function, *arguments, **options):
    start = time.perf_counter()
    value = function(*arguments, **options)
    return value, time.perf_counter() - start


def milliseconds(seconds: list[float]) -> str:
    low, high = min(seconds), max(seconds)
    return f"{1e3 * statistics.median(seconds):.2f} ({1e3 * low:.2f} to {1e3 * high:.2f})"


def line(n: int, norm: int, draws: int) -> dict:
    generator = torch.Generator().manual_seed(n)
    x = torch.rand(n, generator=generator, dtype=torch.float64)
    x[::5] = 0
    axes = torch.randn(n, generator=generator, dtype=torch.float64).exp()
    if norm == 1:
        axes *= math.sqrt(n)
    spent: dict[str, list[float]] = {"saddlepoint": [], "estimate": []}
    for _ in range(REPEATS):
        value, seconds = timed(log_volume_in_box, x[None], axes[None], norm)
        spent["saddlepoint"].append(seconds)
        (estimate, error), seconds = timed(estimate_in_box, x, axes, norm, draws=draws)
        spent["estimate"].append(seconds)
    return {
        "n": n,
        "norm": norm,
        "ln V, saddlepoint": value.item(),
        "estimate": estimate,
        "its standard error": error,
        "draws": draws,
        "saddlepoint, ms": milliseconds(spent["saddlepoint"]),
        "estimate, ms": milliseconds(spent["estimate"]),
    }


def main() -> None:
    torch.set_num_threads(1)
    lines = []
    for n, draws in CASES.items():
        for norm in (2, 1):
            lines.append(line(n, norm, draws))
            print(lines[-1], flush=True)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    found = {"cpu": cpu(), "threads": 1, "versions": versions, "lines": lines}
    path = Path(__file__).parent / "results" / "in_box.json"
    path.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
