"""Regions in two dimensions: F1 and F6."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Patch, Polygon
from torch import Tensor

from ancer.certificates.certificate import Certificate
from ancer.regions.region import Region
from ancer.workspace.figures.style import styled
from ancer.workspace.methods import Method

MOONS = ("#1B7837", "#762A83")  # the two classes of the moons, as in the landscape
SIDE = 61  # points of a landscape along each axis

Shown = tuple[int, Region | None]  # a class or ABSTAIN, and its region


@dataclass(frozen=True)
class Landscape:
    """A panel of F1: a point's certificate, and the classifier that is smoothed with its theta.

    shares: (SIDE^2,), the share of that one's votes for the upper class at `square_points`.
    """

    certificate: Certificate
    shares: np.ndarray


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
    """F6: 2-D regions of two classes as certified (left) and as answered (right), a line a norm.

    On the right what the memory changed stands out, its old outline dashed, its point in a ring.
    """
    figure, axes = plt.subplots(
        len(panels), 2, figsize=(6.6, 3.2 * len(panels)), layout="constrained", squeeze=False
    )
    for line, panel in zip(axes, panels, strict=True):
        before, after = line
        smaller = others = 0
        for alone, answer, center in zip(panel.alone, panel.memory, panel.centers, strict=True):
            _draw(before, alone, center, panel.norm)
            prediction, region = alone
            cut = region is not None and not _same(region, answer[1])
            other = prediction != answer[0]
            _draw(after, answer, center, panel.norm, bold=cut)
            if region is not None and cut:
                _dashed(after, region, MOONS[prediction], center, panel.norm)
            if other:
                after.plot(*center, "o", color="black", fillstyle="none", markersize=7)
            smaller += cut
            others += other
        before.set_title(rf"$\ell_{panel.norm}$, certificate alone")
        after.set_title(f"with memory: {smaller} smaller, {others} answered otherwise")
    for ax in axes.flat:
        ax.set(aspect="equal", xlim=(0, 1), ylim=(0, 1))
    return figure


def _same(one: Region, other: Region | None) -> bool:
    return other is not None and torch.allclose(one.axes, other.axes, rtol=1e-3)


def _draw(ax: Axes, shown: Shown, center: np.ndarray, norm: int, *, bold: bool = False) -> None:
    prediction, region = shown
    color = "black"
    mark = "x"
    if prediction >= 0:
        color = MOONS[prediction]
        mark = "."
    if region is not None:
        shape = outline(center, region.axes.expand(2).numpy(), norm)
        face = mpl.colors.to_rgba(color, 0.08)
        shape.set(facecolor=face, edgecolor=color, linewidth=1.2 if bold else 0.4, fill=True)
        ax.add_patch(shape)
    ax.plot(*center, mark, color=color, markersize=3)


def _dashed(ax: Axes, region: Region, color: str, center: np.ndarray, norm: int) -> None:
    style: dict[str, Any] = {"edgecolor": color, "linewidth": 0.6, "linestyle": (0, (4, 3))}
    ax.add_patch(outline(center, region.axes.expand(2).numpy(), norm, **style))


def square_points(side: int = SIDE) -> Tensor:
    """The points of a landscape, (side^2, 2) over [0, 1]^2, x_1 first to the right."""
    grid = torch.linspace(0, 1, side)
    x2, x1 = torch.meshgrid(grid, grid, indexing="ij")
    return torch.stack([x1, x2], dim=-1).reshape(-1, 2)


@styled
def toy_landscape(
    lines: Mapping[str, Mapping[str, Landscape]], methods: Mapping[str, Method]
) -> Figure:
    """F1: the region of a line's point by method (title of a line -> method -> panel)."""
    across = max(map(len, lines.values()))
    figure, axes = plt.subplots(
        len(lines),
        across,
        figsize=(2.2 * across, 2.25 * len(lines)),
        layout="constrained",
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    for line, (title, panels) in zip(axes, lines.items(), strict=True):
        for ax, (name, panel) in zip(line, panels.items(), strict=True):
            _landscape(ax, panel, methods[name])
        line[0].set_ylabel(f"{title}\n$x_2$")
    for ax in axes[-1]:
        ax.set_xlabel("$x_1$")
    return figure


def _landscape(ax: Axes, panel: Landscape, method: Method) -> None:
    # 1. the smoothed classifier, pale, and where its class changes
    grid = np.linspace(0, 1, SIDE)
    shares = panel.shares.reshape(SIDE, SIDE)
    levels = np.linspace(0, 1, 11)
    ax.contourf(grid, grid, shares, levels=levels, cmap="PRGn", vmin=-1, vmax=2)
    ax.contour(grid, grid, shares, levels=[0.5], colors="black", linewidths=1.2)

    # 2. the region, its line on a white one
    certificate = panel.certificate
    center = certificate.center.numpy()
    if certificate.region is not None:
        axes = certificate.region.axes.expand(2).numpy()
        for color, width in (("white", 4.0), (method.color, 2.0)):
            style = {"edgecolor": color, "linewidth": width}
            ax.add_patch(outline(center, axes, certificate.norm, **style))
    ax.plot(*center, "o", color="black", markeredgecolor="white", markersize=4.5)
    ax.set(aspect="equal", xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    ax.set_title(f"{method.label}\nproxy radius {certificate.proxy_radius:.3f}")
