"""The explorer of images: certificates, and a perturbation to be dragged."""

import html
import math
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

from ancer.bases.lattice import arithmetic
from ancer.regions.region import ABSTAIN
from ancer.workspace.experiment import Profile
from ancer.workspace.explorer.study import DIRECTIONS, Look, Study
from ancer.workspace.explorer.widgets import (
    SCALE,
    Pictures,
    Strip,
    Turns,
    error_box,
    grid,
    inside,
    picture,
    scaled_picture,
    swatch,
    thumbnail,
)
from ancer.workspace.figures.bases import by_band

HEADS = (
    "method",
    "class",
    "p_a_lower",
    "radius",
    "proxy radius",
    "proxy radius in the image box",
    "ln volume",
    "volume, powers of ten more",
    "perturbed image",
)
SHOWN = ("all, in order", "wrong", "abstains", "largest regions first")
STYLE = {"description_width": "6.5em"}
NARROW = widgets.Layout(width="22em", max_width="100%")
WIDE = widgets.Layout(width="44.5em", max_width="100%")
WRAPPED = widgets.Layout(flex_flow="row wrap")


class Explorer(widgets.VBox):
    """Images of an experiment, their certificates, and a perturbation to be dragged.

    See notebooks/explore.ipynb. profile: a folder with params.yaml, or None for the nearest one
    upwards. Where a result is missing, the explorer says what to run.
    """

    def __init__(self, profile: str | Path | None = None):
        self._profile = profile
        self._turns = Turns()
        self._failed = False
        experiments = Profile.open(profile).experiments
        names = []
        for name, experiment in experiments.items():
            made = experiment.file("rows").is_file() and experiment.file("theta").is_file()
            names.append((name if made else f"{name} (not made yet)", name))
        look = {"style": STYLE, "layout": NARROW}
        self.experiment = widgets.Dropdown(options=names, description="experiment", **look)
        self.shown = widgets.Dropdown(options=SHOWN, description="images", **look)
        self.image = Strip()
        self.method = widgets.Dropdown(description="method", **look)
        self.direction = widgets.Dropdown(options=DIRECTIONS, description="direction", **look)
        self.other = widgets.IntSlider(description="other image", disabled=True, **look)
        self.size = widgets.FloatSlider(
            description="size", readout_format=".3f", style=STYLE, layout=WIDE
        )
        self.pictures = Pictures()
        self.verdict = widgets.HTML()
        self.table = widgets.HTML()
        self.message = widgets.HTML()
        self._on(self.experiment, self._open)
        self._on(self.shown, self._list)
        self._on(self.image, self._look)
        self._on(self.method, self._change)
        self._on(self.direction, self._turn)
        self._on(self.other, self._turn)
        self._on(self.size, self._move)
        controls = [self.direction, self.other, self.size]
        choices = [self.experiment, self.method, self.shown]
        self._results = widgets.VBox([self.pictures, self.verdict, self.table])
        super().__init__(
            [
                widgets.HBox(choices, layout=WRAPPED),
                self.image,
                widgets.HBox(controls, layout=WRAPPED),
                self.message,
                self._results,
            ]
        )
        self._take(self._open)

    def _on(self, control: widgets.Widget, step: Callable[[], None]) -> None:
        control.observe(lambda _: self._take(step), names="value")

    def _take(self, step: Callable[[], None]) -> None:
        """Take a step, which may set other controls.

        Where it cannot be taken, say why in place of the pictures.
        """
        self._turns.take(lambda: self._try(step))

    def _try(self, step: Callable[[], None]) -> None:
        error = ""
        try:
            if self._failed:
                self._open()
            else:
                step()
        except (FileNotFoundError, KeyError, ValueError) as found:
            error = error_box(found)
        self._failed = bool(error)
        self.message.value = error
        self._results.layout.display = "none" if error else None

    def _open(self) -> None:
        """Another experiment."""
        self._study = Study(self.experiment.value, profile=self._profile)
        families = self._study.families.items()
        ways = [(family.heading, name) for name, family in families]
        self.direction.options = [*zip(DIRECTIONS, DIRECTIONS, strict=True), *ways]
        last = len(self._study.data) - 1
        self.other.max = last
        self.image.value = min(self.image.value, last)
        self.method.options = []
        self._look()
        self._list()

    def _list(self) -> None:
        """Other images to choose from, as the method certified them."""
        data = self._study.data
        images = self._study.certified(self.method.value)
        if self.shown.value in images:
            images = images[images[self.shown.value]]
        elif self.shown.value == SHOWN[-1]:
            images = images.sort_values("proxy_radius", ascending=False, kind="stable")
        found = []
        for k, line in images.iterrows():
            mark = ""
            said = f"proxy radius {line['proxy_radius']:.3f}"
            for word in ("abstains", "wrong"):
                if line[word]:
                    mark = said = word
            title = f"image {data.indices[k]}: {data.classes[int(data.labels[k])]}, {said}"
            found.append(thumbnail(k, title, mark, data.images[k]))
        self.image.thumbnails = found

    def _change(self) -> None:
        """Another method."""
        self._turn()
        self._list()

    def _look(self) -> None:
        """Another image, and the methods that ran on it."""
        self._seen = self._study.look(self.image.value)
        methods = self._study.experiment.methods
        before = self.method.value or self._study.experiment.parameters.figures.region
        there = list(self._seen.rows)
        self.method.options = [(methods[name].label, name) for name in there]
        self.method.value = before if before in there else there[0]
        self._turn()

    def _turn(self) -> None:
        """Another method or direction; the size keeps its share of what the slider has."""
        self.other.disabled = self.direction.value != "another image"
        if self.other.value == self.image.value:
            self.other.value = (self.image.value + 1) % (self.other.max + 1)
        self._u = self._seen.direction(self.direction.value, self.method.value, self.other.value)
        self._reach = {name: self._seen.reach(name, self._u) for name in self._seen.rows}
        share = self.size.value / self.size.max
        limit = self._seen.limit(self._u)
        self.size.max = limit
        self.size.step = limit / 200
        self.size.value = share * limit
        self._move()

    def _move(self) -> None:
        """Another size."""
        seen = self._seen
        method = self.method.value
        y = seen.moved(self._u, self.size.value)
        low, high, largest = _range(seen)
        methods = self._study.experiment.methods
        marks = []
        for name, reach in self._reach.items():
            mark = {"label": methods[name].label, "color": methods[name].color}
            marks.append({**mark, "reach": min(reach, 1e9)})
        colors = list(map(mpl.colors.to_hex, SCALE(np.linspace(0, 1, 24))))
        with self.pictures.hold_sync():
            self.pictures.bars = {
                "size": self.size.value,
                "limit": self.size.max,
                "methods": marks,
            }
            ends = {"low": low, "high": high, "largest": largest}
            self.pictures.scale = {"colors": colors, **ends}
            self.pictures.panels = _panels(seen, method, y, low, high)
        self.verdict.value = _verdict(seen, method, y)
        self.table.value = _table(seen, method, y)


