"""The explorer: widgets for JupyterLab that show what certificates say of an image and of its perturbations."""

import html
import math
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.colors import LogNorm
from torch import Tensor

try:
    import anywidget
    import ipywidgets as widgets
    import traitlets
except ImportError:
    raise ImportError("the explorer needs its widgets: pip install 'ancer[explore]' (here: -e '.[explore]')") from None

from ancer.certification import ABSTAIN
from ancer.pipeline import load_parameters
from ancer.plots import COLORS, MOONS, pictures
from ancer.probe import DIRECTIONS, Look, Moons, Study
from ancer.regions import Region
from ancer.results import METHODS

WEB = Path(__file__).parent / "web"
SCALE = mpl.colormaps["viridis"]
DASHES = {"fixed": "2 3", "isotropic": "6 3", "anisotropic": ""}


class Pictures(anywidget.AnyWidget):
    """Small pictures side by side, their scale, and bars that end where each region ends."""

    _esm, _css = WEB / "pictures.js", WEB / "explore.css"
    panels = traitlets.List().tag(sync=True)  # title, width, height, rgba (bytes), values (float32 bytes)
    scale = traitlets.Dict().tag(sync=True)  # colors, low, high: of theta and semi-axes
    bars = traitlets.Dict().tag(sync=True)  # size, limit, methods: of label, color, reach


class Plane(anywidget.AnyWidget):
    """A class landscape over [0, 1]^2 with regions, and a point to be dragged."""

    _esm, _css = WEB / "plane.js", WEB / "explore.css"
    title = traitlets.Unicode().tag(sync=True)
    landscape = traitlets.Dict().tag(sync=True)  # side, rgba (bytes), the upper row last
    point = traitlets.List([0.5, 0.5]).tag(sync=True)
    regions = traitlets.List().tag(sync=True)  # center, axes, norm, color, dash, width, fill


class Explorer(widgets.VBox):
    """Images of an experiment, their certificates, and a perturbation to be dragged; see notebooks/explore.ipynb.

    profile: a folder with params.yaml, or None for the nearest one upwards. Where a result is missing, the explorer
    says what to run.
    """

    def __init__(self, profile: str | Path | None = None):
        self._profile, self._busy, self._failed = profile, False, False
        names = list(load_parameters(profile=profile).experiments)
        style = {"style": {"description_width": "6.5em"}, "layout": widgets.Layout(width="22em", max_width="100%")}
        self.experiment = widgets.Dropdown(options=names, description="experiment", **style)
        self.image = widgets.IntSlider(description="image", **style)
        self.method = widgets.Dropdown(description="method", **style)
        self.direction = widgets.Dropdown(options=DIRECTIONS, description="direction", **style)
        self.other = widgets.IntSlider(description="other image", disabled=True, **style)
        wide = widgets.Layout(width="44.5em", max_width="100%")
        self.size = widgets.FloatSlider(description="size", readout_format=".3f", style=style["style"], layout=wide)
        self.pictures, self.verdict, self.table = Pictures(), widgets.HTML(), widgets.HTML()
        self.message = widgets.HTML()
        for control, changed in [
            (self.experiment, self._open),
            (self.image, self._look),
            (self.method, self._turn),
            (self.direction, self._turn),
            (self.other, self._turn),
            (self.size, self._move),
        ]:
            control.observe(lambda _, changed=changed: self._take(changed), names="value")
        controls = [self.image, self.method, self.direction, self.other, self.size]
        rows = widgets.HBox(controls, layout=widgets.Layout(flex_flow="row wrap"))
        self._results = widgets.VBox([self.pictures, self.verdict, self.table])
        super().__init__([self.experiment, rows, self.message, self._results])
        self._take(self._open)

    def _take(self, step: Callable[[], None]) -> None:
        """Take a step, which may set other controls; where it cannot be taken, say why in place of the pictures."""
        if self._busy:  # a control that a step has set
            return
        self._busy, error = True, ""
        try:
            (self._open if self._failed else step)()
        except (FileNotFoundError, KeyError, ValueError) as found:
            error = f'<p class="ancer-error">{html.escape(str(found))}</p>'
        self._busy, self._failed, self.message.value = False, bool(error), error
        self._results.layout.display = "none" if error else None

    def _open(self) -> None:
        """Another experiment."""
        self._study = Study(self.experiment.value, profile=self._profile)
        self.image.max = self.other.max = len(self._study.data.images) - 1
        self.method.options = [(METHODS[m], m) for m in self._study.methods]
        self.method.value = max(self._study.methods, key=lambda m: m == "anisotropic")
        self._look()

    def _look(self) -> None:
        """Another image."""
        self._seen = self._study.look(self.image.value)
        self._turn()

    def _turn(self) -> None:
        """Another method or direction; the size keeps its share of what the slider has."""
        self.other.disabled = self.direction.value != "another image"
        if self.other.value == self.image.value:
            self.other.value = (self.image.value + 1) % (self.image.max + 1)
        self._u = self._seen.direction(self.direction.value, self.method.value, self.other.value)
        self._reach = {m: self._seen.reach(m, self._u) for m in self._study.methods}
        share, limit = self.size.value / self.size.max, self._seen.limit(self._u)
        self.size.max = limit
        self.size.step, self.size.value = limit / 200, share * limit
        self._move()

    def _move(self) -> None:
        """Another size."""
        seen, method = self._seen, self.method.value
        y = seen.moved(self._u, self.size.value)
        change = (y - seen.x).double()
        largest = change.abs().max().item()
        low, high = _range(seen)
        panels = [_picture("image", seen.x), _scaled("theta", seen.theta[method], low, high)]
        if seen.regions[method] is not None:
            panels.append(_scaled("semi-axes", seen.regions[method].axes, low, high))
        panels.append(_picture(f"perturbation, grey is 0, white +{largest:.2f}", 0.5 + change / (2 * largest or 1)))
        panels.append(_picture("perturbed image", y))
        marks = [{"label": METHODS[m], "color": COLORS[m], "reach": min(r, 1e9)} for m, r in self._reach.items()]
        scale = [mpl.colors.to_hex(c) for c in SCALE(np.linspace(0, 1, 24))]
        with self.pictures.hold_sync():
            self.pictures.bars = {"size": self.size.value, "limit": self.size.max, "methods": marks}
            self.pictures.scale = {"colors": scale, "low": low, "high": high}
            self.pictures.panels = panels
        self.verdict.value, self.table.value = _verdict(seen, method, y), _table(seen, method, y)


