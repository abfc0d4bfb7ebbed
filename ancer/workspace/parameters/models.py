"""params.yaml as a whole: recipes of training, methods, experiments, and the sections."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Tag, field_validator, model_validator

from ancer.datasets.limits import Limits
from ancer.training.loop import Recipe
from ancer.workspace.parameters.fields import (
    Count,
    CountOrAll,
    Name,
    Positive,
    Radius,
    Section,
    Share,
    Whole,
    section_of,
)
from ancer.workspace.parameters.sections import (
    Ablations,
    Certify,
    Coverage,
    Evaluate,
    Figures,
    MemorySection,
    Published,
    Statistics,
    Tables,
    Tasks,
    Toy,
    Volumes,
)

PCA = "pca"  # the basis that is fitted to an experiment's training images


class Under(Section):
    """Shifts that training adds to the noise, which is Gaussian then too: see `ancer.jitter`."""

    basis: str
    """In which they are coefficients."""
    light: Radius = 0.0
    """Standard deviation of a shift of all pixels."""
    colour: Radius = 0.0
    """That of a shift along each of two opponent colours."""


class LaterRecipe(section_of(Recipe)):  # type: ignore[misc]
    """How training goes on, on the same images under the same noise."""

    def recipe(self, options: Mapping[str, Any] | None = None) -> Recipe:
        """What `train` takes, with an experiment's own options of the scheme."""
        values = self.model_dump(include={field.name for field in fields(Recipe)})
        return Recipe(**{**values, "options": {**self.options, **(options or {})}})

    @model_validator(mode="after")
    def _in_domain(self) -> "LaterRecipe":
        self.recipe()
        return self


class TrainingRecipe(LaterRecipe):
    """How networks are trained, and on which images."""

    every: Count = 1
    """Every so many of the training images."""
    under: Under | None = None
    """Shifts of light and colour beside the noise, in l2; none where there is none."""
    seed: Whole | None = None
    """Of this network's random streams; the profile's where there is none."""
    then: LaterRecipe | None = None
    """How training goes on when that is done, with an optimizer of its own; none: it ends."""

    def recipes(self, options: Mapping[str, Any] | None = None) -> list[Recipe]:
        """What `train` takes, one after the other; options: an experiment's own of the scheme."""
        first = self.recipe(options)
        return [first] if self.then is None else [first, self.then.recipe()]


class LimitsSection(section_of(Limits)):  # type: ignore[misc]
    """What an image may take, so that files of others do not fill the memory."""

    @model_validator(mode="after")
    def _in_domain(self) -> "LimitsSection":
        self.limits()
        return self

    def limits(self) -> Limits:
        """What `load` takes."""
        return Limits(**self.model_dump())


class PublishedRecipe(Section):
    """A checkpoint of others in place of training; the experiment's options name the file."""

    scheme: Literal["published"]
    """Read instead of trained."""
    source: str
    """Who published it: a key of `models.published.SOURCES`."""


class Normalize(Section):
    """What the network subtracts from pixels in [0, 1] and divides them by, a number a channel."""

    mean: list[float]
    """Subtracted."""
    std: list[Positive]
    """Divided by."""


