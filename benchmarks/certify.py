"""What stopping rules save, and keep of the radius, in one run.

    python benchmarks/certify.py [images] [experiment]

Draws used and radius kept by each rule against N = 100,000 for every image, on a trained network
of the digits (run `dvc repro` first) at theta_iso: asked at planned looks, and asked ever so often
(`looks="always"`), as a confidence sequence allows. `Grid` is that of the profile's tables.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from watch import Stopwatch

from ancer import Grid, Hopeless, Improvement, Target, certify
from ancer.evaluation.arithmetic import machine
from ancer.workspace.experiment import Experiment

ROOT = Path(__file__).parents[1]
N = 100_000


def rules(f, x, noise, sigma: float, radii: list[float], **common) -> list[dict]:
    """One line a rule and way to ask it: draws and radius, also relative to the fixed N."""
    stops: dict[str, Any] = {"none (fixed N)": None, "Grid": Grid(radii)}
    stops |= {f"Improvement({eps})": Improvement(eps) for eps in (0.02, 0.05, 0.1)}
    stops |= {f"Target(radius={r:g} sigma)": Target(radius=r * sigma) for r in (0.5, 1, 2)}
    stops |= {f"Hopeless(radius={sigma / 2:g})": Hopeless(radius=sigma / 2)}
    lines = []
    fixed = None
    for name, stop in stops.items():
        for looks in ("planned", "always") if stop else ("planned",):
            with Stopwatch() as watch:
                found = certify(f, x, noise, n=N, stop=stop, looks=looks, **common)
            radii_found = np.array([c.radius for c in found])
            fixed = radii_found if fixed is None else fixed
            kept = radii_found[fixed > 0] / fixed[fixed > 0]
            draws = [c.n for c in found]
            line = {
                "stop": name,
                "looks": looks,
                "draws, mean": np.mean(draws),
                "draws, median": np.median(draws),
                "abstained": np.mean(radii_found == 0),
                "radius, mean": radii_found.mean(),
                "radius / fixed N, median": np.median(kept),
                "s per image": watch.seconds / len(x),
            }
            lines.append(line)
    return lines


def main(
    images: Annotated[int, typer.Argument()] = 40,
    name: Annotated[str, typer.Argument()] = "digits-l2-025",
) -> None:
    experiment = Experiment.open(name, profile=ROOT)
    data = experiment.some_data(images)
    theta = experiment.theta(data)["isotropic"]
    common = {
        "alpha": experiment.parameters.certify.alpha,
        "seed": experiment.parameters.seed,
        "indices": data.indices,
    }
    f = experiment.classifier
    noise = experiment.law.with_theta(theta)
    radii = experiment.parameters.tables.radii
    sigma = experiment.section.sigma
    record = {"experiment": name, "images": images, "n": N, **machine(f.device)}
    record["rules"] = rules(f, data.images, noise, sigma, radii, **common)
    print(pd.DataFrame(record["rules"]).round(4).to_markdown(index=False))
    path = ROOT / f"benchmarks/results/certify-{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