class Toy(widgets.VBox):
    """The half-moons: a point to be dragged, its regions for both norms, and those that a memory holds already.

    profile: as of `Explorer`.
    """

    def __init__(self, profile: str | Path | None = None):
        self.message, self.verdict, self._busy = widgets.HTML(), widgets.HTML(), False
        super().__init__([self.message])
        try:
            self._moons = Moons(profile=profile)
        except FileNotFoundError as error:
            self.message.value = f'<p class="ancer-error">{html.escape(str(error))}</p>'
            return
        self.planes = {
            norm: Plane(title=title) for norm, title in {2: "l2, Gaussian noise", 1: "l1, uniform noise"}.items()
        }
        for norm, plane in self.planes.items():
            shares = mpl.colormaps["PRGn"](self._moons.landscape(norm).numpy())
            plane.landscape = {"side": len(shares), "rgba": (255 * shares).astype(np.uint8).tobytes()}
            plane.observe(lambda change: self.move(change["new"]), names="point")
        planes = widgets.HBox(list(self.planes.values()), layout=widgets.Layout(flex_flow="row wrap"))
        self.children = [self.message, planes, self.verdict]
        self.move([0.5, 0.3])

    def move(self, point: list[float]) -> None:
        """Certify the point for both norms and pass it through each norm's memory, after the crowd."""
        if self._busy:  # the other plane's point, which is set below
            return
        self._busy, x, lines = True, torch.tensor(point)[None], []
        for norm, plane in self.planes.items():
            certificates = {m: c[0] for m, c in self._moons.certify(norm, x).items()}
            others, answer = self._moons.answers(norm, certificates["anisotropic"])
            faint = {"dash": "", "width": 0.5, "fill": 0.16}
            shapes = [_shape(a.region, MOONS[a.prediction], **faint) for a in others if a.region]
            if answer.region:
                shapes.append(_shape(answer.region, MOONS[answer.prediction], dash="", width=0, fill=0.5))
            for m, c in certificates.items():
                if c.region:
                    shapes.append(_shape(c.region, COLORS[m], dash=DASHES[m], width=1.8, fill=0))
                lines.append((norm, METHODS[m], c.prediction, c.p_a_lower, c.radius, c.proxy_radius, ""))
            event = f"with memory: {answer.event}, {answer.conflicts} conflicts"
            proxy = answer.region.proxy_radius if answer.region else 0.0
            radius = answer.region.radius if answer.region else 0.0
            lines.append((norm, METHODS["anisotropic"], answer.prediction, None, radius, proxy, event))
            with plane.hold_sync():
                plane.regions, plane.point = shapes, point
        self.verdict.value, self._busy = _points(lines), False


def _shape(region: Region, color: str, *, dash: str, width: float, fill: float) -> dict:
    style = {"color": color, "dash": dash, "width": width, "fill": fill}
    axes = region.axes.expand(2).tolist()
    return {"center": region.center.tolist(), "axes": axes, "norm": region.norm, **style}


