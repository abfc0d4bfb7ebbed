"""Speed at radii that are not lower: this project, the published code and ART, in one run.

    make speed                                               # both, with the pipeline's settings
    python benchmarks/speed.py digits [images] [published]   # run `dvc repro` first
    python benchmarks/speed.py cifar10 [images] [published]

The published isotropic optimizer takes seconds (digits) to minutes (CIFAR-10) an image: it runs on
the first `published` images, and every comparison with it is on those. Sections:

a, d. seconds an image to optimize and to certify, and the radii;
b. votes per second against the bare forward pass;
c. against ART;
e. growth with images and draws, peak memory.

The published code and ART get the network as their authors run it, float32 and contiguous; the
published code gets probabilities, and batches of 1,000 to certify. "default process" is without our
process settings (memory, threads; `cluster.PROCESS`), as their users run them: the published code
on a quarter of those images, ART on all. Ours runs as the profile says, with the network that is
there (`dvc --cd profiles/cifar10 pull train@cifar10-gaussian-025`).
"""

import json
import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import peers
import torch
import typer
from forward import against_bare, bare
from torch import nn
from watch import Stopwatch

from ancer import (
    ABSTAIN,
    Classifier,
    GaussianNoise,
    Region,
    certify,
    measures,
    optimize_anisotropic,
    optimize_isotropic,
)
from ancer.bases import basis_named
from ancer.datasets.dataset import Dataset
from ancer.datasets.loading import load
from ancer.evaluation.arithmetic import machine
from ancer.workspace.cluster import PROCESS
from ancer.workspace.experiment import Experiment

ROOT = Path(__file__).parents[1]
ALPHA = 0.001
SEED = 0
SIGMA = 0.25
LAW = GaussianNoise
# n: draws of a certificate; draws: of the measurements b and e; quick: what radii like the
# published ones take, its evaluate on top of the experiment's
CASES: dict[str, dict[str, Any]] = {
    "digits": {
        "experiment": ("digits-l2-025", "."),
        "n": 10_000,
        "draws": 10_000,
        "basis": "dct8",
        "quick": {
            "n": 1_500,
            "evaluate": {"dtype": "bfloat16"},
            "search": {"draws": 50, "scales": (0.5, 0.71, 1, 1.41, 2)},
            "ascent": {
                "iterations": 36,
                "draws": 12,
                "step": 0.5,
                "search_draws": 50,
                "tolerance": 0.0,
            },
        },
    },
    "cifar10": {
        "experiment": ("cifar10-gaussian-025", "profiles/cifar10"),
        "n": 4_000,
        "draws": 500,
        "basis": "dct8+means+colours",
        "quick": {
            "n": 1_000,
            "evaluate": {},
            "search": {"draws": 50},
            "ascent": {
                "iterations": 30,
                "step": 0.5,
                "window": 3,
                "search_draws": 50,
                "tolerance": 0.0,
            },
        },
    },
}


class Probabilities(nn.Module):
    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x).softmax(dim=1)


def problem(name: str, images: int) -> tuple[dict, nn.Module, Dataset]:
    """A case with the settings of its experiment, the trained network and `images` test images."""
    case = CASES[name]
    experiment, profile = case["experiment"]
    e = Experiment.open(experiment, profile=ROOT / profile)
    every = 10_000 // images if name == "cifar10" else 1
    data = load(e.section.dataset, ROOT / profile, images=images, every=every)
    options = {}
    for what, method in (("search", "isotropic"), ("ascent", "anisotropic")):
        given = e.methods[method].options
        options[what] = {key: given[key] for key in given if key not in ("n", "alpha")}
    settings = {"evaluate": e.parameters.evaluate.model_dump(), "lattice": e.lattice}
    return case | settings | options, e.network(), data


def line(
    name: str, found: list[tuple[int, Region | None]], labels, optimize: float, spent: float
) -> dict:
    """The means of the tables and seconds an image.

    Found: class and certified region of each image.
    """
    prediction, regions = zip(*found, strict=True)
    radii = {
        by: [getattr(region, by) if region else 0.0 for region in regions]
        for by in measures.MEANS.values()
    }
    rows = pd.DataFrame({"correct": np.array(prediction) == labels[: len(found)].numpy(), **radii})
    return {
        "theta": name,
        "images": len(rows),
        "accuracy": rows["correct"].mean(),
        **{
            mean: measures.average_certified_radius(rows, by=by)
            for mean, by in measures.MEANS.items()
        },
        "optimize [s]": optimize / len(rows),
        "certify [s]": spent / len(rows),
        "total [s]": (optimize + spent) / len(rows),
    }


