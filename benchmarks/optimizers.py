"""The paper's optimizers against ours: ACR, AC-proxy-R, AC-box-R and seconds an image, side by side in one run.

    python benchmarks/optimizers.py [images] [experiment]

Same trained digits network (run `dvc repro` first), same test images, same certification draws (N = 10,000); the
anisotropic optimizers of both also start from the same isotropic theta, so that their steps compare alone.
"""

import json
import sys
from pathlib import Path

import pandas as pd

from ancer import datasets, models, noise, results, store
from ancer.certification import certify
from ancer.optimization import (
    optimize_anisotropic,
    optimize_anisotropic_paper,
    optimize_isotropic,
    optimize_isotropic_paper,
)
from ancer.pipeline import load_parameters
from ancer.rows import row

ROOT = Path(__file__).parents[1]


def main(images: int = 20, experiment: str = "digits-l2-0.25") -> None:
    p = load_parameters(experiment, profile=ROOT)
    e, data = p.experiment, datasets.load(p.experiment.dataset, ROOT, images=images)
    indices = data.index.tolist()
    x, law = data.images, noise.LAWS[e.noise]
    start = law.from_sigma(e.sigma)
    f = models.Classifier(models.load(ROOT / f"data/checkpoints/{experiment}.safetensors"), **vars(p.evaluate))
    common = {"seed": p.seed, "indices": indices}
    theta, seconds = {"fixed": start.theta.expand(images)}, {"fixed": 0.0}
    optimize_isotropic(f, x[:1], start, draws=1, seed=p.seed)  # what PyTorch loads once is nobody's time

    def run(name, optimizer, begin, before=0.0, **more):
        with store.Stopwatch() as watch:
            theta[name] = optimizer(f, x, begin, **common, **more)
        seconds[name] = before + watch.seconds

    run("isotropic, paper", optimize_isotropic_paper, start)
    run("isotropic, ours", optimize_isotropic, start, draws=p.optimize.search_draws)
    for origin in ("paper", "ours"):
        begin, before = law(theta[f"isotropic, {origin}"]), seconds[f"isotropic, {origin}"]
        run(f"anisotropic, paper, from {origin}", optimize_anisotropic_paper, begin, before)
        run(
            f"anisotropic, ours, from {origin}", optimize_anisotropic, begin, before,
            iterations=p.optimize.iterations, draws=p.optimize.draws, step=p.optimize.step, kappa=p.optimize.kappa,
            outside=p.optimize.outside, temperature=e.temperature, window=p.optimize.window,
            enlarge=p.optimize.enlarge, tolerance=p.optimize.tolerance, search_draws=p.optimize.search_draws,
        )  # fmt: skip

    lines = []
    for name, values in theta.items():
        certificates = certify(f, x, law(values), n=p.certify.n, n0=p.certify.n0, alpha=p.certify.alpha, **common)
        labels = data.labels.tolist()
        rows = [
            row(c, method=name, label=y, seed=p.seed, draws=c.n)
            for c, y in zip(certificates, labels, strict=True)
        ]
        lines.append({"theta": name, **results.summary(pd.DataFrame(rows)), "s per image": seconds[name] / images})
    print(pd.DataFrame(lines).drop(columns="abstained").round(4).to_markdown(index=False))
    record = {"experiment": experiment, "images": images, **models.machine(f.device), "lines": lines}
    (ROOT / f"benchmarks/results/optimizers-{experiment}.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main(*[int(a) if a.isdigit() else a for a in sys.argv[1:]])
