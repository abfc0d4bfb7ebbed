"""F8 and F9: how far regions reach towards what happens to pictures."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from ancer.measures import certified_accuracy
from ancer.perturbations.families import FAMILIES
from ancer.workspace.figures.curves import label_of, legend, line_of
from ancer.workspace.figures.style import bare, panels, picture, pictures, styled
from ancer.workspace.methods import Methods
from ancer.workspace.tables.certified import ALONE
from ancer.workspace.tables.writing import present


@styled
def coverage_curves(covered: pd.DataFrame, observed: pd.DataFrame, methods: Methods) -> Figure:
    """F8 of one experiment: certified accuracy against severity, a panel a family.

    Dots: what the smoothed classifier was right on, in the colour of the method.
    """
    shown = present(covered, FAMILIES)
    figure, axes = panels(len(shown), 4, width=1.65, height=1.6, margin=0.2, sharey=True)
    alone = covered[covered["answer"] == ALONE]
    for ax, name in zip(axes, shown, strict=True):
        family = FAMILIES[name]
        grid = np.geomspace(family.severities[0], family.severities[-1], 200)
        for method_name, group in alone.groupby("method", sort=False):
            method = methods[method_name]
            accuracy = certified_accuracy(group, grid, by=name)
            label = label_of(method, group, alone)
            ax.plot(grid, accuracy, label=label, **line_of(method))
            dots = observed[observed["method"] == method_name]
            dots = dots[dots["family"] == name]
            ax.plot(dots["severity"], dots["accuracy"], "o", color=method.color, markersize=3)
        ax.set(xscale="log", ylim=(0, 1.02), xlim=(grid[0], grid[-1]))
        ax.set_xticks(family.shown, list(map("{:g}".format, family.shown)))
        ax.minorticks_off()
        ax.set_title(family.heading, fontsize=8)
        ax.tick_params(labelsize=7)
        ax.grid(alpha=0.25, linewidth=0.5)
    figure.supxlabel("severity", fontsize=9)
    figure.supylabel("certified accuracy", fontsize=9)
    legend(figure, axes[0])
    return figure


@styled
def coverage_gallery(
    image: Tensor,
    strongest: Mapping[str, Mapping[str, tuple[float, Tensor]]],
    methods: Methods,
) -> Figure:
    """F9: an image (1, C, H, W), and the strongest covered picture of each family, by method."""
    names = list(next(iter(strongest.values())))
    figure, axes = plt.subplots(
        len(strongest),
        len(names) + 1,
        figsize=(0.6 * (len(names) + 1), 0.85 * len(strongest) + 0.5),
        layout="constrained",
        squeeze=False,
    )
    for row, (method, by_family) in zip(axes, strongest.items(), strict=True):
        shown = [("", image)]
        shown += [(f"{severity:.3g}", perturbed) for severity, perturbed in by_family.values()]
        for ax, (severity, perturbed) in zip(row, shown, strict=True):
            picture(ax, pictures(perturbed)[0])
            ax.set_xlabel(severity, fontsize=7)
        row[0].set_ylabel(methods[method].label.replace(" (", "\n("), fontsize=7)
        row[0].yaxis.label.set_color(methods[method].color)
    for ax, name in zip(axes[0], ["image", *names], strict=True):
        ax.set_title(FAMILIES[name].label if name in FAMILIES else name, fontsize=7, rotation=40)
        ax.title.set_ha("left")
    bare(axes)
    return figure
