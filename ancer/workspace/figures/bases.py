"""Regions in a basis: of images of two pixels, and the theta of a picture by frequency."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ancer.bases.basis import Basis
from ancer.bases.named import parsed
from ancer.certificates.certificate import Certificate
from ancer.workspace.figures.style import bare, picture, pictures, styled
from ancer.workspace.methods import COLORS
from ancer.workspace.parameters.models import PCA

CHANNELS = ("light", "red - blue", "green")


def by_band(basis: Basis, y: Tensor) -> list[tuple[str, Tensor]]:
    """What stands beside "theta" of a picture, and the picture (1 or 3, H, W), of y (C, H, W).

    Of pixels y itself. Elsewhere a picture for each colour, and coefficients of blocks gathered by
    frequency: each tile is one frequency, the slow ones at the top left, and shows all blocks.
    """
    if basis.is_pixels or y.dim() != 3:
        return [("", y)]
    if ":" in basis.name or basis.name == PCA:
        return [(", coefficients", y.mean(dim=0, keepdim=True))]
    kind, size, factors = parsed(basis.name)
    if kind == "dct" and size is not None:
        y = _gathered(y, size)
    if "colours" in factors:
        return [(f", {name}", y[k : k + 1]) for k, name in enumerate(CHANNELS)]
    return [(", by frequency", y)]


def _gathered(y: Tensor, size: int) -> Tensor:
    """(C, H, W) with the coefficient (u, v) of all blocks of size x size as one tile."""
    channels, height, width = y.shape
    tiles = y.reshape(channels, height // size, size, width // size, size)
    return tiles.permute(0, 2, 1, 4, 3).reshape(channels, height, width)


@styled
def two_pixels(certificates: Mapping[str, Certificate], margin: float) -> Figure:
    """Regions round an image of two pixels, which is of a class where x_1 - x_2 < margin.

    certificates: by the name of the basis.
    """
    figure, ax = plt.subplots(figsize=(3.6, 3.4), layout="constrained")
    ends = np.array([-1.0, 2.0])
    ax.fill_between(ends, ends - margin, -1.0, color="#762A83", alpha=0.12, linewidth=0)
    ax.plot(ends, ends - margin, color="black", linewidth=0.8)
    angles = torch.linspace(0, 2 * torch.pi, 200, dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    for (name, certificate), color in zip(certificates.items(), COLORS, strict=False):
        region = certificate.region
        if region is not None:
            curve = region.center + region.basis.back(circle * region.axes)
            ax.plot(*curve.T.numpy(), color=color, label=name)
    ax.plot(*certificate.center.numpy(), "k.", markersize=5)
    ax.set(aspect="equal", xlim=(0, 1), ylim=(0, 1), xlabel="pixel 1", ylabel="pixel 2")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


@styled
def theta_by_band(
    image: Tensor, shown: Sequence[tuple[str, Basis, Tensor]], start: float
) -> Figure:
    """An image (C, H, W), and theta of methods, over the isotropic one `start`, on one log scale.

    shown: label, basis and theta (C, H, W) of each.
    """
    panels = []
    for label, basis, theta in shown:
        for band, values in by_band(basis, theta):
            panels.append((f"{label}{band}", values.double().mean(dim=0) / start))
    every = torch.cat([values.flatten() for _, values in panels])
    norm = mpl.colors.LogNorm(1, max(2.0, torch.quantile(every, 0.99).item()))
    figure, axes = plt.subplots(
        1, len(panels) + 1, figsize=(1.45 * (len(panels) + 1) + 0.5, 1.9), layout="constrained"
    )
    picture(axes[0], pictures(image[None])[0])
    axes[0].set_title("image", fontsize=8)
    for ax, (title, values) in zip(axes[1:], panels, strict=True):
        drawn = ax.imshow(values.numpy(), cmap="viridis", norm=norm)
        ax.set_title(title.replace(", ", "\n", 1), fontsize=8)
    bare(axes[None])
    bar = figure.colorbar(drawn, ax=axes[1:], shrink=0.9, aspect=14, pad=0.01)
    bar.ax.yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    bar.ax.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    bar.set_label(r"$\theta_i / \theta_{iso}$")
    return figure
