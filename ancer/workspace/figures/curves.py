"""Curves over images: certified accuracy, volumes, radii, a training loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ancer.measures import certified_accuracy
from ancer.workspace.experiment import Experiment
from ancer.workspace.figures.style import OTHERS, panels, styled
from ancer.workspace.methods import Method, Methods

RADII = {"radius": "certified radius", "proxy_radius": "certified proxy radius"}
POINTS = 400  # of a curve


@styled
def accuracy_curves(
    experiments: Mapping[str, Experiment], rows: Mapping[str, pd.DataFrame], *, by: str = "radius"
) -> Figure:
    """F3 (by="radius"), F4 (by="proxy_radius"): certified accuracy, one panel an experiment.

    Axes of one norm are the same. Under a panel is what the best of several gives beyond the last
    of these, in points, since the two curves are often one.
    """
    ends = _ends(experiments, rows, by)
    bests = any(map(_has_best, experiments.values()))
    in_figure = _pairs if bests else _singles
    figure, axes = in_figure(len(experiments))
    for (above, below), (name, experiment) in zip(axes, experiments.items(), strict=True):
        grid = np.linspace(0, ends[experiment.norm], POINTS)
        _titled(above, experiment)
        _accuracy(above, experiment.methods, rows[name], grid, by)
        if bests:
            _beyond(below, experiment.methods, rows[name], grid, by)
        below.set_xlabel(rf"{RADII[by]} ($\ell_{experiment.norm}$, pixels in [0, 1])")
    for above, below in axes[::2]:
        above.set_ylabel("certified accuracy")
        if bests:
            below.set_ylabel("best: points\nmore", fontsize=8)
    legend(figure, axes[0][0])
    return figure


def _has_best(experiment: Experiment) -> bool:
    return any(method.best_of for method in experiment.methods.values())


def _singles(count: int) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """As `_pairs`, where nothing is below: a panel is both of its two."""
    figure, axes = panels(count, 2, width=3.3, height=2.5)
    return figure, list(zip(axes, axes, strict=True))


def _pairs(count: int) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """A figure of so many panels, two in a row, a low one under each."""
    across = min(count, 2)
    down = -(-count // across)
    figure, axes = plt.subplots(
        2 * down,
        across,
        figsize=(3.3 * across, 3.1 * down),
        height_ratios=[3, 1] * down,
        layout="constrained",
        squeeze=False,
    )
    above = list(axes[::2].flat)
    below = list(axes[1::2].flat)
    for ax in [*above[count:], *below[count:]]:
        ax.remove()
    return figure, list(zip(above, below, strict=True))[:count]


@styled
def bound_curves(experiments: Mapping[str, Experiment], rows: Mapping[str, pd.DataFrame]) -> Figure:
    """F10: the share of images that are right with p_a_lower >= p, one panel an experiment."""
    figure, axes = panels(len(experiments), 2, width=3.3, height=2.4)
    for ax, (name, experiment) in zip(axes, experiments.items(), strict=True):
        _titled(ax, experiment)
        _bounds(ax, experiment.methods, rows[name])
    for ax in axes[::2]:
        ax.set_ylabel("share of images")
    figure.supxlabel("lower bound on $p_A$", fontsize=9)
    legend(figure, axes[0])
    return figure


def legend(figure: Figure, ax: Axes) -> None:
    """On top, as many in a row as fit; the figure grows by each row from the third on."""
    width, height = figure.get_size_inches()
    across = round(width / 1.65)
    handles, labels = ax.get_legend_handles_labels()
    rows = -(-len(labels) // across)
    figure.set_size_inches(width, height + 0.17 * max(0, rows - 2))
    figure.legend(handles, labels, loc="outside upper center", ncols=across)


def _titled(ax: Axes, experiment: Experiment) -> None:
    section = experiment.section
    ax.set_title(rf"$\ell_{experiment.norm}$, $\sigma$ = {section.sigma:g}, {section.training}")
    ax.grid(alpha=0.25, linewidth=0.5)


def _bounds(ax: Axes, methods: Methods, rows: pd.DataFrame) -> None:
    # each further tick is ten times nearer to 1
    def nines(p: np.ndarray) -> np.ndarray:
        return -np.log10(np.maximum(1 - p, 1e-9))

    ax.set_xscale("function", functions=(nines, lambda q: 1 - 10.0**-q))
    end = nines(rows["p_a_lower"].max()) + 0.1
    grid = 1 - 10.0 ** -np.linspace(0.1, end, 400)
    ticks = [p for p in (0.5, 0.9, 0.99, 0.999, 0.9999) if p < grid[-1]]
    ax.set_xticks(ticks, list(map("{:g}".format, ticks)))
    ax.minorticks_off()
    for name, group in rows.groupby("method", sort=False):
        method = methods[name]
        shares = certified_accuracy(group, grid, by="p_a_lower")
        ax.plot(grid, shares, label=label_of(method, group, rows), **line_of(method))
    ax.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    ax.set(ylim=(0, 1.02), xlim=(grid[0], grid[-1]))


def label_of(method: Method, group: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Its label, and of how many images where they are not all."""
    few = len(group) < rows["idx"].nunique()
    return f"{method.label} ({len(group)} images)" if few else method.label