def ours(name: str, f, x, labels, theta, n: int, optimize: float = 0.0) -> dict:
    """A line certified by this project."""
    with Stopwatch() as watch:
        found = certify(f, x, LAW(theta), n=n, alpha=ALPHA, seed=SEED)
    return line(name, [(c.prediction, c.region) for c in found], labels, optimize, watch.seconds)


def theirs(name: str, dds, network, x, labels, theta, n: int, optimize: float) -> dict:
    """A line certified by the published code, image after image."""
    found = []
    where = x.device.type
    smooth = dds.smooth.Smooth(network, 10, None, dds.certificate.L2Certificate(1, device=where))
    with Stopwatch() as watch:
        for image, t in zip(x, theta, strict=True):
            smooth.sigma = t
            found.append(smooth.certify(image, 100, n, ALPHA, 1000, device=where))
    found = [
        (
            prediction,
            None if prediction == ABSTAIN else Region(image.double(), t.double() * gap, LAW.norm),
        )
        for image, t, (prediction, gap) in zip(x, theta, found, strict=True)
    ]
    return line(name, found, labels, optimize, watch.seconds)


def quick_theta(f, x, quick: dict) -> torch.Tensor:
    """Our theta from few draws and steps, for certificates of few draws."""
    common = {"seed": SEED, "n": quick["n"], "alpha": ALPHA}
    isotropic = optimize_isotropic(f, x, LAW(SIGMA), **quick["search"], **common)
    return optimize_anisotropic(f, x, LAW(isotropic), **quick["ascent"], **common)


def published_code(network, f, fast, x, labels, case: dict, first: int) -> list[dict]:
    """a and d: the published optimizers and certification against ours, and fixed sigmas, on the
    first images.

    f: our classifier; fast: that of the quick settings."""
    n, few, few_labels = case["n"], x[:first], labels[:first]
    lines, search = published_isotropic(network, few, few_labels, n)
    lines += published_ancer(network, few, few_labels, n, *search)
    for images in sorted({first, len(x)}):
        part, part_labels, common = (
            x[:images],
            labels[:images],
            {"seed": SEED, "n": n, "alpha": ALPHA},
        )
        fixed = [
            ours(f"fixed {s:.3g}", f, part, part_labels, float(s), n)
            for s in np.geomspace(0.125, 0.5, 5)
        ]
        lines.append(next(entry for entry in fixed if entry["theta"] == f"fixed {SIGMA:.3g}"))
        lines.append(
            max(fixed, key=lambda entry: entry["ACR"]) | {"theta": "fixed, best of five sigmas"}
        )
        with Stopwatch() as watch:
            isotropic = optimize_isotropic(f, part, LAW(SIGMA), **case["search"], **common)
        search = isotropic, watch.seconds
        lines.append(ours("isotropic, ours", f, part, part_labels, isotropic, n, search[1]))
        with Stopwatch() as watch:
            theta = optimize_anisotropic(f, part, LAW(isotropic), **case["ascent"], **common)
        lines.append(
            ours("anisotropic, ours", f, part, part_labels, theta, n, search[1] + watch.seconds)
        )
        with Stopwatch() as watch:
            theta = quick_theta(fast, part, case["quick"])
        few_draws = case["quick"]["n"]
        lines.append(
            ours(
                "anisotropic, ours, quick", fast, part, part_labels, theta, few_draws, watch.seconds
            )
        )
        lines += published_ancer(
            network, part, part_labels, n, *search, name=", from our isotropic"
        )
    return lines


def published_isotropic(network, x, labels, n: int) -> tuple[list[dict], tuple]:
    """A line, and its sigma and seconds."""
    _, dds, _ = peers.load()
    with Stopwatch() as watch:
        certificate = dds.certificate.L2Certificate(1, device=x.device.type)
        start = torch.full((len(x),), SIGMA, device=x.device)
        sigma = dds.optimize_isotropic_dds(
            network, x, certificate, 0.04, start, 900, 100, device=x.device.type
        ).detach()
    name = "isotropic, published"
    return [theirs(name, dds, network, x, labels, _like(x, sigma), n, watch.seconds)], (
        sigma,
        watch.seconds,
    )