def _range(seen: Look) -> tuple[float, float]:
    """The ends of the scale on which theta and semi-axes of all methods are shown."""
    regions = [r.axes.flatten() for r in seen.regions.values() if r is not None]
    shown = torch.cat([t.flatten() for t in seen.theta.values()] + regions)
    low = shown.min().item()
    return low, max(torch.quantile(shown, 0.99).item(), 1.5 * low)  # of a few pixels theta runs away


def _picture(title: str, image: Tensor) -> dict:
    """A panel with an image (C, H, W) in [0, 1]."""
    shown = pictures(image[None].clamp(0, 1))[0]
    return _panel(title, shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, axis=2), image)


def _scaled(title: str, values: Tensor, low: float, high: float) -> dict:
    """A panel with positive numbers (C, H, W), the mean of its channels, on the logarithmic scale."""
    mean = pictures(values[None], mean=True)[0]
    return _panel(
        f"{title}, {values.min():.2f} to {values.max():.2f}", SCALE(LogNorm(low, high, clip=True)(mean)), values
    )


def _panel(title: str, shown: np.ndarray, values: Tensor) -> dict:
    height, width = shown.shape[:2]
    rgba = np.full((height, width, 4), 255, dtype=np.uint8)
    rgba[..., :3] = np.round(255 * shown[..., :3])
    numbers = values.mean(dim=0).float().contiguous().numpy().tobytes()
    return {"title": title, "width": width, "height": height, "rgba": rgba.tobytes(), "values": numbers}


def _verdict(seen: Look, method: str, y: Tensor) -> str:
    """How large the perturbation is, and what the network and the smoothed network say."""
    study, change = seen.study, (y - seen.x).double().flatten()
    names, norm = study.data.classes, study.noise.norm
    probabilities, votes = seen.network(y), seen.votes(method, y)
    certified = int(seen.rows[method]["prediction"])
    says = "abstains" if certified == ABSTAIN else f"is certified as <b>{names[certified]}</b>"
    return (
        f"<p>The image is a <b>{names[seen.label]}</b> and {says}. The perturbation has "
        f"l{norm} size <b>{change.norm(p=norm):.3f}</b>, largest pixel {change.abs().max():.3f}.<br>"
        f"The network says <b>{names[probabilities.argmax()]}</b> ({probabilities.max():.1%}); smoothed with this "
        f"theta, <b>{names[votes.argmax()]}</b> ({votes.max():,} of {votes.sum():,} votes).</p>"
    )


def _table(seen: Look, method: str, y: Tensor) -> str:
    """Of each method, the certificate, and whether y is inside."""
    ours, lines = seen.rows[method]["log_volume"], []
    for m, row in seen.rows.items():
        scaled = seen.scaled_size(m, y)
        inside = (
            "abstains"
            if scaled == float("inf")
            else f"inside, {scaled:.2f}"
            if scaled < 1
            else f"outside, {scaled:.2f}"
        )
        powers = (row["log_volume"] - ours) / math.log(10)
        volume = f"{powers:+.1f}" if math.isfinite(powers) else ""
        chosen = f" ({METHODS[row['candidate']]})" if m == "best" else ""
        numbers = [f"{row[k]:.3f}" for k in ("p_a_lower", "radius", "proxy_radius", "box_proxy_radius")]
        name = "abstains" if row["prediction"] == ABSTAIN else seen.study.data.classes[int(row["prediction"])]
        swatch = f'<span style="color:{COLORS[m]}">&#9632;</span> {METHODS[m]}{chosen}'
        lines.append([swatch, name, *numbers, f"{row['log_volume']:.1f}", volume, inside])
    heads = ["method", "class", "p_a_lower", "radius", "proxy radius", "box proxy radius", "ln volume"]
    return _grid([*heads, "volume, powers of ten more", "perturbed image"], lines)


def _points(lines: list[tuple]) -> str:
    """Of each norm and method, the certificate of the point, and what the memory answers."""
    shown = [
        [
            f"l{norm}",
            name,
            {0: "upper", 1: "lower"}.get(prediction, "abstains"),
            *("" if v is None else f"{v:.3f}" for v in (p, radius, proxy)),
            event,
        ]
        for norm, name, prediction, p, radius, proxy, event in lines
    ]
    return _grid(["norm", "method", "class", "p_a_lower", "radius", "proxy radius", "answer"], shown)


def _grid(heads: list[str], lines: list[list[str]]) -> str:
    head = "".join(f"<th>{h}</th>" for h in heads)
    body = "".join("<tr>" + "".join(f"<td>{v}</td>" for v in line) + "</tr>" for line in lines)
    return f'<table class="ancer-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