def _ends(
    experiments: Mapping[str, Experiment], rows: Mapping[str, pd.DataFrame], by: str
) -> dict[int, float]:
    """Where the axis of each norm ends: at the largest radius, or five times the largest fixed.

    A proxy radius runs away where a pixel does not matter, and would press all others against the
    axis.
    """
    ends: dict[int, float] = {}
    for name, experiment in experiments.items():
        correct = rows[name].loc[rows[name]["correct"] == 1]
        end = 1.0
        if len(correct):
            largest = correct.groupby("method")[by].max()
            methods = experiment.methods
            fixed = [largest[m] for m in largest.index if not methods[m].depends_on_image]
            end = 1.02 * min(largest.max(), 5 * max(fixed, default=np.inf))
        ends[experiment.norm] = max(end, ends.get(experiment.norm, 0.0))
    return ends


def _beyond(ax: Axes, methods: Methods, rows: pd.DataFrame, grid: np.ndarray, by: str) -> None:
    """What each best of several certifies beyond the last of these, in points."""
    for name, group in rows.groupby("method", sort=False):
        of = methods[name].best_of
        if of:
            last = rows[rows["method"] == list(of)[-1]]
            other = last[last["idx"].isin(group["idx"])]
            ours = certified_accuracy(group, grid, by=by)
            theirs = certified_accuracy(other, grid, by=by)
            ax.plot(grid, 100 * (ours - theirs), color=methods[name].color)
    ax.axhline(0, color="black", linewidth=0.5)
    ax.grid(alpha=0.25, linewidth=0.5)
    ax.set(xlim=(0, grid[-1]))
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, -1), max(high, 1))


def _accuracy(ax: Axes, methods: Methods, rows: pd.DataFrame, grid: np.ndarray, by: str) -> None:
    beyond = 0.0
    for name, group in rows.groupby("method", sort=False):
        method = methods[name]
        accuracy = certified_accuracy(group, grid, by=by)
        label = label_of(method, group, rows)
        ax.plot(grid, accuracy, label=label, **line_of(method))
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
            method = methods[name]
            style = {"linewidth": 1.3, **line_of(method)}
            ax.hist(group[by], bins=bins, histtype="step", label=method.label, **style)
        ax.set_xlabel(RADII[by])
    axes[0].set_ylabel("images")
    legend(figure, axes[0])
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

    One panel an experiment, all of one scale. values: experiment -> method -> (M,).
    """
    figure, axes = plt.subplots(
        1,
        len(values),
        figsize=(max(3.3, 1.65 * len(values)), 2.5),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    for ax, (name, by_method) in zip(axes.flat, values.items(), strict=True):
        experiment = experiments[name]
        for method_name, found in by_method.items():
            method = experiment.methods[method_name]
            shares = np.linspace(0, 1, len(found))
            ax.plot(shares, np.sort(found), label=method.label, **line_of(method))
        ax.axhline(line, color="black", linewidth=0.8, linestyle=":")
        section = experiment.section
        title = f"$\\ell_{experiment.norm}$, $\\sigma$ = {section.sigma:g}\n{section.training}"
        ax.set(yscale=yscale, title=title)
        ax.grid(alpha=0.25, linewidth=0.5)
    axes[0, 0].set_ylim(bottom=min(0, *[ax.dataLim.y0 for ax in axes.flat]))
    axes[0, 0].set_ylabel(ylabel)
    figure.supxlabel("share of images", fontsize=9)
    legend(figure, axes.flat[0])
    return figure


def line_of(method: Method) -> dict[str, Any]:
    """Of a method's line; the best of several is often one of these: a wide line under theirs."""
    if method.best_of is None:
        style = (0, method.dashes) if method.dashes else "-"
        return {"color": method.color, "linestyle": style}
    return {"color": method.color, "linestyle": "-", "linewidth": 4, "alpha": 0.4, "zorder": 1}


@styled
def curve(values: Sequence[float], xlabel: str, ylabel: str) -> Figure:
    """One line against 1, 2, 3, ... (a training loss)."""
    figure, ax = plt.subplots(figsize=(4.2, 2.2), layout="constrained")
    ax.plot(range(1, len(values) + 1), values, color=OTHERS[2])
    ax.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
    ax.grid(alpha=0.25, linewidth=0.5)
    return figure
