"""Regions in two dimensions: F1 and F6."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Patch, Polygon

from ancer.certificates.certificate import Certificate
from ancer.regions.region import Region
from ancer.workspace.figures.style import styled
from ancer.workspace.methods import Method

MOONS = ("#1B7837", "#762A83")  # the two classes of the moons, as in the landscape
SIDE = 201  # points of the landscape along each axis

Shown = tuple[int, Region | None]  # a class or ABSTAIN, and its region


@dataclass(frozen=True)
class Landscape:
    """A panel of F1: the base classifier's landscape over [0, 1]^2, and certificates of points.

    probability: of the upper class, a function of points (M, 2).
    """

    title: str
    norm: int
    probability: Callable[[np.ndarray], np.ndarray]
    certificates: dict[str, Sequence[Certificate]]


@dataclass(frozen=True)
class Crowd:
    """A line of F6: points (M, 2), as certified each alone, and as answered through a memory."""

    norm: int
    centers: np.ndarray
    alone: Sequence[Shown]
    memory: Sequence[Shown]


def outline(center: np.ndarray, axes: np.ndarray, norm: int, **style) -> Patch:
    """The patch of a 2-D region: an ellipse (norm 2) or a diamond (norm 1)."""
    x, y = center
    a, b = axes
    if norm == 2:
        return Ellipse((x, y), 2 * a, 2 * b, fill=False, **style)
    return Polygon([(x + a, y), (x, y + b), (x - a, y), (x, y - b)], fill=False, **style)


@styled
def crowd(panels: Sequence[Crowd]) -> Figure:
    """F6: 2-D regions of two classes as certified (left) and as answered (right), a line a norm."""
    figure, axes = plt.subplots(
        len(panels), 2, figsize=(6.6, 3.2 * len(panels)), layout="constrained", squeeze=False
    )
    for line, panel in zip(axes, panels, strict=True):
        kinds = {"certificate alone": panel.alone, "with memory": panel.memory}
        for ax, (title, shown) in zip(line, kinds.items(), strict=True):
            for (prediction, region), center in zip(shown, panel.centers, strict=True):
                _draw(ax, prediction, region, center, panel.norm)
            ax.set(title=rf"$\ell_{panel.norm}$, {title}", aspect="equal", xlim=(0, 1), ylim=(0, 1))
    return figure


def _draw(ax: Axes, prediction: int, region: Region | None, center: np.ndarray, norm: int) -> None:
    color = MOONS[prediction] if prediction >= 0 else "black"
    if region is not None:
        shape = outline(center, region.axes.expand(2).numpy(), norm)
        face = mpl.colors.to_rgba(color, 0.22)
        shape.set(facecolor=face, edgecolor=color, linewidth=0.7, fill=True)
        ax.add_patch(shape)
    ax.plot(*center, "." if prediction >= 0 else "x", color=color, markersize=3)


@styled
def toy_landscape(panels: Sequence[Landscape], methods: Mapping[str, Method]) -> Figure:
    """F1: for each panel the probability of the upper class, and regions of all methods."""
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.6 * len(panels), 3.5), layout="constrained", squeeze=False
    )
    grid = np.linspace(0, 1, SIDE, dtype=np.float32)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    for ax, panel in zip(axes.flat, panels, strict=True):
        landscape = panel.probability(points).reshape(SIDE, SIDE)
        shown = ax.contourf(
            grid, grid, landscape, levels=np.linspace(0, 1, 11), cmap="PRGn", alpha=0.75
        )
        ax.contour(grid, grid, landscape, levels=[0.5], colors="black", linewidths=0.8)
        for name, certificates in reversed(panel.certificates.items()):  # smaller regions on top
            for certificate in certificates:
                _outline(ax, certificate, methods[name])
        ax.set(
            title=panel.title,
            aspect="equal",
            xlim=(0, 1),
            ylim=(0, 1),
            xlabel="$x_1$",
            ylabel="$x_2$",
        )
    figure.colorbar(
        shown, ax=axes, shrink=0.75, label="probability of the upper class", ticks=[0, 0.5, 1]
    )
    handles = []
    for name in panels[0].certificates:
        method = methods[name]
        style: dict[str, Any] = {"color": method.color, "linestyle": method.style}
        line = plt.Line2D([], [], label=method.label, **style)
        handles.append(line)
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def _outline(ax: Axes, certificate: Certificate, method: Method) -> None:
    center = certificate.center.numpy()
    region = certificate.region
    if region is not None:
        patch = outline(
            center,
            region.axes.expand(2).numpy(),
            certificate.norm,
            edgecolor=method.color,
            linestyle=method.style,
            linewidth=1.6,
        )
        ax.add_patch(patch)
    ax.plot(*center, "k.", markersize=4)
