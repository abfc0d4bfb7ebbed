"""One image or point, its certificates and what a perturbation does to it: what the explorer shows, as numbers."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from ancer import datasets, models, noise, store
from ancer.certification import Certificate, certify
from ancer.geometry import scaled_norm
from ancer.memory import Answer, Memory
from ancer.optimization import optimize_anisotropic, optimize_isotropic
from ancer.pipeline import load_parameters
from ancer.regions import Region
from ancer.smoothing import SmoothedClassifier, generator

DIRECTIONS = ("random", "gradient", "largest axis", "smallest axis", "another image")


class Study:
    """An experiment as the pipeline left it: test images, network, theta and certificates of each method.

    Raises FileNotFoundError or ValueError that says what to run where one is missing.
    """

    def __init__(self, name: str, *, profile: str | Path | None = None):
        p = load_parameters(name, profile=profile)
        e = p.experiment
        rows = store.read_rows(p.folder / f"results/rows/{name}.csv")
        self.rows, self.methods = rows.set_index(["method", "idx"]), rows["method"].unique().tolist()
        self.data = datasets.load(e.dataset, p.folder, images=p.images, every=p.every)
        checkpoint = p.folder / f"data/checkpoints/{name}.safetensors"
        network = models.load(checkpoint, classes=len(self.data.classes))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.classifier = models.Classifier(network.to(device), **vars(p.evaluate))
        self.noise, self.seed = noise.LAWS[e.noise].from_sigma(e.sigma), p.seed
        self._theta = p.folder / f"data/theta/{name}.safetensors"
        self._lattice = self.data.lattice if p.certify.exact else None  # on which certify drew
        self.look(0)

    def look(self, k: int) -> "Look":
        """The k-th of the images that were certified."""
        one = self.data.take([self.data.index.tolist()[k]])
        indices = one.index.tolist()
        theta = store.read_sampled_theta(self._theta, one.images, indices, self.noise, self._lattice)
        return Look(self, one, {m: self.rows.loc[(m, indices[0])] for m in self.methods}, theta)


class Look:
    """One image of a study. x, (C, H, W); label; and of each method the row of its certificate, theta (like x, as it
    was sampled), region (None where it abstains).
    """

    def __init__(self, study: Study, one: datasets.Dataset, rows: dict, theta: dict[str, Tensor]):
        self.study, self.x, self.label, self.rows = study, one.images[0], int(one.labels[0]), rows
        self.theta = {m: theta[r["candidate"]][0].double().expand_as(self.x) for m, r in rows.items()}
        self.regions = {
            m: Region(self.x, self.theta[m] * r["gap"], study.noise.norm) if r["gap"] > 0 else None
            for m, r in rows.items()
        }

    def direction(self, kind: str, method: str, other: int = 0) -> Tensor:
        """A direction of lp norm 1, like x: one of DIRECTIONS.

        random: a draw of the noise. gradient: down the margin of the network's class. largest, smallest axis: of
        method's theta, towards the middle of [0, 1]. another image: towards the other-th image of the study.
        Raises ValueError for another word, or where there is no direction.
        """
        if kind == "random":
            stream = generator(self.study.seed, "predict", 0, torch.device("cpu"))
            u = self.study.noise.unit(self.x.shape, generator=stream, dtype=torch.float64)
        elif kind == "gradient":
            u = -self._margin_gradient()
        elif kind in ("largest axis", "smallest axis"):
            theta = self.theta[method].flatten()
            at = theta.argmax() if kind == "largest axis" else theta.argmin()
            u = torch.zeros_like(theta)
            u[at] = 1.0 if self.x.flatten()[at] < 0.5 else -1.0
        elif kind == "another image":
            u = self.study.data.images[other].double() - self.x.double()
        else:
            raise ValueError(f"the direction must be one of {', '.join(DIRECTIONS)}, found {kind!r}")
        u = u.reshape(self.x.shape).double()
        size = u.flatten().norm(p=self.study.noise.norm)
        if not size > 0:
            raise ValueError(f"there is no direction towards '{kind}' here: choose another image")
        return u / size

    def _margin_gradient(self) -> Tensor:
        classifier = self.study.classifier
        x = self.x[None].to(classifier.device).requires_grad_()
        top = classifier(x).topk(2, dim=1).values[0]
        (gradient,) = torch.autograd.grad(top[0] - top[1], x)
        return gradient[0].cpu()

    def moved(self, u: Tensor, size: float) -> Tensor:
        """x + size * u, kept in [0, 1], where images live: like x."""
        return (self.x.double() + size * u).clamp(0, 1).to(self.x.dtype)

    def scaled_size(self, method: str, y: Tensor) -> float:
        """||(y - x) / axes||_p: below 1 inside the region of method; infinite where it abstains."""
        region = self.regions[method]
        if region is None:
            return float("inf")
        u = (y.double() - self.x.double()).reshape(1, -1)
        return scaled_norm(u, region.flat_axes, region.norm).item()

    def reach(self, method: str, u: Tensor) -> float:
        """The size up to which `moved` stays in the region of method; infinite where it never leaves it."""
        if self.regions[method] is None:
            return 0.0
        largest = (1 / u[u != 0].abs().min()).item()  # where every pixel that moves is 0 or 1
        if self.scaled_size(method, self.moved(u, largest)) < 1:
            return float("inf")
        low, high = 0.0, largest
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.scaled_size(method, self.moved(u, middle)) < 1 else (low, middle)
        return low

    def limit(self, u: Tensor) -> float:
        """A size beyond all regions in this direction, where there is one; else where a pixel has moved by 1."""
        reaches = [r for r in (self.reach(m, u) for m in self.rows) if 0 < r < float("inf")]
        return 1.3 * max(reaches) if reaches else (1 / u.abs().max()).item()

    def network(self, y: Tensor) -> Tensor:
        """The network's class probabilities at y: (K,)."""
        classifier = self.study.classifier
        with torch.inference_mode():
            return classifier.probabilities(y[None].to(classifier.device))[0].cpu()

    def votes(self, method: str, y: Tensor) -> Tensor:
        """Votes at y under noise of method's theta, as many as one batch: int64 (K,)."""
        law, classifier = type(self.study.noise), self.study.classifier
        smoothed = SmoothedClassifier(classifier, law(self.theta[method][None]))
        return smoothed.counts(y[None], classifier.batch_size, seed=self.study.seed, purpose="predict")[0]


