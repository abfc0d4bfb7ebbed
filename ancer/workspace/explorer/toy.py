"""The explorer of the half-moons: a point to be dragged, and its regions for both norms."""

from pathlib import Path

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
import torch

from ancer.certificates.certificate import Certificate
from ancer.regions.answer import Answer
from ancer.regions.region import size
from ancer.workspace.explorer.moons import Moons
from ancer.workspace.explorer.widgets import Plane, Turns, error_box, grid, shape, swatch
from ancer.workspace.figures.plane import MOONS

TITLES = {2: "l2, Gaussian noise", 1: "l1, uniform noise"}
HEADS = ("norm", "method", "class", "p_a_lower", "radius", "proxy radius", "answer")
LEGEND = (
    "<p>Ground: the network's probability of the upper class (green) and the lower (purple). "
    "Outlines: the point's certificates. Filled: what the memory answers; pale: regions that it "
    "holds.</p>"
)
CLASSES = {0: "upper", 1: "lower"}


class Toy(widgets.VBox):
    """The half-moons: a point, its regions, and those that a memory holds already.

    profile: a folder with params.yaml, or None for the nearest one upwards.
    """

    def __init__(self, profile: str | Path | None = None):
        self.message = widgets.HTML()
        self.verdict = widgets.HTML()
        self._turns = Turns()  # a point that is set on the other plane is no step of its own
        super().__init__([self.message])
        try:
            self._moons = Moons(profile=profile)
        except FileNotFoundError as error:
            self.message.value = error_box(error)
            return
        self.planes = {norm: self._plane(norm, title) for norm, title in TITLES.items()}
        planes = widgets.HBox(
            list(self.planes.values()), layout=widgets.Layout(flex_flow="row wrap")
        )
        self.children = [self.message, planes, self.verdict]
        self.move([0.5, 0.3])

    def _plane(self, norm: int, title: str) -> Plane:
        plane = Plane(title=title)
        colors = mpl.colormaps["PRGn"](self._moons.landscape(norm).numpy())
        rgba = (255 * colors).astype(np.uint8)
        plane.landscape = {"side": len(colors), "rgba": rgba.tobytes()}
        plane.observe(lambda change: self.move(change["new"]), names="point")
        return plane

    def move(self, point: list[float]) -> None:
        """Certify the point for both norms and pass it through each norm's memory."""
        self._turns.take(lambda: self._answer(point))

    def _answer(self, point: list[float]) -> None:
        """Both planes' regions at a point, and the table."""
        x = torch.tensor(point)[None]
        lines = []
        for norm, plane in self.planes.items():
            found = self._moons.certify(norm, x)
            certificates = {name: of_points[0] for name, of_points in found.items()}
            others, answer = self._moons.answers(norm, certificates[self._moons.last])
            with plane.hold_sync():
                plane.regions = self._shapes(certificates, others, answer)
                plane.point = point
            lines += self._lines(norm, certificates, answer)
        self.verdict.value = f"{LEGEND}{grid(HEADS, lines)}<p>All regions: {answer.arithmetic}.</p>"

    def _shapes(
        self, certificates: dict[str, Certificate], others: list[Answer], answer: Answer
    ) -> list[dict]:
        """The crowd's regions, the answer's, and outlines of the certificates'."""
        shapes = []
        for other in others:
            if other.region is not None:
                color = MOONS[other.prediction]
                shapes.append(shape(other.region, color, dash="", width=0.5, fill=0.05))
        if answer.region is not None:
            color = MOONS[answer.prediction]
            shapes.append(shape(answer.region, color, dash="", width=0, fill=0.4))
        methods = self._moons.profile.methods
        for name, certificate in certificates.items():
            if certificate.region is not None:
                dash = " ".join(f"{2 * part:g}" for part in methods[name].dashes)
                color = methods[name].color
                shapes.append(shape(certificate.region, color, dash=dash, width=2.2, fill=0))
        return shapes

    def _lines(
        self, norm: int, certificates: dict[str, Certificate], answer: Answer
    ) -> list[list[str]]:
        """Of each method the certificate of the point, and what the memory answers."""
        methods = self._moons.profile.methods
        lines = []
        for name, certificate in certificates.items():
            lines.append(
                [
                    f"l{norm}",
                    swatch(methods[name]),
                    CLASSES.get(certificate.prediction, "abstains"),
                    f"{certificate.p_a_lower:.3f}",
                    f"{certificate.radius:.3f}",
                    f"{certificate.proxy_radius:.3f}",
                    "",
                ]
            )
        lines.append(
            [
                f"l{norm}",
                swatch(methods[self._moons.last]),
                CLASSES.get(answer.prediction, "abstains"),
                "",
                f"{size(answer.region, 'radius'):.3f}",
                f"{size(answer.region, 'proxy_radius'):.3f}",
                f"with memory: {answer.event}, {answer.conflicts} conflicts",
            ]
        )
        return lines
