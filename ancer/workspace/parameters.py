"""params.yaml: types, ranges, defaults and the meaning of every parameter, once."""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, is_dataclass
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    create_model,
    model_validator,
)

from ancer.training.loop import Recipe

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def _whole(value: object) -> object:
    """1e3 is a float in YAML, and a whole number here."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


Name = Annotated[str, Field(pattern=NAME)]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
Whole = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Level = Annotated[float, Field(gt=0, lt=1)]
Radius = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A part of params.yaml: nothing unknown, nothing of another type."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

    def __getattr__(self, name: str) -> Any:
        if name in type(self).model_fields:
            raise AttributeError(
                f"the stage does not depend on {type(self).__name__.lower()}.{name}: "
                "add it to OF_EXPERIMENT or OF_ALL in workspace/fingerprints.py"
            )
        return super().__getattr__(name)  # type: ignore[misc]


class Tasks(Section):
    """Images of one task: what a kill can cost, and with `images` how much memory is taken."""

    optimize: Count = 31
    """Images whose theta one task chooses."""
    certify: Count = 20
    """Images that one task certifies."""


class Evaluate(Section):
    """How the base classifier is evaluated, the same for optimize and certify."""

    batch_size: Count = 1000
    """Rows of one forward pass; bounds the memory."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the network; bfloat16 is several times faster where the machine has it."""
    memory_format: Literal["contiguous_format", "channels_last"] = "contiguous_format"
    """Layout of images and weights."""
    fold: bool = False
    """Batch normalisation folded into the convolutions before it."""


class Toy(Section):
    """The half-moons in two dimensions: F1, F6 and the explorer's plane."""

    sigma: Positive = 0.08
    """Standard deviation of the training noise, both laws."""
    epochs: Count = 60
    """Passes over the points."""
    batch_size: Count = 100
    """Points of one step."""
    lr: Positive = 0.01
    """Learning rate."""
    points: list[Whole] = [3, 12, 17, 25]
    """Positions in the test set of the points that are certified alone (F1)."""
    crowd: Count = 40
    """The first so many test points, answered through a memory (F6)."""
    n: Count = 10_000
    """Draws of a certificate."""


def section_of(function: Callable, without: Collection[str] = ()) -> type[Section]:
    """What a function or dataclass takes, as a section: its names, types and defaults.

    without: the names that are no parameters of params.yaml.
    """
    hints = get_type_hints(function, include_extras=True)
    made: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in without:
            kind = hints.get(name, Any)
            if kind is int:
                kind = Annotated[int, BeforeValidator(_whole)]
            default = ... if parameter.default is parameter.empty else parameter.default
            if is_dataclass(function):
                made[name] = (kind, _field_of(function, name, default))
            else:
                made[name] = (kind, default)
    return create_model(function.__name__, __base__=Section, **made)


def _field_of(settings: Any, name: str, default: Any) -> Any:
    """A dataclass's field, with the sentence that stands under it."""
    description = TypeAdapter(settings).json_schema()["properties"][name]["description"]
    factory = settings.__dataclass_fields__[name].default_factory
    if factory is not MISSING:
        return Field(default_factory=factory, description=description)
    return Field(default, description=description)


class TrainingRecipe(section_of(Recipe)):  # type: ignore[misc]
    """How networks are trained, and on which images."""

    every: Count = 1
    """Every so many of the training images."""

    @model_validator(mode="after")
    def _in_domain(self) -> "TrainingRecipe":
        self.recipe()
        return self

    def recipe(self, options: Mapping[str, Any] | None = None) -> Recipe:
        """What `train` takes, with an experiment's own options of the scheme."""
        values = self.model_dump(exclude={"every"})
        return Recipe(**{**values, "options": {**self.options, **(options or {})}})


class PublishedRecipe(Section):
    """A checkpoint of others in place of training; the experiment's options name the file."""

    scheme: Literal["published"]
    """Read instead of trained."""
    source: str
    """Who published it: a key of `models.published.SOURCES`."""


def _kind(recipe: object) -> str:
    scheme = recipe.get("scheme") if isinstance(recipe, dict) else getattr(recipe, "scheme", None)
    return "published" if scheme == "published" else "trained"


