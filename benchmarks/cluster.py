"""Certifying by the workers of a cluster on this machine, against one process with one thread, side by side in one run.

    python benchmarks/cluster.py [experiment] [profile] [images]

Run `dvc repro` of the profile first. Each round takes this process, one worker and two workers in turn: rows per second
once the workers run, seconds until the first has the network, and milliseconds of a task that does nothing.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # as Dask's workers have

import numpy as np
import pandas as pd
import torch

from ancer import datasets, models, noise, tasks
from ancer.pipeline import chunked, load_parameters
from ancer.rows import certified_rows
from ancer.store import Stopwatch
from ancer.workers import workers

ROOT = Path(__file__).parents[1]
CLUSTERS = {"this process": {}, "one worker": {"local": 1}, "two workers": {"local": 2}}
ROUNDS = 5


def measure(cluster: dict, network, data, start, theta, p) -> dict:
    """Rows per second, seconds until the first answer, and milliseconds of an empty task."""
    drawing = {"n0": p.certify.n0, "n": p.certify.n, "alpha": p.certify.alpha, "seed": p.seed}
    drawing |= {"exact": p.certify.exact, "lattice": data.lattice}
    first, whole = [
        [
            (certified_rows, data.take(c), "anisotropic", start, theta, p.certify.shares, drawing)
            for c in chunked(data.index.tolist()[:count], images)
        ]
        for count, images in ((8, 1), (None, p.tasks.certify))
    ]
    began = time.perf_counter()
    with workers(cluster) as run:
        (setting,) = run(tasks.describe, [(network,)])
        ready = time.perf_counter() - began
        list(run(tasks.call, [(network, setting, *a) for a in first]))  # every worker has imported and loaded all
        with Stopwatch() as watch:
            found = list(run(tasks.call, [(network, setting, *a) for a in whole]))
        with Stopwatch() as empty:
            list(run(len, [((),)] * 500))
    rate = sum(len(rows) for rows, _ in found) / watch.seconds
    return {"rows per s": rate, "start-up, s": ready, "empty task, ms": 1e3 * empty.seconds / 500}


def main(experiment: str = "digits-l2-0.25", profile: str = ".", images: str = "200") -> None:
    p = load_parameters(experiment, profile=ROOT / profile)
    e, data = p.experiment, datasets.load(p.experiment.dataset, p.folder, images=int(images), every=p.every)
    network = tasks.Network.of(
        p.folder / f"data/checkpoints/{experiment}.safetensors", len(data.classes), vars(p.evaluate)
    )
    theta, start = p.folder / f"data/theta/{experiment}.safetensors", noise.LAWS[e.noise].from_sigma(e.sigma)
    found = [
        {"where": name, **measure(cluster, network, data, start, theta, p)}
        for _ in range(ROUNDS)
        for name, cluster in CLUSTERS.items()
    ]
    times = pd.DataFrame(found)
    alone = times.loc[times["where"] == "this process", "rows per s"].to_numpy()
    lines = []
    for name in CLUSTERS:
        ours = times[times["where"] == name]
        ratio = ours["rows per s"].to_numpy() / alone
        lines.append(
            {
                "where": name,
                **ours.drop(columns="where").median().to_dict(),
                "against this process": np.median(ratio),
                "least": ratio.min(),
                "largest": ratio.max(),
            }
        )
    print(pd.DataFrame(lines).round(3).to_markdown(index=False))
    record = {"experiment": experiment, "images": int(images), "n": p.certify.n, "images a task": p.tasks.certify}
    record |= {"rounds": ROUNDS, **models.machine(torch.device("cpu")), "cluster": lines}
    (ROOT / f"benchmarks/results/cluster-{experiment}.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
