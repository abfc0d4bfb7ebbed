"""What an experiment is about, as params.yaml has it: its network, noise, methods and images."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from ancer.bases.basis import Basis
from ancer.bases.named import basis_named
from ancer.bases.own import pca
from ancer.datasets.dataset import Dataset
from ancer.datasets.loading import load as load_data
from ancer.noise.law import Noise
from ancer.noise.named import NOISES
from ancer.noise.splitting import SplittingNoise
from ancer.registry import find
from ancer.workspace.methods import Method, Methods, methods_of, suits
from ancer.workspace.parameters.models import PCA, ExperimentSection, Parameters
from ancer.workspace.places import Places

PCA_IMAGES = 10_000  # that it is fitted to, at most


@dataclass(frozen=True, eq=False)
class Settings(Places):
    """A folder with params.yaml; parameters: those that the stage may read."""

    parameters: Parameters

    @cached_property
    def methods(self) -> Methods:
        """All methods, in their order."""
        return methods_of(self.parameters)


@dataclass(frozen=True, eq=False)
class Subject:
    """One network on one data set under one noise, in a profile."""

    profile: Settings
    name: str

    @property
    def parameters(self) -> Parameters:
        """The profile's, as far as the stage sees them."""
        return self.profile.parameters

    @property
    def section(self) -> ExperimentSection:
        """Its own parameters."""
        return self.parameters.experiments[self.name]

    @property
    def recipe(self):
        """How its network is trained, or whose checkpoint it is."""
        return self.parameters.train[self.section.training]

    @property
    def kind(self) -> type[Noise]:
        """The law of the training noise."""
        return find(self.section.noise, NOISES, "noise")

    @cached_property
    def law(self) -> Noise:
        """The training noise; for images as they are, where the law depends on their lattice."""
        if issubclass(self.kind, SplittingNoise):
            return self.kind.from_sigma(self.section.sigma, lattice=self.data.lattice)
        return self.kind.from_sigma(self.section.sigma)

    @property
    def noise(self) -> list:
        """The training noise as provenance has it: its law and sigma."""
        return [self.section.noise, self.section.sigma]

    @property
    def norm(self) -> int:
        """The p of its radii."""
        return self.kind.norm

    @cached_property
    def methods(self) -> Methods:
        """Its methods, with its own options."""
        where = f"experiments.{self.name}.method_options"
        return self.profile.methods.with_options(self.section.method_options, where)

    @cached_property
    def certified_methods(self) -> dict[str, Method]:
        """Those that it certifies, by name."""
        names: Iterable[str] | None = self.section.methods
        if not names:
            suited = partial(suits, self.methods, noise=self.section.noise)
            names = filter(suited, self.parameters.certify.methods or self.methods)
        return {name: self.methods[name] for name in names}

    @property
    def classes(self) -> dict[str, str]:
        """Whose probabilities each method's certificates bound: one, or two."""
        planned = self.parameters.certify.classes
        methods = self.certified_methods.items()
        return {name: method.classes or planned for name, method in methods}

    @cached_property
    def chosen_methods(self) -> dict[str, Method]:
        """Those whose theta its certificates need and a function chooses, each after its start."""
        return self.methods.chosen(self.certified_methods)

    def basis(self, method: str) -> Basis:
        """The basis of a method's certificates, for its images."""
        return self.basis_named(self.methods.basis(method))

    def bases(self, methods: Iterable[str]) -> dict[str, Basis]:
        """The bases of some methods."""
        return {method: self.basis(method) for method in methods}

    def basis_named(self, name: str) -> Basis:
        """The basis of a name for its images; `pca` is fitted to the first training images."""
        if name == PCA:
            return self._pca
        return basis_named(name, tuple(self.data.images.shape[1:]))

    @cached_property
    def _pca(self) -> Basis:
        data = self._load(split="train")
        return pca(data.take(data.indices[:PCA_IMAGES]).images, name=PCA)

    @cached_property
    def data(self) -> Dataset:
        """Its test images."""
        return self.some_data(self.parameters.images)

    def images_of(self, method: str) -> dict[int, str]:
        """The test images that a method runs on: number -> digest, in their order."""
        digests = list(self.data.digest_of.items())
        return dict(digests[: self.methods.images(method, len(digests))])

    def some_data(self, images: int | None) -> Dataset:
        """The first so many of its test images."""
        return self._load(images=images, every=self.parameters.every)

    def training_data(self) -> Dataset:
        """The images that its network is trained on; all, where others trained it."""
        return self._load(split="train", every=getattr(self.recipe, "every", 1))

    def _load(self, **choice: Any) -> Dataset:
        section = self.section
        choice |= {"convert": section.convert, "classes": section.classes}
        limits = self.parameters.limits.limits()
        return load_data(section.dataset, self.profile.folder, limits=limits, **choice)

    @property
    def lattice(self) -> float | None:
        """The step on which its noise is drawn when it is certified; None in floating point."""
        return self.data.lattice if self.parameters.certify.exact else None