AnyRecipe = Annotated[
    Annotated[TrainingRecipe, Tag("trained")] | Annotated[PublishedRecipe, Tag("published")],
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
    best_of: dict[Name, Share] | None = None
    """Certify several methods, each at its share of alpha, and report the largest region."""

    @property
    def options(self) -> dict[str, Any]:
        """Options of the function `theta`."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _consistent(self) -> "MethodSection":
        if self.best_of is not None and (self.theta or self.start or self.options):
            raise ValueError("a method with best_of has no theta, start or options of its own")
        if self.theta is None and (self.start or self.options):
            raise ValueError("without theta a method has no start and no options")
        if self.theta is not None and self.start is None:
            raise ValueError("theta needs a start: the method from whose theta it starts")
        if self.best_of and sum(self.best_of.values()) > 1 + 1e-9:
            raise ValueError("the shares of best_of must sum to at most 1")
        return self


class Certify(Section):
    """Certificates of each image and method."""

    methods: list[Name] | None = None
    """Methods to certify; all where none are named."""
    n0: Count = 100
    """Draws that choose the class."""
    n: Count = 10_000
    """Draws that bound its probability."""
    alpha: Level = 0.001
    """Failure probability of one image's certificate."""
    exact: bool = True
    """Noise on the images' lattice, floating-point sound, where the data set has one."""


class MemorySection(Section):
    """Answers that never contradict each other."""

    methods: list[Name] | None = None
    """Methods to answer; where none are named, those whose theta depends on the image."""


class Volumes(Section):
    """Regions compared by volume and by inclusion (T3, F7)."""

    of: Name = "anisotropic"
    """The method whose regions are compared."""
    against: list[Name] = ["fixed", "isotropic"]
    """The methods that they are compared with."""


class Tables(Section):
    """T1, T2 and T3."""

    radii: list[Radius] = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
    """Radii at which certified accuracy is shown."""


class Figures(Section):
    """F2 to F5 and F7."""

    images: Count = 8
    """Images shown of each experiment."""
    ball: Name = "isotropic"
    """The method that F2 and F5 compare with."""
    region: Name = "anisotropic"
    """The method whose theta they show."""


class Statistics(Section):
    """S1 to S3: three guarantees, shown by experiment."""

    horizon: Count = 10_000
    """Draws after which an adversary who waits for a wrong bound gives up."""
    images: Count = 20
    """Images of each experiment that are certified with each stopping rule."""
    n: Count = 50_000
    """At most so many draws each."""
    method: Name = "isotropic"
    """The method whose theta they have."""


class Ablations(Section):
    """An optimizer with one setting changed at a time."""

    experiments: list[Name] = []
    """The experiments whose images it runs on."""
    images: Count = 20
    """Images of each."""
    n: Count = 10_000
    """Draws of a certificate."""
    theta: str = "ancer.optimize_anisotropic_paper"
    """The optimizer, as a dotted path."""
    start: Name = "isotropic"
    """The method from whose theta it starts; a setting may name another one."""
    settings: list[dict[str, Any]] = [{}]
    """What is changed: options of the optimizer, or start."""


class Published(Section):
    """A line of T1 or T2 as others report it, for a fixed sigma."""

    norm: Literal[1, 2]
    """Of the radii: 1 or 2."""
    training: str
    """Their training scheme, as a recipe of `train` is called."""
    sigma: Positive
    """Standard deviation of their noise."""
    source: str
    """Network, paper, and where the numbers stand."""
    accuracy: dict[float, float]
    """Certified accuracy by radius."""
    ACR: float
    """Their average certified radius."""


class ExperimentSection(Section):
    """One network on one data set under one noise."""

    dataset: str
    """Its name or path (data/README.md)."""
    arch: str
    """The network: a key of `models.networks.ARCHITECTURES`, or "package.module:function"."""
    noise: str
    """gaussian certifies l2, uniform certifies l1 (lambda = sqrt(3) * sigma)."""
    sigma: Positive
    """Standard deviation of the training noise."""
    training: Name
    """A recipe of `train`."""
    options: dict[str, Any] = {}
    """Options of the recipe's scheme, or the file of a published checkpoint."""
    methods: list[Name] | None = None
    """Methods to certify here; those of `certify` where none are named."""
    method_options: dict[Name, dict[str, Any]] = {}
    """Options of methods that this experiment has different."""


class Parameters(Section):
    """A profile's parameters."""

    root: str = "."
    """The way from the profile's folder to the project's, for DVC."""
    seed: Whole = 0
    """Of all random streams."""
    images: Count
    """Test images of each data set: of every so many, the first so many."""
    every: Count = 1
    """Every so many of the test images."""
    cluster: dict[str, Any] = {}
    """Who optimizes and certifies: {} this process; {local: 4} processes; a Dask cluster."""
    tasks: Tasks = Tasks()
    evaluate: Evaluate = Evaluate()
    toy: Toy = Toy()
    train: dict[Name, AnyRecipe] = {}
    methods: dict[Name, MethodSection] = {}
    certify: Certify = Certify()
    memory: MemorySection = MemorySection()
    volumes: Volumes = Volumes()
    tables: Tables = Tables()
    figures: Figures = Figures()
    statistics: Statistics = Statistics()
    ablations: Ablations = Ablations()
    published: list[Published] = []
    experiments: dict[Name, ExperimentSection]
    """By name."""
