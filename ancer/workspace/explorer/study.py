"""One image, its certificates and what a perturbation does to it: the explorer's numbers."""

import math
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from ancer.bases.basis import Basis
from ancer.bases.lattice import nearest
from ancer.datasets.dataset import Dataset
from ancer.perturbations.coverage import covered_severity
from ancer.perturbations.families import Family, families_for
from ancer.regions.region import ABSTAIN, Region
from ancer.smoothing import SmoothedClassifier
from ancer.streams import generator
from ancer.workspace.experiment import Experiment

DIRECTIONS = ("random", "gradient", "largest axis", "smallest axis", "another image")
Way = Tensor | Family  # a direction, or what happens to pictures


class Study:
    """An experiment as the pipeline left it: test images, network, theta and certificates.

    Raises FileNotFoundError or ValueError that says what to run where one is missing.
    """

    def __init__(self, name: str, *, profile: str | Path | None = None):
        self.experiment = Experiment.open(name, profile=profile)
        rows = self.experiment.rows(self.experiment.data)
        self.rows = rows.set_index(["method", "idx"])
        self.methods = rows["method"].unique().tolist()
        self.data = self.experiment.data
        self.classifier = self.experiment.classifier
        self.law = self.experiment.law
        self.seed = self.experiment.parameters.seed
        self.families = families_for(tuple(self.data.images.shape[1:]))
        self.look(0)

    def certified(self, method: str) -> pd.DataFrame:
        """Of each image that the method ran on, by its position: whether it is wrong or abstains.

        Columns wrong, abstains, and proxy_radius.
        """
        rows = self.rows.loc[method]
        abstains = rows["prediction"] == ABSTAIN
        wrong = ~abstains & (rows["prediction"] != rows["label"])
        found = rows.assign(wrong=wrong, abstains=abstains).rename(index=self.data.position_of)
        return found[["wrong", "abstains", "proxy_radius"]]

    def look(self, k: int) -> "Look":
        """The k-th of the images, by the methods that ran on it."""
        one = self.data.take([self.data.indices[k]])
        theta = self.experiment.theta(one, self.experiment.lattice)
        bases = self.experiment.bases(self.methods)
        rows = {}
        for name in self.methods:
            if (name, one.indices[0]) in self.rows.index:
                rows[name] = self.rows.loc[(name, one.indices[0])]
        return Look(self, one, rows, theta, bases)


