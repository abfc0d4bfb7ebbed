"""The half-moons: a point's certificates and what a memory answers, as numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ancer.certificates.certificate import Certificate
from ancer.certificates.many import Certificates
from ancer.certification import certify
from ancer.classifier import Classifier
from ancer.datasets.loading import load
from ancer.models import checkpoints
from ancer.noise.law import Noise
from ancer.noise.sampled import LAWS
from ancer.regions.answer import Answer
from ancer.regions.memory import Memory
from ancer.workspace.experiment import Profile
from ancer.workspace.figures.plane import square_points


@dataclass(frozen=True)
class Scene:
    """The network for one law, and the certificates of the crowd."""

    classifier: Classifier
    law: Noise


class Moons:
    """The networks of the toy stage, and its crowd of test points, certified.

    crowd: points (M, 2). Raises FileNotFoundError where the stage has still to run.
    """

    def __init__(self, *, profile: str | Path | None = None):
        self.profile = Profile.open(profile)
        section = self.profile.parameters.toy
        self.crowd = load("moons").images[: section.crowd]
        self._scenes: dict[int, Scene] = {}
        self._crowds: dict[int, Certificates] = {}
        for law in LAWS.values():
            path = self.profile.file("toy", f"l{law.norm}")
            if not path.is_file():
                raise FileNotFoundError(
                    f"no network at {path}: run the toy stage (dvc repro toy) first"
                )
            classifier = Classifier(checkpoints.load(path))
            self._scenes[law.norm] = Scene(classifier, law.from_sigma(section.sigma))
            certified = self.certify(law.norm, self.crowd, [self.last])
            self._crowds[law.norm] = certified[self.last]

    @property
    def last(self) -> str:
        """The method whose certificates the memory answers with."""
        return self.profile.parameters.toy.methods[-1]

    def landscape(self, norm: int, points: int = 101) -> Tensor:
        """The network's probability of the upper class on a grid over [0, 1]^2: (points, points).

        x_1 to the right.
        """
        with torch.inference_mode():
            found = self._scenes[norm].classifier.probabilities(square_points(points))
        return found[:, 0].reshape(points, points)

    def certify(
        self, norm: int, x: Tensor, methods: Sequence[str] | None = None
    ) -> dict[str, Certificates]:
        """Certificates of points x (B, 2) by method, with the toy's parameters."""
        scene = self._scenes[norm]
        parameters = self.profile.parameters
        names = methods or parameters.toy.methods
        noises = self.profile.methods.noises(names, scene.classifier, x, scene.law, parameters.seed)
        found = {}
        for name in names:
            found[name] = certify(
                scene.classifier,
                x,
                noises[name],
                n=parameters.toy.n,
                alpha=parameters.certify.alpha,
                seed=parameters.seed,
            )
        return found

    def answers(self, norm: int, certificate: Certificate) -> tuple[list[Answer], Answer]:
        """The memory's answers to the crowd, and then to the certificate."""
        with Memory() as memory:
            others = list(map(memory.answer, self._crowds[norm]))
            return others, memory.answer(certificate)
