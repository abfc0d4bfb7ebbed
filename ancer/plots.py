"""The paper's figures from rows and theta. One colour a method in all of them (Okabe-Ito, colour-blind safe).

No figure of a text is wider than 6.6 inches, a page's column, so that its 8 and 9 points are read as such.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Polygon
from torch import Tensor

from ancer.captions import CAPTIONS
from ancer.results import METHODS, NORMS, certified_accuracy

COLORS = {"fixed": "#595959", "isotropic": "#0072B2", "anisotropic": "#D55E00", "best": "#009E73"}
STYLES = {"fixed": ":", "isotropic": "--", "anisotropic": "-", "best": "-."}  # readable in black and white too
OTHERS = ("#CC79A7", "#56B4E9", "#000000")  # of the same palette, for what is no method
MOONS = ("#1B7837", "#762A83")  # the two classes of the moons, as in the landscape
RADII = {
    "radius": "certified radius r",
    "proxy_radius": "certified proxy radius r (radius of the ball of equal volume)",
}
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 110,
    "savefig.bbox": "tight",
    "svg.hashsalt": "ancer",
    "legend.frameon": False,
}


def show(figure: Figure, name: str, folder: str | Path | None = None, *, of: str = "") -> None:
    """Close the figure and display it in the notebook, its caption, CAPTIONS[name], under it.

    With a folder also write <folder>/<name>[-<of>].svg and .png, byte for byte the same each time: no date, no version.
    """
    png = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
        if folder is not None:
            path = Path(folder) / (f"{name}-{of}" if of else name)
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(f"{path}.svg", metadata={"Date": None, "Creator": None})
            Path(f"{path}.png").write_bytes(png.getvalue())
    plt.close(figure)
    display(Image(png.getvalue(), width=1.1 * 72 * figure.get_size_inches()[0]))
    display(Markdown(f"*{of}*. {CAPTIONS[name]}" if of else CAPTIONS[name]))


@mpl.rc_context(STYLE)
def accuracy_curves(experiments: dict, rows: dict[str, pd.DataFrame], *, by: str = "radius") -> Figure:
    """F3 (by="radius"), F4 (by="proxy_radius"): certified accuracy against radius, one panel an experiment."""
    across = min(2, len(experiments))
    down = -(-len(experiments) // across)
    figure, axes = plt.subplots(down, across, figsize=(3.3 * across, 2.4 * down), squeeze=False, layout="constrained")
    for ax, (name, experiment) in zip(axes.flat, experiments.items(), strict=False):
        largest = rows[name].loc[rows[name]["correct"] == 1].groupby("method")[by].max()
        # a proxy radius runs away where a pixel does not matter, and would press all others against the axis
        end = 1.02 * min(largest.max(), 5 * largest.get("fixed", np.inf)) if len(largest) else 1.0
        grid, beyond = np.linspace(0, end, 400), 0.0
        for method, group in rows[name].groupby("method", sort=False):
            accuracy = certified_accuracy(group, grid, by=by)
            ax.plot(grid, accuracy, STYLES[method], color=COLORS[method], label=METHODS[method])
            beyond = max(beyond, accuracy[-1])
        if beyond:
            at = {"transform": ax.transAxes, "ha": "right", "va": "top", "fontsize": 8}
            ax.text(0.98, 0.96, f"{beyond:.1%} beyond", **at)
        ax.set(ylim=(0, 1.02), xlim=(0, grid[-1]))
        ax.set_title(rf"$\ell_{NORMS[experiment.noise]}$, $\sigma$ = {experiment.sigma:g}, {experiment.training}")
        ax.grid(alpha=0.25, linewidth=0.5)
    for ax in axes.flat[len(experiments) :]:
        ax.remove()
    figure.supxlabel(RADII[by], fontsize=9)
    figure.supylabel("certified accuracy", fontsize=9)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


@mpl.rc_context(STYLE)
def theta_gallery(images: np.ndarray, thetas: np.ndarray, starts: np.ndarray, titles: Sequence[str]) -> Figure:
    """F5: images (M, H, W[, 3]), their anisotropic theta (M, H, W) on one log scale, relative to the isotropic one.

    starts: (M,) isotropic theta.
    """
    ratio = thetas / starts.reshape(-1, 1, 1)
    size = 0.75 * len(images) + 0.6, 2.1
    figure, axes = plt.subplots(2, len(images), figsize=size, layout="constrained", squeeze=False)
    norm = mpl.colors.LogNorm(1, max(2.0, float(np.quantile(ratio, 0.995))))
    for k in range(len(images)):
        axes[0, k].imshow(images[k], cmap="gray_r", vmin=0, vmax=1)
        axes[0, k].set_title(titles[k], fontsize=8)
        shown = axes[1, k].imshow(ratio[k], cmap="viridis", norm=norm)
        axes[1, k].set_title(rf"$\theta_{{iso}}$ {starts[k]:.2f}", fontsize=8)
    _bare(axes)
    axes[0, 0].set_ylabel("image")
    axes[1, 0].set_ylabel(r"$\theta_i / \theta_{iso}$")
    bar = figure.colorbar(shown, ax=axes[1, :], shrink=0.9, aspect=12, pad=0.01)
    bar.ax.yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    bar.ax.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    return figure


@mpl.rc_context(STYLE)
def perturbation_gallery(images: np.ndarray, isotropic: np.ndarray, anisotropic: np.ndarray, titles) -> Figure:
    """F2: images, and the same random direction of equal proxy size in the isotropic and the anisotropic region.

    All three (M, H, W[, 3]); what leaves [0, 1] is shown clipped.
    """
    figure, axes = plt.subplots(3, len(images), figsize=(0.8 * len(images), 2.8), layout="constrained", squeeze=False)
    for line, (pictures, label) in enumerate(
        [(images, "image"), (isotropic, "isotropic"), (anisotropic, "anisotropic")]
    ):
        for k in range(len(images)):
            axes[line, k].imshow(pictures[k].clip(0, 1), cmap="gray_r", vmin=0, vmax=1)
        axes[line, 0].set_ylabel(label, color=COLORS.get(label, "black"))
    for k in range(len(images)):
        axes[0, k].set_title(titles[k], fontsize=8)
    _bare(axes)
    return figure


@mpl.rc_context(STYLE)
def noisy_samples(images: np.ndarray, noisy: np.ndarray, titles: Sequence[str]) -> Figure:
    """Images (M, H, W[, 3]) above the same images under the training noise (shown clipped to [0, 1])."""
    figure, axes = plt.subplots(2, len(images), figsize=(0.8 * len(images), 2.0), layout="constrained", squeeze=False)
    for k in range(len(images)):
        axes[0, k].imshow(images[k], cmap="gray_r", vmin=0, vmax=1)
        axes[0, k].set_title(titles[k])
        axes[1, k].imshow(noisy[k].clip(0, 1), cmap="gray_r", vmin=0, vmax=1)
    _bare(axes)
    return figure


@mpl.rc_context(STYLE)
def curve(values: Sequence[float], xlabel: str, ylabel: str) -> Figure:
    """One line against 1, 2, 3, ... (a training loss)."""
    figure, ax = plt.subplots(figsize=(4.2, 2.2), layout="constrained")
    ax.plot(range(1, len(values) + 1), values, color=OTHERS[2])
    ax.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
    ax.grid(alpha=0.25, linewidth=0.5)
    return figure


@mpl.rc_context(STYLE)
def radius_histogram(rows: pd.DataFrame) -> Figure:
    """Certified radius and proxy radius of one experiment's methods as step histograms."""
    figure, axes = plt.subplots(1, 2, figsize=(6.6, 2.4), layout="constrained", sharey=True)
    for ax, by in zip(axes, RADII, strict=True):
        bins = np.linspace(0, rows[by].quantile(0.99), 30)
        for method, group in rows.groupby("method", sort=False):
            style = {"color": COLORS[method], "linestyle": STYLES[method], "label": METHODS[method]}
            ax.hist(group[by], bins=bins, histtype="step", linewidth=1.3, **style)
        ax.set_xlabel(RADII[by].split(" (")[0])
    axes[0].set_ylabel("images")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


