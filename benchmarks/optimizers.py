"""The paper's optimizers against ours: mean radii and seconds an image, side by side in one run.

    python benchmarks/optimizers.py [images] [experiment]

Same trained digits network (run `dvc repro` first), same test images, same certification draws
(N = 10,000); the anisotropic optimizers of both also start from the same isotropic theta, so that
their steps compare alone.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from torch import Tensor
from watch import Stopwatch

import ancer
from ancer.evaluation.arithmetic import machine
from ancer.workspace.experiment import Experiment
from ancer.workspace.stages.certify import sampling

ROOT = Path(__file__).parents[1]


class Race:
    """theta and seconds of each optimizer, by name."""

    def __init__(self, experiment: Experiment, images: int):
        self.experiment = experiment
        self.data = experiment.some_data(images)
        self.law = type(experiment.law)
        self.theta = {"fixed": experiment.law.theta.expand(images)}
        self.seconds = {"fixed": 0.0}

    def run(self, name: str, optimize: Callable[..., Tensor], start: str, **options) -> None:
        """`optimize` from another's theta; its seconds count too."""
        with Stopwatch() as watch:
            self.theta[name] = optimize(
                self.experiment.classifier,
                self.data.images,
                self.law(self.theta[start]),
                seed=self.experiment.parameters.seed,
                indices=self.data.indices,
                **options,
            )
        self.seconds[name] = self.seconds[start] + watch.seconds

    def line(self, name: str) -> dict:
        """The means that a theta certifies, and the seconds that an image took."""
        certificates = ancer.certify(
            self.experiment.classifier,
            self.data.images,
            self.law(self.theta[name]),
            indices=self.data.indices,
            **{**sampling(self.experiment), "exact": False},
        )
        spent = self.seconds[name] / len(certificates)
        return {"theta": name, **certificates.summary(self.data.labels), "s per image": spent}


def main(
    images: Annotated[int, typer.Argument()] = 20,
    name: Annotated[str, typer.Argument()] = "digits-l2-025",
) -> None:
    experiment = Experiment.open(name, profile=ROOT)
    methods = experiment.methods
    race = Race(experiment, images)
    # what PyTorch loads once is nobody's time
    ancer.optimize_isotropic(
        experiment.classifier, race.data.images[:1], experiment.law, draws=1, seed=0
    )
    race.run("isotropic, paper", ancer.optimize_isotropic_paper, "fixed")
    ours = methods["isotropic"].options
    race.run("isotropic, ours", ancer.optimize_isotropic, "fixed", **ours)
    for origin in ("paper", "ours"):
        start = f"isotropic, {origin}"
        paper = ancer.optimize_anisotropic_paper
        race.run(f"anisotropic, paper, from {origin}", paper, start)
        ours = methods["anisotropic"].options
        race.run(f"anisotropic, ours, from {origin}", ancer.optimize_anisotropic, start, **ours)
    lines = [race.line(theta) for theta in race.theta]
    print(pd.DataFrame(lines).drop(columns="abstained").round(4).to_markdown(index=False))
    record = {"experiment": name, "images": images, **machine(experiment.classifier.device)}
    text = json.dumps({**record, "lines": lines}, indent=2)
    (ROOT / f"benchmarks/results/optimizers-{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    typer.run(main)
