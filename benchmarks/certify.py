"""Stopping rules and the exact sampler, measured side by side in one run.

    python benchmarks/certify.py [images] [experiment]

1. Draws used and radius kept by each rule, against N = 100,000 for every image, on the trained
digits network (run
   `dvc repro` first) at theta_iso.
2. Seconds of `exact=True` over seconds of the plain sampler, alternating, for the digits network (n
= 64) and an
   untrained ResNet-18 on 32x32 colour images (n = 3,072), and for the samplers alone.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torchvision
from watch import Stopwatch

from ancer import Classifier, GaussianNoise, Hopeless, Improvement, Target, UniformNoise, certify
from ancer.datasets.loading import load
from ancer.evaluation.arithmetic import machine
from ancer.models.networks import build
from ancer.streams import unit_draws
from ancer.workspace.experiment import Experiment

ROOT = Path(__file__).parents[1]
N = 100_000


def rules(f, x, law, theta, sigma: float, **common) -> list[dict]:
    """One line a rule: draws, gap and radius, each also relative to the fixed N."""
    stops = {"none (fixed N)": None}
    stops |= {f"Improvement({eps})": Improvement(eps) for eps in (0.02, 0.05, 0.1)}
    stops |= {f"Target(radius={r:g} sigma)": Target(radius=r * sigma) for r in (0.5, 1, 2)}
    stops |= {f"Hopeless(radius={sigma / 2:g})": Hopeless(radius=sigma / 2)}
    lines, fixed = [], None
    for name, stop in stops.items():
        with Stopwatch() as watch:
            certificates = certify(f, x, law(theta), n=N, stop=stop, **common)
        radii = np.array([c.radius for c in certificates])
        fixed = radii if fixed is None else fixed
        kept = radii[fixed > 0] / fixed[fixed > 0]
        lines.append(
            {
                "stop": name,
                "draws, mean": np.mean([c.n for c in certificates]),
                "draws, median": np.median([c.n for c in certificates]),
                "abstained": np.mean(radii == 0),
                "radius, mean": radii.mean(),
                "radius / fixed N, median": np.median(kept),
                "s per image": watch.seconds / len(x),
            }
        )
    return lines


def exact(repeats: int = 7) -> list[dict]:
    """Seconds of the exact sampler over those of the plain one.

    Median, least and largest of `repeats` pairs.
    """
    digits, colour = (
        load("digits", images=20).images,
        torch.randint(0, 256, (2, 3, 32, 32)).float() / 255,
    )
    resnet = torchvision.models.resnet18(num_classes=10)
    fast = {"dtype": "bfloat16", "memory_format": "channels_last", "batch_size": 500}
    cases = {
        "digits CNN, float32": (Classifier(build("digits_cnn", 10)), digits, 1 / 16, 10_000),
        "ResNet-18, bfloat16, 32x32": (Classifier(resnet, **fast), colour, 1 / 255, 1_000),
        "sampler alone, 32x32": (None, colour, 1 / 255, 1_000),
    }
    lines = []
    for case, (f, x, lattice, n) in cases.items():
        for law in (GaussianNoise, UniformNoise):
            theta = law.from_sigma(torch.rand(x.shape) + 0.1)
            spent = {True: [], False: []}
            for _ in range(repeats):
                for is_exact, times in spent.items():
                    with Stopwatch() as watch:
                        if f is None:
                            step, dtype = (
                                (lattice, torch.float64) if is_exact else (None, torch.float32)
                            )
                            streams = [torch.Generator().manual_seed(i) for i in range(len(x))]
                            scale = theta.theta_for(x, step)
                            for _ in range(0, n, 100):
                                z = unit_draws(theta, (100, *x.shape[1:]), streams, dtype)
                                theta.around(x[:, None], scale[:, None], z, step)
                        else:
                            certify(
                                f,
                                x,
                                theta,
                                n=n,
                                alpha=0.001,
                                seed=0,
                                exact=is_exact,
                                lattice=lattice,
                            )
                    times.append(watch.seconds)
            ratio = np.array(spent[True][1:]) / np.array(
                spent[False][1:]
            )  # the first pair warms up
            ratios = {
                "exact / plain": np.median(ratio),
                "least": ratio.min(),
                "largest": ratio.max(),
            }
            per_draw = np.median(spent[False]) / len(x) / n
            lines.append(
                {
                    "case": case,
                    "noise": law.__name__,
                    **ratios,
                    "plain, us per draw": 1e6 * per_draw,
                }
            )
    return lines


def main(images: int = 40, name: str = "digits-l2-025") -> None:
    experiment = Experiment.open(name, profile=ROOT)
    data = experiment.some_data(images)
    theta = experiment.theta(data)["isotropic"]
    common = {
        "alpha": experiment.parameters.certify.alpha,
        "seed": experiment.parameters.seed,
        "indices": data.indices,
    }
    f = experiment.classifier
    law = type(experiment.law)
    record = {"experiment": name, "images": images, "n": N, **machine(f.device)}
    record["rules"] = rules(f, data.images, law, theta, experiment.section.sigma, **common)
    record["exact"] = exact()
    for part in ("rules", "exact"):
        print(pd.DataFrame(record[part]).round(4).to_markdown(index=False), end="\n\n")
    path = ROOT / f"benchmarks/results/certify-{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main(*[int(a) if a.isdigit() else a for a in sys.argv[1:]])