def published_ancer(
    network, x, labels, n: int, isotropic, before: float, name: str = ""
) -> list[dict]:
    """A line; before: seconds that the isotropic start took."""
    published, dds, _ = peers.load()
    with Stopwatch() as watch:
        certificate = dds.certificate.L2Certificate(1, device=x.device.type)
        theta = published.optimize_ancer(
            network,
            x,
            certificate,
            0.04,
            _like(x, isotropic),
            100,
            100,
            2.0,
            device=x.device.type,
        ).detach()
    return [
        theirs(
            f"anisotropic, published{name}",
            dds,
            network,
            x,
            labels,
            theta,
            n,
            before + watch.seconds,
        )
    ]


def default_process(what: str, name: str, images: int, first: int) -> list[dict]:
    """The lines of `what` ("published" or "art") in a process that has none of our settings, as its
    users run it.
    """
    environment = {key: value for key, value in os.environ.items() if key not in PROCESS}
    command = [sys.executable, __file__, what, name, str(images), str(first)]
    printed = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    ).stdout
    lines = json.loads(printed.splitlines()[-1])
    return [
        {key: f"{v}, default process" if isinstance(v, str) else v for key, v in line.items()}
        for line in lines
    ]


def _like(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return sigma.reshape(-1, *[1] * (x.dim() - 1)).expand_as(x).contiguous()


def throughput(network, x, case: dict, repeats: int = 7) -> list[dict]:
    """b: votes per second over rows per second of the bare forward pass, at the layout and batch
    that suit it best: noise in floating point, on the lattice, and in a basis on its lattice.

    A task of 16 images, which share it.
    """
    lines = []
    x = x[:16]
    n = case["draws"]
    rows = len(x) * n
    shape = tuple(x.shape[1:])
    basis = basis_named(case["basis"], shape)
    theta = torch.full((1, *shape), SIGMA)
    lattice = case["lattice"]
    samplers = {
        "plain": (LAW(SIGMA), {}),
        "exact": (LAW(SIGMA), {"lattice": lattice}),
        f"exact, {case['basis']}": (LAW(theta, basis=basis), {"lattice": lattice}),
        "exact, each its own": (LAW(SIGMA), {"lattice": lattice, "shared": False}),
    }
    for dtype in ("float32", "bfloat16"):
        choices = [
            Classifier(network, dtype=dtype, memory_format=layout, batch_size=size, fold=True)
            for layout in ("contiguous_format", "channels_last")
            for size in (100, 200, 500, 1000, 2000)
        ]
        f = max(choices, key=lambda f: min(bare(f, shape, rows), bare(f, shape, rows)))
        layout = str(f.memory_format).removeprefix("torch.")
        for name, (noise, sampler) in samplers.items():
            line = {"dtype": dtype, "layout": layout, "batch": f.batch_size, "sampler": name}
            lines.append(line | against_bare(f, x, noise, n=n, rounds=repeats, **sampler))
    return lines


def timed(function, repeats: int = 3) -> tuple:
    """What `function` returns, and the median of its seconds."""
    spent = []
    for _ in range(repeats):
        with Stopwatch() as watch:
            found = function()
        spent.append(watch.seconds)
    return found, np.median(spent)


def art(network, x, labels, n: int) -> dict:
    """ART's line."""
    _, _, Art = peers.load()
    options = {"sample_size": 100, "scale": SIGMA, "alpha": ALPHA, "device_type": "cpu"}
    smoothed = Art(network, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, **options)
    (prediction, radius), seconds = timed(lambda: smoothed.certify(x.numpy(), n, batch_size=1000))
    means = {"accuracy": np.mean(prediction == labels.numpy()), "mean radius": np.mean(radius)}
    return {"who": "ART, float32", "n": n, **means, "s per image": seconds / len(x)}


def against_art(network, f, fast, x, labels, case: dict, others: list[dict]) -> list[dict]:
    """c: the same fixed sigma and N; the fewest draws with which our isotropic theta has ART's mean
    radius; quick.

    f: our classifier; fast: that of the quick settings; others: lines of ART's to compare with
    too."""
    n = case["n"]
    arts = [art(network, x, labels, n), *others]
    lines = [*arts]

    def compare(name: str, f, draws: int, optimize=lambda: SIGMA) -> float:
        found, seconds = timed(
            lambda: certify(f, x, LAW(optimize()), n=draws, alpha=ALPHA, seed=SEED)
        )
        mean = np.mean([c.radius for c in found])
        accuracy = np.mean([c.prediction == y for c, y in zip(found, labels.tolist(), strict=True)])
        columns = {"accuracy": accuracy, "mean radius": mean, "s per image": seconds / len(x)}
        lines.append({"who": name, "n": draws, **columns})
        return mean

    compare("ours, float32 as ART", Classifier(network, batch_size=f.batch_size), n)
    compare("ours", f, n)
    for draws in (n // 20, n // 10, n // 5, n // 2, n):
        search = partial(optimize_isotropic, f, x, LAW(SIGMA), n=draws, seed=SEED, draws=100)
        if compare("ours, isotropic search", f, draws, search) >= arts[0]["mean radius"]:
            break
    compare(
        "ours, anisotropic, quick",
        fast,
        case["quick"]["n"],
        partial(quick_theta, fast, x, case["quick"]),
    )
    return [
        entry | {f"{a['who']} / this": a["s per image"] / entry["s per image"] for a in arts}
        for entry in lines
    ]


def growth(name: str, f, x, n: int) -> dict:
    """e: seconds against images and draws (exponents of a log-log fit), and peak memory of two
    numbers of draws.
    """
    spent = {}
    for images, draws in [(4, n), (8, n), (16, n), (8, n // 4), (8, n // 2), (8, 2 * n)]:
        times = []
        for _ in range(3):
            with Stopwatch() as watch:
                certify(f, x[:images], LAW(SIGMA), n=draws, alpha=ALPHA, seed=SEED)
            times.append(watch.seconds)
        spent[images, draws] = min(times)
    by_images = np.polyfit(np.log([4, 8, 16]), np.log([spent[k, n] for k in (4, 8, 16)]), 1)[0]
    numbers = [n // 4, n // 2, n, 2 * n]
    by_draws = np.polyfit(np.log(numbers), np.log([spent[8, d] for d in numbers]), 1)[0]
    peak = {}
    for draws in (n, 10 * n):
        command = [sys.executable, __file__, "peak", name, str(draws)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peak[draws] = int(printed.split()[-1]) // 1024
    return {
        "exponent of images": by_images,
        "exponent of draws": by_draws,
        "peak memory [MiB] by draws": peak,
    }


def main(
    name: Annotated[str, typer.Argument()] = "digits",
    images: Annotated[int, typer.Argument()] = 64,
    published: Annotated[int, typer.Argument()] = 16,
) -> None:
    case, network, data = problem(name, images)
    x, labels = data.images, data.labels
    f = Classifier(network, **case["evaluate"])
    fast = Classifier(network, **(case["evaluate"] | case["quick"]["evaluate"]))
    float32 = Classifier(network).module  # frozen and in eval mode, for the others
    for classifier in (f, fast):  # what PyTorch loads once is nobody's time
        optimize_anisotropic(classifier, x[:1], LAW(SIGMA), seed=SEED, iterations=1)
    record = {"case": name, **machine(f.device), **case}
    record["b"] = throughput(network, x, case)
    others = default_process("art", name, images, published)
    record["c"] = against_art(float32, f, fast, x[:published], labels[:published], case, others)
    record["e"] = growth(name, f, x, case["draws"])
    record["a, d"] = published_code(Probabilities(float32), f, fast, x, labels, case, published)
    record["a, d"] += (
        default_process("published", name, images, published // 4) if published >= 4 else []
    )
    for part in ("a, d", "b", "c"):
        print(pd.DataFrame(record[part]).round(4).to_markdown(index=False), end="\n\n")
    print(record["e"])
    path = ROOT / f"benchmarks/results/speed-{name}.json"
    path.write_text(json.dumps(record, indent=2, default=float) + "\n")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["peak"]:
        case, network, data = problem(arguments[1], 4)
        f = Classifier(network, **case["evaluate"])
        certify(f, data.images, LAW(SIGMA), n=int(arguments[2]), alpha=ALPHA, seed=SEED)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    elif arguments[:1] in (["published"], ["art"]):
        what, name, images, first = arguments
        case, network, data = problem(name, int(images))
        network = Classifier(network).module
        count = int(first)
        few = data.images[:count], data.labels[:count], case["n"]
        if what == "art":
            lines = [art(network, *few)]
        else:
            lines, search = published_isotropic(Probabilities(network), *few)
            lines += published_ancer(Probabilities(network), *few, *search)
        print(json.dumps(lines, default=float))
    else:
        typer.run(main)
