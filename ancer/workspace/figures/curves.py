"""Curves over images: certified accuracy, volumes, radii, a training loss."""

import functools
from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ancer.measures import certified_accuracy
from ancer.workspace.experiment import Experiment
from ancer.workspace.figures.style import OTHERS, panels, styled
from ancer.workspace.methods import Method, Methods

RADII = {
    "radius": "certified radius r",
    "proxy_radius": "certified proxy radius r (radius of the ball of equal volume)",
}


@styled
def accuracy_curves(
    experiments: Mapping[str, Experiment], rows: Mapping[str, pd.DataFrame], *, by: str = "radius"
) -> Figure:
    """F3 (by="radius"), F4 (by="proxy_radius"): certified accuracy, one panel an experiment."""
    draw = functools.partial(_accuracy, by=by)
    return _panels(experiments, rows, draw, RADII[by], "certified accuracy")


@styled
def bound_curves(experiments: Mapping[str, Experiment], rows: Mapping[str, pd.DataFrame]) -> Figure:
    """F10: the share of images that are right with p_a_lower >= p, one panel an experiment."""
    return _panels(experiments, rows, _bounds, "lower bound on $p_A$", "share of images")


def _panels(
    experiments: Mapping[str, Experiment],
    rows: Mapping[str, pd.DataFrame],
    draw: Callable[[Axes, Methods, pd.DataFrame], None],
    xlabel: str,
    ylabel: str,
) -> Figure:
    """One panel an experiment, two in a row; draw: what one shows of its rows."""
    figure, axes = panels(len(experiments), 2, width=3.3, height=2.4)
    for ax, (name, experiment) in zip(axes, experiments.items(), strict=True):
        draw(ax, experiment.methods, rows[name])
        section = experiment.section
        ax.set_title(rf"$\ell_{experiment.norm}$, $\sigma$ = {section.sigma:g}, {section.training}")
        ax.grid(alpha=0.25, linewidth=0.5)
    for ax in axes[::2]:
        ax.set_ylabel(ylabel)
    figure.supxlabel(xlabel, fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _bounds(ax: Axes, methods: Methods, rows: pd.DataFrame) -> None:
    # each further tick is ten times nearer to 1
    def nines(p: np.ndarray) -> np.ndarray:
        return -np.log10(np.maximum(1 - p, 1e-9))

    ax.set_xscale("function", functions=(nines, lambda q: 1 - 10.0**-q))
    end = nines(rows["p_a_lower"].max()) + 0.1
    grid = 1 - 10.0 ** -np.linspace(0.1, end, 400)
    ticks = [p for p in (0.5, 0.9, 0.99, 0.999, 0.9999) if p < grid[-1]]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    for name, group in rows.groupby("method", sort=False):
        method = methods[name]
        shares = certified_accuracy(group, grid, by="p_a_lower")
        ax.plot(grid, shares, method.style, color=method.color, label=label_of(method, group, rows))
    ax.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    ax.set(ylim=(0, 1.02), xlim=(grid[0], grid[-1]))


def label_of(method: Method, group: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Its label, and of how many images where they are not all."""
    few = len(group) < rows["idx"].nunique()
    return f"{method.label} ({len(group)} images)" if few else method.label


def _accuracy(ax: Axes, methods: Methods, rows: pd.DataFrame, *, by: str) -> None:
    correct = rows.loc[rows["correct"] == 1]
    largest = correct.groupby("method")[by].max()
    # a proxy radius runs away where a pixel does not matter, and would press all others against the
    # axis: end at five times the largest of the training noise
    end = 1.0
    if len(largest):
        fixed = [largest[name] for name in largest.index if not methods[name].depends_on_image]
        end = 1.02 * min(largest.max(), 5 * max(fixed, default=np.inf))
    grid = np.linspace(0, end, 400)
    beyond = 0.0
    for name, group in rows.groupby("method", sort=False):
        method = methods[name]
        accuracy = certified_accuracy(group, grid, by=by)
        label = label_of(method, group, rows)
        ax.plot(grid, accuracy, method.style, color=method.color, label=label)
        beyond = max(beyond, accuracy[-1])
    if beyond:
        ax.text(
            0.98,
            0.96,
            f"{beyond:.1%} beyond",
            transform=ax.transAxes,
            ha="right",
            va="top",
            fontsize=8,
        )
    ax.set(ylim=(0, 1.02), xlim=(0, grid[-1]))


@styled
def radius_histogram(rows: pd.DataFrame, methods: Methods) -> Figure:
    """Certified radius and proxy radius of one experiment's methods as step histograms."""
    figure, axes = plt.subplots(1, 2, figsize=(6.6, 2.4), layout="constrained", sharey=True)
    for ax, by in zip(axes, RADII, strict=True):
        bins = np.linspace(0, rows[by].quantile(0.99), 30)
        for name, group in rows.groupby("method", sort=False):
            ax.hist(group[by], bins=bins, histtype="step", linewidth=1.3, **_line(methods, name))
        ax.set_xlabel(RADII[by].split(" (")[0])
    axes[0].set_ylabel("images")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


@styled
def in_order(
    experiments: Mapping[str, Experiment],
    values: Mapping[str, Mapping[str, np.ndarray]],
    *,
    ylabel: str,
    line: float,
    yscale: str = "linear",
) -> Figure:
    """F7, S3: a value of each image, in order of it, by method; a dotted line at `line`.

    One panel an experiment. values: experiment -> method -> (M,).
    """
    figure, axes = plt.subplots(
        1, len(values), figsize=(1.65 * len(values), 2.5), layout="constrained", squeeze=False
    )
    for ax, (name, by_method) in zip(axes.flat, values.items(), strict=True):
        experiment = experiments[name]
        for method, found in by_method.items():
            shares = np.linspace(0, 1, len(found))
            ax.plot(shares, np.sort(found), **_line(experiment.methods, method))
        ax.axhline(line, color="black", linewidth=0.8, linestyle=":")
        section = experiment.section
        title = f"$\\ell_{experiment.norm}$, $\\sigma$ = {section.sigma:g}\n{section.training}"
        ax.set(yscale=yscale, title=title)
        ax.set_ylim(bottom=min(0, ax.dataLim.y0))
        ax.grid(alpha=0.25, linewidth=0.5)
    axes[0, 0].set_ylabel(ylabel)
    figure.supxlabel("share of images", fontsize=9)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _line(methods: Methods, name: str) -> dict[str, str]:
    method = methods[name]
    return {"color": method.color, "linestyle": method.style, "label": method.label}


@styled
def curve(values: Sequence[float], xlabel: str, ylabel: str) -> Figure:
    """One line against 1, 2, 3, ... (a training loss)."""
    figure, ax = plt.subplots(figsize=(4.2, 2.2), layout="constrained")
    ax.plot(range(1, len(values) + 1), values, color=OTHERS[2])
    ax.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
    ax.grid(alpha=0.25, linewidth=0.5)
    return figure
