"""What the explorer's widgets show: pictures, bars, a plane, tables."""

import html
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LogNorm
from torch import Tensor

from ancer.regions.region import Region
from ancer.workspace.figures.style import pictures
from ancer.workspace.methods import Method

try:
    import anywidget
    import traitlets
except ImportError:
    raise ImportError(
        "the explorer needs its widgets: pip install 'ancer[explore]' (here: -e '.[explore]')"
    ) from None

WEB = Path(__file__).parent / "web"
SCALE = mpl.colormaps["viridis"]
THUMBNAIL = 64  # pixels of a side, at most


class Turns:
    """Steps one after the other, whatever threads JupyterLab tells a kernel in.

    A step that a step sets off in its own thread, by a control that it sets, is left out.
    """

    def __init__(self):
        self._lock = threading.RLock()
        self._busy = False

    def take(self, step: Callable[[], None]) -> None:
        with self._lock:
            if self._busy:
                return
            self._busy = True
            try:
                step()
            finally:
                self._busy = False


class Pictures(anywidget.AnyWidget):
    """Small pictures side by side, their scale, and bars that end where each region ends."""

    _esm = WEB / "pictures.js"
    _css = WEB / "explore.css"
    panels: Any = traitlets.List().tag(
        sync=True
    )  # title, width, height, rgba, values (float32): bytes
    scale = traitlets.Dict().tag(sync=True)  # colors, low, high, largest: of theta, semi-axes
    bars = traitlets.Dict().tag(sync=True)  # size, limit, methods: of label, color, reach


class Strip(anywidget.AnyWidget):
    """Images as thumbnails, of which one is chosen."""

    _esm = WEB / "strip.js"
    _css = WEB / "explore.css"
    thumbnails: Any = traitlets.List().tag(sync=True)  # number, title, mark; width, height, rgba
    value = traitlets.Int(0).tag(sync=True)  # the number of the chosen one


class Plane(anywidget.AnyWidget):
    """A class landscape over [0, 1]^2 with regions, and a point to be dragged."""

    _esm = WEB / "plane.js"
    _css = WEB / "explore.css"
    title = traitlets.Unicode().tag(sync=True)
    landscape = traitlets.Dict().tag(sync=True)  # side, rgba (bytes), the upper row last
    point = traitlets.List([0.5, 0.5]).tag(sync=True)
    regions: Any = traitlets.List().tag(sync=True)  # center, axes, norm, color, dash, width, fill


def picture(title: str, image: Tensor) -> dict[str, Any]:
    """A panel with an image (C, H, W) in [0, 1]."""
    shown = pictures(image[None].clamp(0, 1))[0]
    if shown.ndim == 2:
        shown = np.repeat(shown[..., None], 3, axis=2)
    return _panel(title, shown, image)


def thumbnail(number: int, title: str, mark: str, image: Tensor) -> dict[str, Any]:
    """An image (C, H, W) in [0, 1] for a strip; mark: "wrong", "abstains" or ""."""
    largest = max(image.shape[1:])
    small = image[:, :: -(-largest // THUMBNAIL), :: -(-largest // THUMBNAIL)]
    panel = picture(title, small)
    del panel["values"]  # a strip shows no numbers
    return {**panel, "number": number, "mark": mark}


def scaled_picture(title: str, values: Tensor, low: float, high: float) -> dict[str, Any]:
    """A panel with positive numbers (C, H, W), the mean of its channels, on a log scale."""
    mean = pictures(values[None], mean=True)[0]
    shown = SCALE(LogNorm(low, high, clip=True)(mean))
    return _panel(f"{title}, {values.min():.2f} to {values.max():.2f}", shown, values)


def _panel(title: str, shown: np.ndarray, values: Tensor) -> dict[str, Any]:
    height, width = shown.shape[:2]
    rgba = np.full((height, width, 4), 255, dtype=np.uint8)
    rgba[..., :3] = np.round(255 * shown[..., :3])
    numbers = values.mean(dim=0).float().contiguous().numpy()
    return {
        "title": title,
        "width": width,
        "height": height,
        "rgba": rgba.tobytes(),
        "values": numbers.tobytes(),
    }


def shape(region: Region, color: str, *, dash: str, width: float, fill: float) -> dict[str, Any]:
    """A region on the plane."""
    return {
        "center": region.center.tolist(),
        "axes": region.axes.expand(2).tolist(),
        "norm": region.norm,
        "color": color,
        "dash": dash,
        "width": width,
        "fill": fill,
    }


def swatch(method: Method) -> str:
    """A method's name after a square of its colour."""
    square = f'<span style="color:{method.color}">&#9632;</span>'
    return f"{square} {html.escape(method.label)}"


def error_box(error: Exception) -> str:
    """What went wrong, in place of what cannot be shown."""
    return f'<p class="ancer-error">{html.escape(str(error))}</p>'


def grid(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table as HTML; what is in it is HTML already."""
    head = "</th><th>".join(heads)
    body = ""
    for line in lines:
        body += f"<tr><td>{'</td><td>'.join(line)}</td></tr>"
    return (
        f'<table class="ancer-table"><thead><tr><th>{head}</th></tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def inside(scaled: float) -> str:
    """Whether what is so far from the center, in units of the region's end, is in the region."""
    if scaled == float("inf"):
        return "abstains"
    word = "inside" if scaled < 1 else "outside"
    return f'<span class="ancer-{word}">{word}, {scaled:.2f}</span>'
