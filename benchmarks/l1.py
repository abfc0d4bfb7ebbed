"""l1 with and without chance: additive uniform noise on the images that random splits certified.

    dvc --cd profiles/cifar10 pull train@cifar10-uniform-05   # the network of the additive noise
    python benchmarks/l1.py [images]

Splits: the rows of profiles/cifar10-l1. Additive noise: chosen and certified here as
profiles/cifar10 says, but for `Grid`: drawing stops when it is decided between which two of the
radii an image lies, so accuracies are those of all draws and ACR is a lower bound. Then seconds an
image, of the same network, for all draws of either. Written to benchmarks/results/l1.json.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from tqdm import tqdm
from watch import Stopwatch

from ancer import Grid, certify, measures
from ancer.certificates.many import Certificates
from ancer.evaluation.arithmetic import machine
from ancer.noise.law import Noise
from ancer.noise.splitting import SplittingNoise
from ancer.workspace.experiment import Experiment
from ancer.workspace.notebooks import chunked
from ancer.workspace.stages.certify import sampling
from ancer.workspace.stages.optimize import propose

ROOT = Path(__file__).parents[1]
RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
TIMED = 4  # images
ROUNDS = 5


def additive(e: Experiment, n: int) -> dict[str, pd.DataFrame]:
    """Certificates of each method with additive noise, as a table."""
    found: dict[str, list] = defaultdict(list)
    chosen = e.chosen_methods
    bases = e.bases(chosen)
    budget = {**sampling(e), "n": n, "stop": Grid(RADII)}
    chunks = chunked(e.data.indices, e.parameters.tasks.optimize)
    for chunk in tqdm(chunks):
        x = e.data.take(chunk).images
        methods = [(method, len(chunk)) for method in chosen.values()]
        seed = e.parameters.seed
        proposal = propose(e.classifier, x, e.law, chunk, methods, bases, {}, seed)
        noises = {"fixed": e.law}
        for name, theta in proposal.theta.items():
            noises[name] = e.law.with_theta(theta)
        for name, noise in noises.items():
            found[name] += certify(e.classifier, x, noise, indices=chunk, **budget)
    labels = e.data.labels
    return {name: Certificates(those).to_frame(labels) for name, those in found.items()}


def line(noise: str, method: str, rows: pd.DataFrame) -> dict[str, Any]:
    """Passes, accuracy and radii of a table of certificates."""
    found = {"noise": noise, "method": method, "images": len(rows), "passes": rows["n"].mean()}
    found["ACR"] = measures.average_certified_radius(rows)
    shares = measures.certified_accuracy(rows, RADII)
    return found | dict(zip(map("r = {:g}".format, RADII), shares.tolist(), strict=True))


def seconds(e: Experiment, splits: Noise, n: int) -> dict[str, Any]:
    """Seconds an image with all draws of additive noise and with all splits, taken in turn."""
    data = e.data.take(e.data.indices[:TIMED])
    spent: dict[str, list[float]] = {"additive": [], "splits": []}
    for _ in range(ROUNDS):
        for name, noise in (("additive", e.law), ("splits", splits)):
            with Stopwatch() as watch:
                certify(e.classifier, data.images, noise, **{**sampling(e), "n": n})
            spent[name].append(watch.seconds / TIMED)
    table = pd.DataFrame(spent)
    share = table["splits"] / table["additive"]
    ends = {"median share": share.median(), "least": share.min(), "largest": share.max()}
    return {**table.median().to_dict(), **ends, "images": TIMED, "rounds": ROUNDS}


def main(images: Annotated[int, typer.Argument()] = 200) -> None:
    torch.set_num_threads(2)
    e = Experiment.open("cifar10-uniform-05", profile=ROOT / "profiles/cifar10", images=images)
    of_splits = Experiment.open("cifar10-splits-1", profile=ROOT / "profiles/cifar10-l1")
    n = e.parameters.certify.n
    rows = of_splits.rows()
    rows = rows[rows["idx"].isin(e.data.indices)]
    lines = []
    for method, group in rows.groupby("method", sort=False):
        lines.append(line("splits", str(method), group))
    for method, table in additive(e, n).items():
        lines.append(line("additive", method, table))
    print(pd.DataFrame(lines).round(3).to_markdown(index=False))
    record = {"n": n, **machine(e.classifier.device), "lines": lines}
    splits = SplittingNoise.from_sigma(of_splits.section.sigma, lattice=e.data.lattice)
    record["seconds an image"] = seconds(e, splits, n)
    print(record["seconds an image"])
    path = ROOT / "benchmarks/results/l1.json"
    path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
