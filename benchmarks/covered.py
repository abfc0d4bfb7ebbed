"""Whether the class holds where it is proved to: fresh draws at covered severities.

    python benchmarks/covered.py [profile] [experiment] [draws]

For each certified image, method and family of perturbations: the image at the strongest covered
severity, and the share of fresh noisy copies (with the theta of the unperturbed image) that get the
certified class. The smoothed classifier's answer is the class that leads: where it does, it holds.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer

from ancer.evaluation.arithmetic import machine
from ancer.smoothing import SmoothedClassifier
from ancer.workspace.experiment import Experiment
from ancer.workspace.stages.coverage import families_of
from ancer.workspace.stages.memory import certificates

ROOT = Path(__file__).parents[1]


def held(e: Experiment, method: str, covered: pd.DataFrame, draws: int) -> dict:
    """One line: how many (image, family) there are, and the shares of the certified class."""
    shares, leads, distances = [], [], []
    alone = covered[(covered["answer"] == "certificate alone") & (covered["method"] == method)]
    severities = alone.set_index("idx")
    for certificate, _ in certificates(e, method):
        if certificate.region is None:
            continue
        image = certificate.center[None]
        moved = []
        for name, family in families_of(e).items():
            severity = severities.loc[certificate.index, name]
            if severity > 0:
                moved.append(family(image, severity))
        if not moved:
            continue
        x = torch.cat(moved)
        noise = e.law.in_basis(certificate.basis).with_theta(certificate.theta[None].float())
        smoothed = SmoothedClassifier(e.classifier, noise)
        votes = smoothed.counts(x, draws, seed=e.parameters.seed + 1, purpose="predict")
        shares += (votes[:, certificate.prediction].double() / draws).tolist()
        leads += (votes.argmax(dim=1) == certificate.prediction).tolist()
        distances += (x - image).flatten(1).norm(dim=1).tolist()
    found = np.array(shares)
    return {
        "method": e.methods[method].label,
        "pictures": len(found),
        "leads": float(np.mean(leads)),
        "least share": float(found.min()),
        "5 % below": float(np.quantile(found, 0.05)),
        "mean share": float(found.mean()),
        "largest l2 distance": float(np.max(distances)),
    }


def main(
    profile: Annotated[str, typer.Argument()] = ".",
    name: Annotated[str, typer.Argument()] = "digits-l2-025",
    draws: Annotated[int, typer.Argument()] = 200,
) -> None:
    e = Experiment.open(name, profile=ROOT / profile)
    covered = pd.read_csv(e.profile.results("coverage") / f"{e.name}.csv")
    certified = e.certified_methods.values()
    methods = [m.name for m in certified if m.best_of is None and m.images is None]
    lines = [held(e, method, covered, draws) for method in methods]
    print(pd.DataFrame(lines).round(3).to_markdown(index=False))
    record = {"experiment": name, "draws": draws, **machine(e.classifier.device), "lines": lines}
    path = ROOT / f"benchmarks/results/covered-{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