class Moons:
    """The networks of the toy stage, and its crowd of test points, certified.

    crowd: points (M, 2). Raises FileNotFoundError where the stage has still to run.
    """

    def __init__(self, *, profile: str | Path | None = None):
        self._p = load_parameters(profile=profile)
        t = self._p.toy
        self.crowd = datasets.load("moons").images[: t.crowd]
        self._scenes = {}
        for law in noise.LAWS.values():
            path = self._p.folder / f"data/toy/l{law.norm}.safetensors"
            if not path.is_file():
                raise FileNotFoundError(f"no network at {path}: run the toy stage (dvc repro toy) first")
            scene = SimpleNamespace(classifier=models.Classifier(models.load(path)), start=law.from_sigma(t.sigma))
            self._scenes[law.norm] = scene
            scene.crowd = self.certify(law.norm, self.crowd, ["anisotropic"])["anisotropic"]

    def landscape(self, norm: int, points: int = 101) -> Tensor:
        """The network's probability of the upper class on a grid over [0, 1]^2, x_1 to the right: (points, points)."""
        grid = torch.linspace(0, 1, points)
        x2, x1 = torch.meshgrid(grid, grid, indexing="ij")
        with torch.inference_mode():
            found = self._scenes[norm].classifier.probabilities(torch.stack([x1, x2], dim=-1).reshape(-1, 2))
        return found[:, 0].reshape(points, points)

    def certify(
        self, norm: int, x: Tensor, methods: Sequence[str] = ("fixed", "isotropic", "anisotropic")
    ) -> dict[str, list[Certificate]]:
        """Certificates of points x (B, 2) by method, with the toy's parameters."""
        scene, p = self._scenes[norm], self._p
        law, f = type(scene.start), scene.classifier
        isotropic = law(optimize_isotropic(f, x, scene.start, seed=p.seed))
        anisotropic = law(optimize_anisotropic(f, x, isotropic, seed=p.seed))
        laws = {"fixed": scene.start, "isotropic": isotropic, "anisotropic": anisotropic}
        return {m: certify(f, x, laws[m], n=p.toy.n, alpha=p.certify.alpha, seed=p.seed) for m in methods}

    def answers(self, norm: int, certificate: Certificate) -> tuple[Sequence[Answer], Answer]:
        """The memory's answers to the crowd, and then to the certificate."""
        with Memory() as memory:
            others = [memory.answer(c) for c in self._scenes[norm].crowd]
            return others, memory.answer(certificate)