class WeightsRecipe(Section):
    """A file of weights in place of training; the experiment's options name the file."""

    scheme: Literal["weights"]
    """Read instead of trained, see `models.weights.load_weights`."""
    normalize: Normalize | None
    """Of the pixels, before the network; none where it takes them as they are."""

    @field_validator("normalize", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return None if value == "none" else value


def _kind(recipe: object) -> str:
    scheme = recipe.get("scheme") if isinstance(recipe, dict) else getattr(recipe, "scheme", None)
    return str(scheme) if scheme in ("published", "weights") else "trained"


AnyRecipe = Annotated[
    Annotated[TrainingRecipe, Tag("trained")]
    | Annotated[PublishedRecipe, Tag("published")]
    | Annotated[WeightsRecipe, Tag("weights")],
    Discriminator(_kind),
]


class MethodSection(Section):
    """How theta is chosen; what is not named here is an option of the function `theta`."""

    model_config = ConfigDict(extra="allow")

    label: str | None = None
    """How tables and figures call it; its name where there is none."""
    theta: str | None = None
    """The function that chooses theta, as a dotted path; none: theta of the training noise."""
    start: Name | None = None
    """The method from whose theta it starts."""
    basis: str = "pixels"
    """Whose coordinates theta scales: see `bases.named`, or pca; not pixels is for l2 alone."""
    fit: Count | None = None
    """One theta for all, fitted to the first so many training images; no memory is needed then."""
    best_of: dict[Name, Share] | None = None
    """Certify several methods, each at its share of alpha, and report the largest region."""
    images: Count | None = None
    """The first so many test images are enough, for what is slow; all where there is none."""
    classes: Literal["one", "two"] | None = None
    """Whose probabilities its certificates bound; none: as `certify` has it."""

    @property
    def options(self) -> dict[str, Any]:
        """Options of the function `theta`."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _consistent(self) -> "MethodSection":
        if self.best_of is not None and (self.theta or self.start or self.options):
            raise ValueError("a method with best_of has no theta, start or options of its own")
        if self.theta is None and (self.start or self.options or self.images):
            raise ValueError("without theta a method has no start, options or images of its own")
        if self.theta is None and (self.basis != "pixels" or self.fit):
            raise ValueError("without theta a method has no basis or fit of its own")
        if self.fit and self.images:
            raise ValueError("theta that is fitted to training images is there for all: no images")
        if self.theta is not None and self.start is None:
            raise ValueError("theta needs a start: the method from whose theta it starts")
        if self.best_of and sum(self.best_of.values()) > 1 + 1e-9:
            raise ValueError("the shares of best_of must sum to at most 1")
        return self


class ExperimentSection(Section):
    """One network on one data set under one noise."""

    dataset: str
    """Its name or path (data/README.md)."""
    classes: list[str] | None = None
    """The order of the network's outputs; the data set's classes, sorted, where there is none."""
    convert: bool = False
    """Images of every mode as RGB; elsewhere one that is not stops the run."""
    arch: str
    """The network: one of ours, "torchvision:...", "timm:..." or "package.module:function"."""
    noise: str
    """gaussian: l2; uniform (lambda = sqrt(3) * sigma) and splitting, without chance: l1."""
    sigma: Positive
    """Standard deviation of the training noise."""
    training: Name
    """A recipe of `train`."""
    options: dict[str, Any] = {}
    """Options of the recipe's scheme, or `file`, of a published checkpoint or of weights."""
    methods: list[Name] | None = None
    """Methods to certify here; where none are named, those of `certify` that suit its noise."""
    method_options: dict[Name, dict[str, Any]] = {}
    """Options of methods that this experiment has different."""


class Parameters(Section):
    """A profile's parameters."""

    root: str = "."
    """The way from the profile's folder to the project's, for DVC."""
    seed: Whole = 0
    """Of all random streams."""
    images: CountOrAll
    """Test images of each data set: of every so many, the first so many, or all."""
    every: Count = 1
    """Every so many of the test images."""
    cluster: dict[str, Any] = {}
    """Who optimizes and certifies: {} this process; {local: 4} processes; a Dask cluster."""
    tasks: Tasks = Tasks()
    limits: LimitsSection = LimitsSection()
    evaluate: Evaluate = Evaluate()
    toy: Toy = Toy()
    train: dict[Name, AnyRecipe] = {}
    methods: dict[Name, MethodSection] = {}
    certify: Certify = Certify()
    memory: MemorySection = MemorySection()
    volumes: Volumes = Volumes()
    tables: Tables = Tables()
    figures: Figures = Figures()
    coverage: Coverage = Coverage()
    statistics: Statistics = Statistics()
    ablations: Ablations = Ablations()
    published: list[Published] = []
    experiments: dict[Name, ExperimentSection]
    """By name."""
