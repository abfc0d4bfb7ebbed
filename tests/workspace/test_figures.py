"""Figures: a user's matplotlibrc changes no byte, and neither does drawing them again."""

import os
import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from stages import ROOT

from ancer.certificates.certificate import Certificate
from ancer.regions.region import Region
from ancer.workspace.experiment import Profile
from ancer.workspace.figures import captions, curves, galleries, plane, stopping
from ancer.workspace.figures.style import pictures, show
from ancer.workspace.stages.statistics import ever_wrong

STRANGE = {
    "text.usetex": True,
    "font.size": 30,
    "font.family": "serif",
    "lines.linewidth": 9,
    "axes.facecolor": "red",
    "axes.grid": True,
    "axes.prop_cycle": mpl.cycler(color=["red"]),
    "savefig.dpi": 7,
    "savefig.bbox": None,
    "svg.hashsalt": "another",
    "svg.fonttype": "path",
    "pdf.fonttype": 3,
    "figure.constrained_layout.use": False,
    "image.cmap": "jet",
    "xtick.labelsize": 40,
    "legend.fontsize": 40,
}
PROFILE = Profile.open(ROOT)
EXPERIMENTS = {name: PROFILE.experiments[name] for name in ("digits-l2-025", "digits-l1-025")}
METHODS = PROFILE.methods
IMAGES = np.linspace(0, 1, 3 * 64).reshape(3, 8, 8)
TITLES = ["one", "two", "three"]


def rows():
    """Rows of three methods and twenty images."""
    draws = np.random.default_rng(0)
    tables = []
    for name in ("fixed", "isotropic", "anisotropic"):
        table = {
            "method": name,
            "idx": range(20),
            "correct": (draws.random(20) < 0.8).astype(int),
            "radius": draws.random(20),
            "proxy_radius": 2 * draws.random(20),
        }
        tables.append(pd.DataFrame(table))
    return pd.concat(tables)


def certificate(norm):
    return Certificate(
        index=0,
        chosen=1,
        prediction=1,
        p_a_lower=0.9,
        p_b_upper=0.1,
        gap=1.0,
        center=torch.tensor([0.4, 0.6]),
        theta=torch.tensor([0.1, 0.2]),
        norm=norm,
        votes={0: 3, 1: 97},
        n=100,
        alpha=0.05,
    )


def landscape():
    shares = plane.square_points()[:, 0].numpy()
    lines = {}
    for norm in (2, 1):
        panel = plane.Landscape(certificate(norm), shares)
        lines[rf"$\ell_{norm}$"] = dict.fromkeys(list(METHODS)[:3], panel)
    return plane.toy_landscape(lines, METHODS)


def crowd():
    center = torch.tensor([0.4, 0.6])
    region = Region(center, torch.tensor([0.1, 0.2]), 2)
    shown = [(1, region), (-1, None)]
    centers = np.array([[0.4, 0.6], [0.1, 0.2]])
    return plane.crowd([plane.Crowd(2, centers, shown, shown)])


def in_order():
    values = np.linspace(-1, 3, 9)
    by_method = {name: {"fixed": values, "isotropic": 2 * values} for name in EXPERIMENTS}
    return curves.in_order(EXPERIMENTS, by_method, ylabel="more", line=0, yscale="symlog")


def guarantee():
    draws = np.array([100, 200, 300])
    bounds = {"a": [0.1, 0.2, 0.3], "b": [0.2, 0.3, 0.4]}
    wrong = ever_wrong([0.5, 0.9], 1000, 0.001)  # as many bounds as the stage compares
    return stopping.stopping_guarantee(draws, bounds, 0.9, wrong, [0.5, 0.9], 0.001)


FIGURES = {
    "accuracy": lambda: curves.accuracy_curves(EXPERIMENTS, dict.fromkeys(EXPERIMENTS, rows())),
    "histogram": lambda: curves.radius_histogram(rows(), METHODS),
    "in_order": in_order,
    "curve": lambda: curves.curve([3.0, 2.0, 1.5], "epoch", "loss"),
    "theta": lambda: galleries.theta_gallery(IMAGES, 1 + IMAGES, np.full(3, 0.5), TITLES),
    "perturbation": lambda: galleries.perturbation_gallery(
        IMAGES, [(METHODS["isotropic"], IMAGES), (METHODS["anisotropic"], IMAGES)], TITLES
    ),
    "regions": lambda: galleries.region_gallery(IMAGES, [IMAGES[1], IMAGES[0], None], TITLES),
    "noisy": lambda: galleries.noisy_samples(IMAGES, IMAGES + 0.1, TITLES),
    "leak": lambda: galleries.leak(IMAGES[:2], TITLES[:2], {"a": [0.1, 0.9], "b": [0.5, 0.5]}),
    "landscape": landscape,
    "crowd": crowd,
    "guarantee": guarantee,
}


def written(draw, folder):
    """The bytes of a figure's three files."""
    show(draw(), "F1", folder)
    found = {path.suffix: path.read_bytes() for path in folder.iterdir()}
    assert set(found) == {".svg", ".png", ".pdf"}
    return found


@pytest.mark.parametrize("name", FIGURES)
def test_a_users_matplotlibrc_changes_no_figure(name, tmp_path):
    plain = tmp_path / "plain"
    strange = tmp_path / "strange"
    plain.mkdir()
    strange.mkdir()
    others = plt.get_fignums()
    expected = written(FIGURES[name], plain)
    with mpl.rc_context(STRANGE):
        assert written(FIGURES[name], strange) == expected
        assert mpl.rcParams["font.size"] == 30  # what the user has set is there again
    assert plt.get_fignums() == others  # shown and closed


def test_a_matplotlibrc_is_read_and_changes_nothing(tmp_path):
    """In a process of its own, as in a user's home."""
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nlines.linewidth: 9\ntext.usetex: True\n")
    code = f"""
import sys
from pathlib import Path
import matplotlib
sys.path[:0] = [{str(ROOT / "tests")!r}, {str(ROOT / "tests/workspace")!r}]
import test_figures
assert matplotlib.rcParams["font.size"] == 30
folder = Path("written")
folder.mkdir()
sys.stdout = sys.stderr
sys.__stdout__.write(test_figures.written(test_figures.FIGURES["curve"], folder)[".svg"].decode())
"""
    environment = {**os.environ, "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    folder = tmp_path / "plain"
    folder.mkdir()
    assert done.stdout == written(FIGURES["curve"], folder)[".svg"].decode()


def test_every_figure_of_the_notebooks_has_a_caption():
    for text in captions.CAPTIONS.values():
        assert text.endswith(".") and "\n" not in text
    with pytest.raises(KeyError):
        show(FIGURES["curve"](), "nothing")
    plt.close("all")


def test_pictures_are_as_matplotlib_shows_them():
    images = torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2)
    assert pictures(images).shape == (2, 2, 2, 3)
    assert pictures(images)[0, 0, 1].tolist() == [1, 5, 9]
    assert pictures(images[:, :1]).shape == (2, 2, 2)
    assert pictures(images, mean=True)[1].tolist() == [[16, 17], [18, 19]]