@mpl.rc_context(STYLE)
def stopping_guarantee(draws: np.ndarray, bounds: dict, p: float, wrong: dict, means: Sequence[float], alpha: float):
    """S1: bounds of one run against its draws (left); probability that a bound is ever above the mean (right).

    bounds: name -> (T,) at `draws`, of draws with mean p; wrong: name -> (M,) for the M `means`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.6, 2.7), layout="constrained")
    markers = dict(zip(wrong, "sov", strict=False))
    for color, (name, bound) in zip(OTHERS, bounds.items(), strict=False):
        left.plot(draws, bound, color=color, label=name)
    left.axhline(p, color="black", linewidth=0.8, linestyle=":")
    left.set(xscale="log", xlabel="draws", ylabel="lower bound on the mean", title=f"one run, mean {p:g}")
    for k, (color, (name, values)) in enumerate(zip(OTHERS, wrong.items(), strict=True)):
        right.plot(np.arange(len(means)) + 0.18 * (k - 1), values, markers[name], color=color, label=name, markersize=5)
    right.axhline(alpha, color="black", linewidth=0.8, linestyle=":")
    right.annotate(r"$\alpha$", (len(means) - 0.45, alpha), va="center")
    right.set(xticks=range(len(means)), xticklabels=[f"{m:g}" for m in means], xlabel="mean")
    right.set_yscale("symlog", linthresh=1e-4)
    right.set(ylim=(-1e-5, 0.1), title="probability of ever being wrong", xlim=(-0.5, len(means) - 0.5))
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


@mpl.rc_context(STYLE)
def leak(images: np.ndarray, titles: Sequence[str], votes: dict[str, Sequence[float]]) -> Figure:
    """S2: two images (2, H, W[, 3]) and the share of votes for 'the first' at each, by kind of noise."""
    figure, axes = plt.subplots(1, 3, figsize=(6.6, 2.1), layout="constrained", width_ratios=[1, 1, 2.6])
    for ax, image, title in zip(axes, images, titles, strict=False):
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[], title=title)
    for k, (color, (name, shares)) in enumerate(zip(OTHERS, votes.items(), strict=False)):
        axes[2].barh(np.arange(2) - 0.2 + 0.4 * k, shares, height=0.36, color=color, label=name)
        for y, share in enumerate(shares):
            axes[2].annotate(f" {share:.0%}", (share, y - 0.2 + 0.4 * k), va="center", fontsize=8)
    axes[2].set(yticks=[0, 1], yticklabels=titles, xlim=(0, 1.12), xlabel="votes for 'black'")
    axes[2].invert_yaxis()
    axes[2].legend(loc="lower right", fontsize=8)
    return figure


@mpl.rc_context(STYLE)
def in_order(experiments: dict, values: dict, *, ylabel: str, line: float, yscale: str = "linear") -> Figure:
    """F7, S3: a value of each image, in order of it, by method; one panel an experiment, a dotted line at `line`.

    values: experiment -> method -> (M,).
    """
    figure, axes = plt.subplots(1, len(values), figsize=(1.65 * len(values), 2.5), layout="constrained", squeeze=False)
    for ax, (name, by_method) in zip(axes.flat, values.items(), strict=True):
        for method, found in by_method.items():
            style = {"color": COLORS[method], "linestyle": STYLES[method], "label": METHODS[method]}
            ax.plot(np.linspace(0, 1, len(found)), np.sort(found), **style)
        ax.axhline(line, color="black", linewidth=0.8, linestyle=":")
        e = experiments[name]
        ax.set(yscale=yscale, title=f"$\\ell_{NORMS[e.noise]}$, $\\sigma$ = {e.sigma:g}\n{e.training}")
        ax.set_ylim(bottom=min(0, ax.dataLim.y0))
        ax.grid(alpha=0.25, linewidth=0.5)
    figure.supxlabel("share of images", fontsize=9)
    figure.supylabel(ylabel, fontsize=9)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _bare(axes: np.ndarray) -> None:
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set_visible(False)


def outline(center: np.ndarray, axes: np.ndarray, norm: int, **style):
    """The patch of a 2-D region: an ellipse (norm 2) or a diamond (norm 1)."""
    (x, y), (a, b) = center, axes
    if norm == 2:
        return Ellipse((x, y), 2 * a, 2 * b, fill=False, **style)
    return Polygon([(x + a, y), (x, y + b), (x - a, y), (x, y - b)], fill=False, **style)


@mpl.rc_context(STYLE)
def crowd(panels: Sequence[dict]) -> Figure:
    """F6: 2-D regions of two classes as certified (left) and as answered through a memory (right), one line a norm.

    A panel: norm; alone and memory, each a list of (class, region or None); centers (M, 2).
    """
    figure, axes = plt.subplots(len(panels), 2, figsize=(6.6, 3.2 * len(panels)), layout="constrained", squeeze=False)
    for line, panel in zip(axes, panels, strict=True):
        for ax, key, title in zip(line, ("alone", "memory"), ("certificate alone", "with memory"), strict=True):
            for (prediction, region), center in zip(panel[key], panel["centers"], strict=True):
                color = MOONS[prediction] if prediction >= 0 else "black"
                if region:
                    shape = outline(center, region.axes.expand(2).numpy(), panel["norm"])
                    shape.set(facecolor=mpl.colors.to_rgba(color, 0.22), edgecolor=color, linewidth=0.7, fill=True)
                    ax.add_patch(shape)
                ax.plot(*center, "." if prediction >= 0 else "x", color=color, markersize=3)
            ax.set(title=rf"$\ell_{panel['norm']}$, {title}", aspect="equal", xlim=(0, 1), ylim=(0, 1))
    return figure


@mpl.rc_context(STYLE)
def toy_landscape(panels: Sequence[dict]) -> Figure:
    """F1: for each panel the probability of the upper class over [0, 1]^2, and regions of all methods.

    A panel: title; norm; probability, a function of points (M, 2); certificates, method -> list.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.5), layout="constrained", squeeze=False)
    grid = np.linspace(0, 1, 201, dtype=np.float32)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    for ax, panel in zip(axes.flat, panels, strict=True):
        landscape = panel["probability"](points).reshape(201, 201)
        shown = ax.contourf(grid, grid, landscape, levels=np.linspace(0, 1, 11), cmap="PRGn", alpha=0.75)
        ax.contour(grid, grid, landscape, levels=[0.5], colors="black", linewidths=0.8)
        for method, certificates in reversed(panel["certificates"].items()):  # the smaller regions on top
            for c in certificates:
                if c.region:
                    style = {"edgecolor": COLORS[method], "linestyle": STYLES[method], "linewidth": 1.6}
                    semi = c.region.axes.expand(2).numpy()
                    ax.add_patch(outline(c.center.numpy(), semi, panel["norm"], **style))
                ax.plot(*c.center.numpy(), "k.", markersize=4)
        ax.set(title=panel["title"], aspect="equal", xlim=(0, 1), ylim=(0, 1), xlabel="$x_1$", ylabel="$x_2$")
    figure.colorbar(shown, ax=axes, shrink=0.75, label="probability of the upper class", ticks=[0, 0.5, 1])
    shown = panels[0]["certificates"]
    handles = [plt.Line2D([], [], color=COLORS[m], linestyle=STYLES[m], label=METHODS[m]) for m in shown]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def pictures(images: Tensor, *, mean: bool = False) -> np.ndarray:
    """Images (M, C, H, W) as matplotlib shows them: (M, H, W, 3), or (M, H, W) when grey or averaged over channels."""
    images = images.detach().double().cpu()
    if mean or images.shape[1] == 1:
        return images.mean(dim=1).numpy()
    return images.permute(0, 2, 3, 1).numpy()
