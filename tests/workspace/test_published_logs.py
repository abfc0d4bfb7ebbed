"""Our metrics on the logs that Cohen, Rosenfeld and Kolter published (ICML 2019) give the tables
they published."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from stages import ROOT

from ancer.confidence.bounds import clopper_pearson
from ancer.measures import certified_accuracy
from ancer.noise.sampled import GaussianNoise

LOGS = ROOT / "../shared/published/cohen2019"
MODELS = {"cifar10": "resnet110", "imagenet": "resnet50"}
SIGMAS = {"cifar10": ("0.12", "0.25", "0.50", "1.00"), "imagenet": ("0.25", "0.50", "1.00")}
CASES = [(dataset, sigma) for dataset, sigmas in SIGMAS.items() for sigma in sigmas]

pytestmark = pytest.mark.skipif(
    not LOGS.is_dir(), reason="the published logs are not beside this checkout"
)


def table(dataset):
    """(radii, {sigma: published cells}) of the published Markdown table.

    The stars of the best cells are left out.
    """
    text = (LOGS / f"published_table_{dataset}.md").read_text()
    header, _, *rows = text.strip().splitlines()
    radii = [float(r) for r in re.findall(r"r = ([\d.]+)", header)]
    cells = {re.search(r"= ([\d.]+)", row)[1]: re.findall(r"\|\s*([\d.]+)", row) for row in rows}
    return radii, cells


def log(dataset, sigma):
    name = f"{dataset}_{MODELS[dataset]}_noise_{sigma}_sigma_{sigma}.tsv"
    return pd.read_csv(LOGS / name, sep="\t")


@pytest.mark.parametrize("dataset, sigma", CASES)
def test_certified_accuracy_gives_the_published_table_to_the_digit(dataset, sigma):
    """Rounded to nearest, '{:.2f}', as published.

    Shares of 500 images are multiples of 0.002 and those of the 427 of ImageNet at 0.25 never end
    in 5, so no cell is a tie: how halves are rounded does not matter.
    """
    radii, published = table(dataset)
    accuracy = certified_accuracy(log(dataset, sigma), radii)
    assert [f"{a:.2f}" for a in accuracy] == published[sigma]
    assert (np.abs(accuracy * 100 % 1 - 0.5) > 1e-3).all()


@pytest.mark.parametrize("dataset", MODELS)
def test_every_row_of_the_published_tables_is_checked(dataset):
    radii, published = table(dataset)
    ours = [case for case in CASES if case[0] == dataset]
    assert [(dataset, sigma) for sigma in published] == ours
    assert len(radii) == 6 and all(len(cells) == 6 for cells in published.values())


@pytest.mark.parametrize("dataset, sigma", CASES)
def test_certified_accuracy_is_the_share_that_is_correct_and_far_enough(dataset, sigma):
    """At every radius that occurs, each included itself (>=), by counting.

    It falls from accuracy at 0 down to 0.
    """
    rows = log(dataset, sigma)
    assert len(rows) == (427 if (dataset, sigma) == ("imagenet", "0.25") else 500)
    radii = np.unique([0.0, *rows["radius"], rows["radius"].max() * (1 + 1e-12)])
    accuracy = certified_accuracy(rows, radii)
    pairs = list(zip(rows["correct"], rows["radius"], strict=True))
    counted = [sum(c == 1 and radius >= r for c, radius in pairs) / len(rows) for r in radii]
    np.testing.assert_allclose(accuracy, counted, rtol=0, atol=1e-12)
    assert accuracy[0] == pytest.approx(rows["correct"].mean(), abs=1e-12) and accuracy[-1] == 0
    assert (np.diff(accuracy) <= 0).all()


@pytest.mark.parametrize("path", sorted(LOGS.glob("*.tsv")), ids=lambda path: path.stem)
def test_logs_are_consistent(path):
    rows = pd.read_csv(path, sep="\t")
    assert ((rows["predict"] == rows["label"]) == (rows["correct"] == 1)).all()
    assert (rows["radius"][rows["predict"] == -1] == 0).all() and (rows["radius"] >= 0).all()


# logs with images for which all votes agreed: radius = sigma * gap(alpha^(1/N)), N = 100,000. Most
# are as if alpha had been 0.01, not the 0.001 that accompanies them.
UNANIMOUS = {
    "cifar10_resnet110_noise_0.12_sigma_0.12": 0.001,
    "cifar10_resnet110_noise_0.25_sigma_0.25": 0.01,
    "cifar10_resnet110_noise_0.50_sigma_0.50": 0.01,
    "cifar10_resnet110_noise_1.00_sigma_0.50": 0.001,
    "imagenet_resnet50_noise_0.25_sigma_0.25": 0.01,
    "imagenet_resnet50_noise_0.25_sigma_0.50": 0.01,
    "imagenet_resnet50_noise_0.50_sigma_0.50": 0.01,
    "imagenet_resnet50_noise_1.00_sigma_0.50": 0.01,
    "imagenet_resnet50_noise_1.00_sigma_1.00": 0.01,
}


@pytest.mark.parametrize("name, alpha", UNANIMOUS.items())
def test_largest_published_radius_is_that_of_our_bound(name, alpha):
    """To the three digits that the logs keep."""
    radius = pd.read_csv(LOGS / f"{name}.tsv", sep="\t")["radius"].max()
    bound = torch.from_numpy(clopper_pearson(100_000, 100_000, alpha))
    ours = float(name.rsplit("_", 1)[1]) * GaussianNoise(1.0).gap(bound).item()
    assert radius == float(f"{ours:.3}")
