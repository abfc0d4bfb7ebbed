"""Images side by side: theta, what regions permit, noise."""

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ancer.workspace.figures.style import OTHERS, bare, picture, styled
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
        picture(axes[0, k], images[k])
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

    All (M, H, W[, 3]); what leaves [0, 1] is shown clipped. Under each what changed, all on one
    scale: grey is nothing.
    """
    changes = [shown - images for _, shown in perturbed]
    largest = _largest(changes)
    lines = [("image", "black", images)]
    for (method, shown), change in zip(perturbed, changes, strict=True):
        lines.append((method.name, method.color, shown))
        lines.append(("change", method.color, _on_grey(change, largest)))
    size = (0.8 * len(images) + 0.2, 0.8 * len(lines) + 0.3)
    figure, axes = plt.subplots(
        len(lines), len(images), figsize=size, layout="constrained", squeeze=False
    )
    for row, (label, color, shown) in zip(axes, lines, strict=True):
        for ax, one in zip(row, shown, strict=True):
            picture(ax, one)
        row[0].set_ylabel(label, color=color, fontsize=8)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=8)
    bare(axes)
    return figure


@styled
def region_gallery(
    images: np.ndarray, edges: Sequence[np.ndarray | None], titles: Sequence[str]
) -> Figure:
    """Images (M, H, W[, 3]), each at an edge of its region, and what changed.

    edges: of each, (H, W[, 3]); None where it abstains. titles: above each.
    """
    certified = {}
    for k, edge in enumerate(edges):
        if edge is not None:
            certified[k] = edge
    changes = {k: edge - images[k] for k, edge in certified.items()}
    largest = _largest(list(changes.values()))
    size = (0.82 * len(images) + 0.3, 2.9)
    figure, axes = plt.subplots(3, len(images), figsize=size, layout="constrained", squeeze=False)
    for k, title in enumerate(titles):
        picture(axes[0, k], images[k])
        axes[0, k].set_title(title, fontsize=7)
    for k, edge in certified.items():
        picture(axes[1, k], edge)
        picture(axes[2, k], _on_grey(changes[k], largest))
    for ax, label in zip(axes[:, 0], ["image", "at the edge", "change"], strict=True):
        ax.set_ylabel(label, fontsize=8)
    bare(axes)
    return figure


def _largest(changes: Sequence[np.ndarray]) -> float:
    """Of nearly all pixels' changes, so that a few do not make all others grey."""
    if not changes:
        return 1.0
    every = np.concatenate([np.abs(change).ravel() for change in changes])
    return max(1e-6, float(np.quantile(every, 0.995)))


def _on_grey(change: np.ndarray, largest: float) -> np.ndarray:
    return 0.5 + change / (2 * largest)


@styled
def noisy_samples(images: np.ndarray, noisy: np.ndarray, titles: Sequence[str]) -> Figure:
    """Images (M, H, W[, 3]) above the same under the training noise (clipped to [0, 1])."""
    figure, axes = plt.subplots(
        2, len(images), figsize=(0.8 * len(images), 2.0), layout="constrained", squeeze=False
    )
    for k in range(len(images)):
        picture(axes[0, k], images[k])
        axes[0, k].set_title(titles[k])
        picture(axes[1, k], noisy[k])
    bare(axes)
    return figure


@styled
def leak(images: np.ndarray, titles: Sequence[str], votes: dict[str, Sequence[float]]) -> Figure:
    """S2: two images (2, H, W[, 3]) and the votes for 'the first' at each, by kind of noise."""
    figure, axes = plt.subplots(
        1, 3, figsize=(6.6, 2.1), layout="constrained", width_ratios=[1, 1, 2.6]
    )
    for ax, image, title in zip(axes, images, titles, strict=False):
        picture(ax, image)
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
