"""Certifying by the workers of a cluster on this machine, against one process with one thread, side
by side in one run.

    python benchmarks/cluster.py [experiment] [profile] [images]

Run `dvc repro` of the profile first. Each round takes this process, one worker and two workers in
turn: rows per second once the workers run, seconds until the first has the network, and
milliseconds of a task that does nothing."""

import json
import os
import time
from pathlib import Path
from typing import Annotated

os.environ["OMP_NUM_THREADS"] = "1"  # as Dask's workers have

import numpy as np
import pandas as pd
import torch
import typer
from watch import Stopwatch

from ancer.datasets.dataset import Dataset
from ancer.evaluation.arithmetic import machine
from ancer.workspace.cluster import workers
from ancer.workspace.experiment import Experiment
from ancer.workspace.notebooks import chunked
from ancer.workspace.stages.certify import certified_rows, sampling
from ancer.workspace.tasks import Network, call, describe

ROOT = Path(__file__).parents[1]
CLUSTERS = {"this process": {}, "one worker": {"local": 1}, "two workers": {"local": 2}}
ROUNDS = 5


def tasks(experiment: Experiment, data: Dataset, images: int) -> list[tuple]:
    """Certify a few images at a time."""
    budget = sampling(experiment)
    method = experiment.methods["anisotropic"]
    theta_file = experiment.file("theta")
    needed = list(experiment.methods.chain(method.name))
    bases = experiment.bases([method.name])
    found: list[tuple] = []
    for chunk in chunked(data.indices, images):
        task = (data.take(chunk), method, experiment.law, theta_file, needed, bases, budget)
        found.append((certified_rows, *task))
    return found


def measure(cluster: dict, network: Network, experiment: Experiment, data: Dataset) -> dict:
    """Rows per second, seconds until the first answer, and milliseconds of an empty task."""
    first = tasks(experiment, data.take(data.indices[:8]), 1)
    whole = tasks(experiment, data, experiment.parameters.tasks.certify)
    began = time.perf_counter()
    with workers(cluster) as run:
        (setting,) = run(describe, [(network,)])
        ready = time.perf_counter() - began
        # every worker has imported and loaded all
        list(run(call, [(network, setting, *task) for task in first]))
        with Stopwatch() as watch:
            found = list(run(call, [(network, setting, *task) for task in whole]))
        with Stopwatch() as empty:
            list(run(len, [((),)] * 500))
    rate = sum(len(rows) for rows, _ in found) / watch.seconds
    return {"rows per s": rate, "start-up, s": ready, "empty task, ms": 1e3 * empty.seconds / 500}


def main(
    name: Annotated[str, typer.Argument()] = "digits-l2-025",
    profile: Annotated[str, typer.Argument()] = ".",
    images: Annotated[int, typer.Argument()] = 200,
) -> None:
    experiment = Experiment.open(name, profile=ROOT / profile)
    parameters = experiment.parameters
    data = experiment.some_data(images)
    network = Network.of(
        experiment.file("checkpoint"),
        experiment.section.arch,
        data,
        parameters.evaluate.model_dump(),
    )
    found = []
    for _ in range(ROUNDS):
        for where, cluster in CLUSTERS.items():
            found.append({"where": where, **measure(cluster, network, experiment, data)})
    times = pd.DataFrame(found)
    alone = times.loc[times["where"] == "this process", "rows per s"].to_numpy()
    lines = []
    for where in CLUSTERS:
        ours = times[times["where"] == where]
        ratio = ours["rows per s"].to_numpy() / alone
        line = {
            "where": where,
            **ours.drop(columns="where").median().to_dict(),
            "against this process": np.median(ratio),
            "least": ratio.min(),
            "largest": ratio.max(),
        }
        lines.append(line)
    print(pd.DataFrame(lines).round(3).to_markdown(index=False))
    record = {
        "experiment": name,
        "images": images,
        "n": parameters.certify.n,
        "images a task": parameters.tasks.certify,
        "rounds": ROUNDS,
        **machine(torch.device("cpu")),
        "cluster": lines,
    }
    path = ROOT / f"benchmarks/results/cluster-{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
