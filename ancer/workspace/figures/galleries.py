"""Images side by side: theta, what regions permit, noise."""

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ancer.workspace.figures.style import OTHERS, bare, styled
from ancer.workspace.methods import Method


@styled
def theta_gallery(
    images: np.ndarray, thetas: np.ndarray, starts: np.ndarray, titles: Sequence[str]
) -> Figure:
    """F5: images (M, H, W[, 3]), and their theta (M, H, W) relative to the isotropic one.

    On one log scale. starts: (M,) isotropic theta.
    """
    ratio = thetas / starts.reshape(-1, 1, 1)
    size = (0.75 * len(images) + 0.6, 2.1)
    figure, axes = plt.subplots(2, len(images), figsize=size, layout="constrained", squeeze=False)
    norm = mpl.colors.LogNorm(1, max(2.0, float(np.quantile(ratio, 0.995))))
    for k in range(len(images)):
        axes[0, k].imshow(images[k], cmap="gray_r", vmin=0, vmax=1)
        axes[0, k].set_title(titles[k], fontsize=8)
        shown = axes[1, k].imshow(ratio[k], cmap="viridis", norm=norm)
        axes[1, k].set_title(rf"$\theta_{{iso}}$ {starts[k]:.2f}", fontsize=8)
    bare(axes)
    axes[0, 0].set_ylabel("image")
    axes[1, 0].set_ylabel(r"$\theta_i / \theta_{iso}$")
    bar = figure.colorbar(shown, ax=axes[1, :], shrink=0.9, aspect=12, pad=0.01)
    bar.ax.yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    bar.ax.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    return figure


@styled
def perturbation_gallery(
    images: np.ndarray,
    perturbed: Sequence[tuple[Method, np.ndarray]],
    titles: Sequence[str],
) -> Figure:
    """F2: images, and the same random direction of equal proxy size in the regions of two methods.

    All (M, H, W[, 3]); what leaves [0, 1] is shown clipped.
    """
    figure, axes = plt.subplots(
        3, len(images), figsize=(0.8 * len(images), 2.8), layout="constrained", squeeze=False
    )
    lines = [("image", "black", images)]
    for method, shown in perturbed:
        lines.append((method.name, method.color, shown))
    for row, (label, color, shown) in zip(axes, lines, strict=True):
        for ax, picture in zip(row, shown, strict=True):
            ax.imshow(picture.clip(0, 1), cmap="gray_r", vmin=0, vmax=1)
        row[0].set_ylabel(label, color=color)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=8)
    bare(axes)
    return figure


@styled
def noisy_samples(images: np.ndarray, noisy: np.ndarray, titles: Sequence[str]) -> Figure:
    """Images (M, H, W[, 3]) above the same under the training noise (clipped to [0, 1])."""
    figure, axes = plt.subplots(
        2, len(images), figsize=(0.8 * len(images), 2.0), layout="constrained", squeeze=False
    )
    for k in range(len(images)):
        axes[0, k].imshow(images[k], cmap="gray_r", vmin=0, vmax=1)
        axes[0, k].set_title(titles[k])
        axes[1, k].imshow(noisy[k].clip(0, 1), cmap="gray_r", vmin=0, vmax=1)
    bare(axes)
    return figure


@styled
def leak(images: np.ndarray, titles: Sequence[str], votes: dict[str, Sequence[float]]) -> Figure:
    """S2: two images (2, H, W[, 3]) and the votes for 'the first' at each, by kind of noise."""
    figure, axes = plt.subplots(
        1, 3, figsize=(6.6, 2.1), layout="constrained", width_ratios=[1, 1, 2.6]
    )
    for ax, image, title in zip(axes, images, titles, strict=False):
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[], title=title)
    bars = axes[2]
    for k, (name, shares) in enumerate(votes.items()):
        places = np.arange(2) - 0.2 + 0.4 * k
        bars.barh(places, shares, height=0.36, color=OTHERS[k], label=name)
        for place, share in zip(places, shares, strict=True):
            bars.annotate(f" {share:.0%}", (share, place), va="center", fontsize=8)
    bars.set(yticks=[0, 1], yticklabels=titles, xlim=(0, 1.12), xlabel="votes for 'black'")
    bars.invert_yaxis()
    bars.legend(loc="lower right", fontsize=8)
    return figure
