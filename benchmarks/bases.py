"""What a basis costs beside the network, measured in turn in one run.

    python benchmarks/bases.py [rounds]

For an untrained ResNet-20 in bfloat16 on 32x32 colour images: seconds of `back` for a block of 100
images over those of the forward pass of as many, and seconds of votes in the basis over those in
pixels, in floating point and on the lattice (`exact=True`).
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from watch import Stopwatch

from ancer import Classifier, GaussianNoise
from ancer.bases import basis_named
from ancer.confidence.looks import BLOCK
from ancer.evaluation.arithmetic import machine
from ancer.models.networks import build
from ancer.smoothing import SmoothedClassifier

ROOT = Path(__file__).parents[1]
SHAPE = (3, 32, 32)
NAMES = ["dct4+colours", "dct8+means+colours", "haar+colours", "square+colours", "dct", "rotation"]
REPEATS = 20  # of `back` and of a forward pass in a round
N = 2000  # draws of votes


def costs(name: str, f: Classifier, rounds: int) -> dict:
    """One line: medians over the rounds, and the least and largest share of the forward pass."""
    basis = basis_named(name, SHAPE)
    x = torch.rand(1, *SHAPE).mul(255).round() / 255
    block = torch.rand(BLOCK, *SHAPE)
    theta = 0.25 + torch.rand(1, *SHAPE)
    shares = []
    ratios: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds + 1):
        with torch.inference_mode(), f.fixed_arithmetic():
            with Stopwatch() as back:
                for _ in range(REPEATS):
                    basis.back(block)
            with Stopwatch() as forward:
                for _ in range(REPEATS):
                    f(block)
        shares.append(back.seconds / forward.seconds)
        for exact, found in ratios.items():
            seconds = []
            for noise in (GaussianNoise(theta), GaussianNoise(theta, basis=basis)):
                g = SmoothedClassifier(f, noise, lattice=1 / 255 if exact else None)
                with Stopwatch() as watch:
                    g.counts(x, N, seed=0, purpose="predict")
                seconds.append(watch.seconds)
            found.append(seconds[1] / seconds[0])
    shares = shares[1:]  # the first warms up
    return {
        "basis": name,
        "back / forward": np.median(shares),
        "least": min(shares),
        "largest": max(shares),
        "us an image": 1e6 * back.seconds / REPEATS / BLOCK,
        "votes / those in pixels": np.median(ratios[False][1:]),
        "exact": np.median(ratios[True][1:]),
    }


def main(rounds: Annotated[int, typer.Argument()] = 7) -> None:
    f = Classifier(
        build("resnet20", 10),
        dtype="bfloat16",
        memory_format="channels_last",
        batch_size=200,
        fold=True,
    )
    lines = [costs(name, f, rounds) for name in NAMES]
    print(pd.DataFrame(lines).round(3).to_markdown(index=False))
    record = {"rounds": rounds, "n": N, **machine(f.device), "bases": lines}
    path = ROOT / "benchmarks/results/bases.json"
    path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
