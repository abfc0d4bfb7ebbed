"""What a card gives: votes against the bare forward pass, and seconds against the published code.

    make gpu        # installs, runs the tests marked gpu, then this
    python benchmarks/gpu.py [images]

Networks of random weights (speed does not depend on them): ResNet-18 for 32x32 and ResNet-50 for
224x224 colour images, bfloat16, channels_last, folded. The published code gets the ResNet-18 in
float32, as its authors run it. Written to benchmarks/results/gpu-<card>.json.
"""

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from forward import against_bare
from speed import LAW, SEED, SIGMA, published_ancer, published_isotropic
from torch import nn
from watch import Stopwatch

from ancer import Classifier, certify, optimize_anisotropic, optimize_isotropic
from ancer.bases import basis_named
from ancer.evaluation.arithmetic import machine
from ancer.models.networks import build

ROOT = Path(__file__).parents[1]
FAST: dict[str, Any] = {"dtype": "bfloat16", "memory_format": "channels_last", "fold": True}
# architecture, shape, rows of a batch, draws of an image
NETWORKS = [
    ("resnet18", (3, 32, 32), 4000, 20_000),
    ("torchvision:resnet50", (3, 224, 224), 250, 2_000),
]
BASIS = "dct8+means+colours"
ROUNDS = 5


def votes_against_forward(arch: str, shape: tuple[int, ...], batch: int, n: int) -> list[dict]:
    """One line a sampler: medians over rounds, least and largest ratio."""
    torch.manual_seed(SEED)
    f = Classifier(build(arch, 10).cuda().eval(), batch_size=batch, **FAST)
    x = torch.randint(0, 256, (4, *shape)) / 255
    theta = 0.25 + torch.rand(4, *shape)
    basis = basis_named(BASIS, shape)
    samplers = {
        "plain": (LAW(theta), None),
        "exact": (LAW(theta), 1 / 255),
        f"exact, {BASIS}": (LAW(theta, basis=basis), 1 / 255),
    }
    return [
        {"network": arch, "sampler": name}
        | against_bare(f, x, noise, n=n, rounds=ROUNDS, lattice=lattice)
        for name, (noise, lattice) in samplers.items()
    ]


def against_published(images: int, n: int = 10_000) -> list[dict]:
    """Seconds an image to optimize and to certify: the published code, and ours."""
    torch.manual_seed(SEED)
    network: nn.Module = build("resnet18", 10).cuda().eval()
    x = (torch.randint(0, 256, (images, 3, 32, 32)) / 255).cuda()
    labels = torch.zeros(images, dtype=torch.long)
    lines, search = published_isotropic(network, x, labels, n)
    lines += published_ancer(network, x, labels, n, *search)
    f = Classifier(network, batch_size=4000, **FAST)
    with Stopwatch() as optimize:
        theta = optimize_isotropic(f, x, LAW(SIGMA), seed=SEED)
        theta = optimize_anisotropic(f, x, LAW(theta), seed=SEED)
        torch.cuda.synchronize()
    with Stopwatch() as spent:
        certify(f, x, LAW(theta), n=n, alpha=0.001, seed=SEED)
    ours = {"optimize [s]": optimize.seconds / images, "certify [s]": spent.seconds / images}
    lines.append({"theta": "anisotropic, ours", "images": images, **ours})
    keep = ("theta", "images", "optimize [s]", "certify [s]")
    return [{name: line[name] for name in keep} for line in lines]


def main(images: Annotated[int, typer.Argument()] = 4) -> None:
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs CUDA: torch.cuda.is_available() is False here")
    about = machine(torch.device("cuda"))
    card = re.sub(r"\W+", "-", about["device"]).strip("-").lower()
    path = ROOT / f"benchmarks/results/gpu-{card}.json"
    record: dict = {**about, "votes": []}
    for arch, shape, batch, n in NETWORKS:
        record["votes"] += votes_against_forward(arch, shape, batch, n)
    _keep(path, record, "votes")
    record["published"] = against_published(images)  # installs, which needs a package registry
    _keep(path, record, "published")


def _keep(path: Path, record: dict, part: str) -> None:
    """Print a part of the record, and write what there is so far."""
    print(pd.DataFrame(record[part]).round(4).to_markdown(index=False), end="\n\n")
    path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