class Look:
    """One image of a study.

    x, (C, H, W); label; and of each method the row of its certificate, basis, theta (like x, as it
    was sampled), region (None where it abstains).
    """

    def __init__(
        self,
        study: Study,
        one: Dataset,
        rows: dict[str, pd.Series],
        theta: dict[str, Tensor],
        bases: dict[str, Basis],
    ):
        self.study = study
        self.bases = bases
        self.x = one.images[0]
        self.label = int(one.labels[0])
        self.rows = rows
        self.theta: dict[str, Tensor] = {}
        self.regions: dict[str, Region | None] = {}
        for name, row in rows.items():
            scales = theta[row["candidate"]][0].double().expand_as(self.x)
            self.theta[name] = scales
            self.regions[name] = None
            if row["gap"] > 0:
                axes = scales * row["gap"]
                self.regions[name] = Region(self.x, axes, study.law.norm, bases[name])

    def direction(self, kind: str, method: str, other: int = 0) -> Way:
        """A direction of lp norm 1, like x: one of DIRECTIONS; or one of the study's families.

        random: a draw of the noise. gradient: down the margin of the network's class. largest,
        smallest axis: of method's theta, towards the middle of [0, 1]. another image: towards the
        other-th image of the study. Raises ValueError for another word, or where there is no
        direction.
        """
        families = self.study.families
        if kind in families:
            return families[kind]
        if kind == "random":
            u = self._random()
        elif kind == "gradient":
            u = -self._margin_gradient()
        elif kind in ("largest axis", "smallest axis"):
            u = self._axis(method, largest=kind == "largest axis")
        elif kind == "another image":
            u = self.study.data.images[other].double() - self.x.double()
        else:
            raise ValueError(
                f"the direction must be one of {', '.join([*DIRECTIONS, *families])}, "
                f"found {kind!r}"
            )
        u = u.double()
        size = u.flatten().norm(p=self.study.law.norm)
        if not size > 0:
            raise ValueError(f"there is no direction towards '{kind}' here: choose another image")
        return u / size

    def _random(self) -> Tensor:
        stream = generator(self.study.seed, "predict", 0, torch.device("cpu"))
        return self.study.law.unit(self.x.shape, generator=stream, dtype=torch.float64)

    def _margin_gradient(self) -> Tensor:
        classifier = self.study.classifier
        x = self.x[None].to(classifier.device).requires_grad_()
        top = classifier(x).topk(2, dim=1).values[0]
        (gradient,) = torch.autograd.grad(top[0] - top[1], x)
        return gradient[0].cpu()

    def _axis(self, method: str, *, largest: bool) -> Tensor:
        theta = self.theta[method].flatten()
        at = theta.argmax() if largest else theta.argmin()
        unit = torch.zeros_like(theta)
        unit[at] = 1.0
        u = self.bases[method].back(unit.reshape(self.x.shape))
        return u if (u * (0.5 - self.x)).sum() >= 0 else -u

    def moved(self, u: Way, size: float) -> Tensor:
        """x + size * u, or a family's x(size); kept in [0, 1], where images live: like x."""
        if isinstance(u, Family):
            return u(self.x[None], size)[0] if size > 0 else self.x
        return (self.x.double() + size * u).clamp(0, 1).to(self.x.dtype)

    def scaled_size(self, method: str, y: Tensor) -> float:
        """||(y - x) / axes||_p: below 1 inside the region of method; infinite if it abstains."""
        region = self.regions[method]
        if region is None:
            return float("inf")
        return region.scaled_distance(y)

    def reach(self, method: str, u: Way) -> float:
        """The size up to which `moved` stays in the region; infinite where it never leaves it.

        Of a family, the severity that the region covers.
        """
        region = self.regions[method]
        if region is None:
            return 0.0
        if isinstance(u, Family):
            axes = region.axes.expand(1, *self.x.shape)
            covered = covered_severity(
                u, self.x[None], axes, region.norm, self.bases[method]
            ).item()
            return math.inf if covered == u.severities[-1] else covered
        largest = (1 / u[u != 0].abs().min()).item()  # where every pixel that moves is 0 or 1
        if self.scaled_size(method, self.moved(u, largest)) < 1:
            return float("inf")
        low = 0.0
        high = largest
        for _ in range(60):
            middle = (low + high) / 2
            if self.scaled_size(method, self.moved(u, middle)) < 1:
                low = middle
            else:
                high = middle
        return low

    def limit(self, u: Way) -> float:
        """A size beyond all regions in this direction; where there is none, a pixel's move by 1.

        Of a family, at most its last severity.
        """
        largest = 0.0
        for name in self.rows:
            reach = self.reach(name, u)
            if reach < math.inf:
                largest = max(largest, reach)
        if isinstance(u, Family):
            return min(1.3 * largest, u.severities[-1]) or u.severities[-1]
        return 1.3 * largest or (1 / u.abs().max()).item()

    def network(self, y: Tensor) -> Tensor:
        """The network's class probabilities at y: (K,)."""
        classifier = self.study.classifier
        with torch.inference_mode():
            return classifier.probabilities(y[None].to(classifier.device))[0].cpu()

    def votes(self, method: str, y: Tensor) -> Tensor:
        """Votes at y under noise of method's theta, as many as one batch: int64 (K,)."""
        law = self.study.law.in_basis(self.bases[method])
        classifier = self.study.classifier
        smoothed = SmoothedClassifier(classifier, law.with_theta(self.theta[method][None]))
        x = y[None] if law.lattice is None else nearest(y[None], law.lattice)
        draws = classifier.batch_size
        return smoothed.counts(x, draws, seed=self.study.seed, purpose="predict")[0]
