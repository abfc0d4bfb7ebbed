"""The sections of params.yaml that stages read: every parameter's type, range, default, meaning."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, model_validator

from ancer.confidence.budget import check_enough
from ancer.registry import closest
from ancer.stopping import Grid, Hopeless, Improvement, Rule, Target
from ancer.workspace.parameters.fields import (
    Count,
    Level,
    Name,
    Positive,
    Radius,
    Section,
    Whole,
)

RULES: dict[str, Callable[[float], Rule]] = {
    "improvement": Improvement,
    "hopeless": Hopeless,
    "target": Target,
    "grid": Grid.every,
}


def rules_of(stop: str | None) -> list[Rule]:
    """The stopping rules of a text: names of RULES, each with its number, set apart by commas."""
    rules = []
    for part in stop.split(",") if stop is not None else ():
        name, _, number = part.strip().partition(" ")
        if name not in RULES:
            raise ValueError(f"stop: found {name!r}, {closest(name, RULES)}")
        try:
            rules.append(RULES[name](float(number)))
        except ValueError as error:
            raise ValueError(f"stop: {name} takes a number ({error}): '{name} 0.05'") from None
    return rules


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
    points: list[Whole] = Field(default=[28, 157], min_length=2, max_length=2)
    """Positions in the test set of the points that are certified alone, in l2 and l1 (F1)."""
    crowd: Count = 40
    """The first so many test points, answered through a memory (F6)."""
    n: Count = 10_000
    """Draws of a certificate."""
    methods: list[Name] = ["fixed", "isotropic", "anisotropic"]
    """Methods that are compared, with their functions' default options; F6 shows the last."""


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
    seeds: Count = 1
    """So many times, each with its own seed: `seed`, `seed` + 1, ... (T6); others use the first."""
    shared: bool = True
    """All images see the same noise, made once; else each its own (slower)."""
    exact: bool = True
    """Noise on the images' lattice, floating-point sound, where the data set has one."""
    classes: Literal["one", "two"] = "two"
    """Whose probabilities are bounded: the class's alone (the paper), or the runner-up's too."""
    stop: str | None = None
    """When to draw no more: "improvement 0.05", "grid 0.25", "hopeless 0.5, target 1", ...; none:
    n draws."""
    looks: Literal["planned", "always"] = "planned"
    """When `stop` is asked: at looks that double up to n, or ever so often (more draws)."""

    @model_validator(mode="after")
    def _can_certify(self) -> "Certify":
        rules_of(self.stop)
        check_enough(self.n, self.alpha, self.classes)
        return self


class MemorySection(Section):
    """Answers that never contradict each other."""

    methods: list[Name] | None = None
    """Methods to answer; where none are named, those whose theta depends on the image."""
    largest: dict[str, Positive] = {}
    """The proxy radius that no region exceeds, by noise: it leaves room to later images."""


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


class Coverage(Section):
    """What regions cover: families of perturbations (T5, F8, F9)."""

    families: list[Name] | None = None
    """Names of `perturbations.families.FAMILIES`; where none are named, all that suit an image."""
    images: Count = 50
    """The first so many images, on perturbed copies of which the smoothed classifier votes."""
    n: Count = 100
    """Draws of such a vote."""
    methods: list[Name] = ["fixed", "isotropic", "anisotropic"]
    """Methods whose strongest covered pictures F9 shows."""


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
    """What is changed: options of the optimizer, start, basis (`pca`: of training images)."""


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