def _range(seen: Look) -> tuple[float, float, float]:
    """The ends of the scale on which theta and semi-axes of all methods are shown; the largest."""
    shown = list(map(torch.flatten, seen.theta.values()))
    for region in seen.regions.values():
        if region is not None:
            shown.append(region.axes.flatten())
    values = torch.cat(shown)
    low = values.min().item()
    high = torch.quantile(values, 0.99).item()  # of a few pixels theta runs away
    return low, max(high, 1.5 * low), values.max().item()


def _panels(seen: Look, method: str, y: Tensor, low: float, high: float) -> list[dict]:
    change = (y - seen.x).double()
    largest = change.abs().max().item()
    panels = [picture("image", seen.x)]
    basis = seen.bases[method]
    scales = {"theta": seen.theta[method]}
    region = seen.regions[method]
    if region is not None:
        scales["semi-axes"] = region.axes.expand_as(seen.x)
    for what, values in scales.items():
        for band, shown in by_band(basis, values):
            panels.append(scaled_picture(f"{what}{band}", shown, low, high))
    title = f"perturbation, grey is 0, white +{largest:.2f}"
    panels.append(picture(title, 0.5 + change / (2 * largest or 1)))
    panels.append(picture("perturbed image", y))
    return panels


def _class_name(seen: Look, number: int) -> str:
    return html.escape(seen.study.data.classes[number])


def _verdict(seen: Look, method: str, y: Tensor) -> str:
    """How large the perturbation is, and what the network and the smoothed network say."""
    norm = seen.study.law.norm
    change = (y - seen.x).double().flatten()
    probabilities = seen.network(y)
    votes = seen.votes(method, y)
    certified = int(seen.rows[method]["prediction"])
    says = "abstains"
    if certified != ABSTAIN:
        says = f"is certified as <b>{_class_name(seen, certified)}</b>"
        if seen.rows[method]["arithmetic"] == arithmetic(None):
            says += f" ({arithmetic(None)})"
    where = ""
    if seen.regions[method] is not None:
        where = f": {inside(seen.scaled_size(method, y))} of the way to the region's end"
    network_says = _class_name(seen, int(probabilities.argmax()))
    smoothed_says = _class_name(seen, int(votes.argmax()))
    return (
        f"<p>The image is a <b>{_class_name(seen, seen.label)}</b> and {says}. The perturbation, "
        f"kept in [0, 1], has l{norm} size <b>{change.norm(p=norm):.3f}</b>, largest pixel "
        f"{change.abs().max():.3f}{where}.<br>"
        f"The network says <b>{network_says}</b> ({probabilities.max():.1%}); smoothed with this "
        f"theta, <b>{smoothed_says}</b> ({votes.max():,} of {votes.sum():,} votes).</p>"
    )


def _table(seen: Look, method: str, y: Tensor) -> str:
    """Of each method, the certificate, and whether y is inside."""
    methods = seen.study.experiment.methods
    ours = seen.rows[method]["log_volume"]
    lines = []
    for name, row in seen.rows.items():
        chosen = ""
        if methods[name].best_of is not None:
            chosen = f" ({html.escape(methods[row['candidate']].label)})"
        prediction = int(row["prediction"])
        answer = "abstains" if prediction == ABSTAIN else _class_name(seen, prediction)
        powers = (row["log_volume"] - ours) / math.log(10)
        line = [
            swatch(methods[name]) + chosen,
            answer,
            f"{row['p_a_lower']:.3f}",
            f"{row['radius']:.3f}",
            f"{row['proxy_radius']:.3f}",
            _number(row["in_box_proxy_radius"]),
            f"{row['log_volume']:.1f}",
            f"{powers:+.1f}" if math.isfinite(powers) else "",
            inside(seen.scaled_size(name, y)),
        ]
        lines.append(line)
    return grid(HEADS, lines)


def _number(value: float) -> str:
    """To three digits; of NaN, that it was not computed."""
    return "not computed" if math.isnan(value) else f"{value:.3f}"
