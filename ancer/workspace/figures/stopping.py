"""S1: bounds that may be looked at while votes are counted."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ancer.workspace.figures.style import OTHERS, styled

MARKERS = "sovD"


@styled
def stopping_guarantee(
    draws: np.ndarray,
    bounds: Mapping[str, Sequence[float]],
    mean: float,
    wrong: Mapping[str, Sequence[float]],
    means: Sequence[float],
    alpha: float,
) -> Figure:
    """S1: bounds of one run against its draws; probability that a bound is ever above the mean.

    bounds: name -> (T,) at `draws`, of draws with mean `mean`; wrong: name -> (M,) for the `means`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.6, 2.7), layout="constrained")
    for color, (name, bound) in zip(OTHERS, bounds.items(), strict=False):
        left.plot(draws, bound, color=color, label=name)
    left.axhline(mean, color="black", linewidth=0.8, linestyle=":")
    left.set(
        xscale="log",
        xlabel="draws",
        ylabel="lower bound on the mean",
        title=f"one run, mean {mean:g}",
    )
    _errors(right, wrong, means, alpha)
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _errors(
    ax: Axes, wrong: Mapping[str, Sequence[float]], means: Sequence[float], alpha: float
) -> None:
    for k, (name, values) in enumerate(wrong.items()):
        places = np.arange(len(means)) + 0.18 * (k - (len(wrong) - 1) / 2)
        ax.plot(places, values, MARKERS[k], color=OTHERS[k], label=name, markersize=5)
    ax.axhline(alpha, color="black", linewidth=0.8, linestyle=":")
    ax.annotate(r"$\alpha$", (len(means) - 0.45, alpha), va="center")
    labels = list(map("{:g}".format, means))
    ax.set(xticks=range(len(means)), xticklabels=labels, xlabel="mean")
    ax.set_yscale("symlog", linthresh=1e-4)
    ax.set(
        ylim=(-1e-5, 0.1),
        title="probability of ever being wrong",
        xlim=(-0.5, len(means) - 0.5),
    )
