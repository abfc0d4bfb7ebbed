"""How all figures look, and how they are shown and written.

No figure of a text is wider than 6.6 inches, a page's column, so that its 8 and 9 points are read
as such.
"""

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ancer.workspace.figures.captions import CAPTIONS

P = ParamSpec("P")
R = TypeVar("R")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 110,
    "savefig.bbox": "tight",
    "svg.hashsalt": "ancer",
    "svg.fonttype": "none",  # text that can be searched and edited, in a reader's own font
    "pdf.fonttype": 42,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
}
# of Okabe and Ito's palette, as the methods' colours: for what is no method
OTHERS = ("#CC79A7", "#56B4E9", "#000000", "#888888")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Inside, matplotlib's defaults and STYLE: a user's matplotlibrc changes nothing."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return drawn


@styled
def show(
    figure: Figure,
    name: str,
    folder: str | Path | None = None,
    *,
    of: str = "",
    note: str = "",
) -> None:
    """Close the figure and display it in the notebook, its caption under it: CAPTIONS[name], note.

    With a folder also write <folder>/<name>[-<of>].svg, .pdf and .png, byte for byte the same each
    time: no date, no version.
    """
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    if folder is not None:
        path = Path(folder) / (f"{name}-{of}" if of else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(f"{path}.svg", metadata={"Date": None, "Creator": None})
        nothing = {"CreationDate": None, "Creator": None, "Producer": None}
        figure.savefig(f"{path}.pdf", metadata=nothing)
        Path(f"{path}.png").write_bytes(png.getvalue())
    plt.close(figure)
    display(Image(png.getvalue(), width=1.1 * 72 * figure.get_size_inches()[0]))
    caption = " ".join([CAPTIONS[name], note])
    if of:
        caption = f"*{of}*. {caption}"
    display(Markdown(caption))


def pictures(images: Tensor, *, mean: bool = False) -> np.ndarray:
    """Images (M, C, H, W) as matplotlib shows them.

    (M, H, W, 3), or (M, H, W) when grey or averaged over channels.
    """
    images = images.detach().double().cpu()
    if mean or images.shape[1] == 1:
        return images.mean(dim=1).numpy()
    return images.permute(0, 2, 3, 1).numpy()


def picture(ax: Axes, shown: np.ndarray) -> None:
    """One of `pictures` as it is, 0 black and 1 white; what leaves [0, 1] is clipped."""
    ax.imshow(shown.clip(0, 1), cmap="gray", vmin=0, vmax=1)


def panels(
    count: int, across: int, *, width: float, height: float, margin: float = 0.0, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels of a size in inches, at most `across` in a row.

    margin: inches on top, for a legend; options: of matplotlib's `subplots`.
    """
    across = min(across, count)
    down = -(-count // across)
    size = (width * across, height * down + margin)
    figure, axes = plt.subplots(
        down, across, figsize=size, layout="constrained", squeeze=False, **options
    )
    for ax in axes.flat[count:]:
        ax.remove()
    return figure, list(axes.flat[:count])


def bare(axes: np.ndarray) -> None:
    """Axes without ticks and frames, for pictures."""
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set_visible(False)
