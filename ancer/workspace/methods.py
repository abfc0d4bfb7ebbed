"""The methods of params.yaml: how each chooses theta, from what start, and how it is shown."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ancer.bases.basis import PIXELS
from ancer.bases.named import parsed
from ancer.classifier import Classifier
from ancer.datasets.loading import maker_of
from ancer.noise.law import Noise
from ancer.noise.named import NOISES
from ancer.registry import closest, find
from ancer.workspace.parameters.models import PCA, MethodSection, Parameters, TrainingRecipe
from ancer.workspace.parameters.options import checked_options, named, theta_function

# Okabe-Ito, colour-blind safe, and dashes (in line widths) that read in black and white too
COLORS = ("#595959", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ((1, 2), (4, 2), (), (6, 2, 1, 2), (1, 4), (10, 2), (5, 1, 1, 1, 1, 1), (10, 2, 1, 2))


@dataclass(frozen=True)
class Method:
    """How theta is chosen, by name.

    theta: the function that chooses it, None where it is that of the training noise or where
    best_of names other methods with their shares of alpha. start: the method from whose theta it
    starts. options: of the function, checked. basis: whose coordinates theta scales, by name. fit:
    one theta for all, fitted to so many training images; None for one an image. images: the first
    so many alone, None for all. classes: whose probabilities are bounded, where not as certify has
    it. color, dashes: of its lines in figures.
    """

    name: str
    label: str
    theta: Callable[..., Tensor] | None = None
    start: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    basis: str = PIXELS.name
    fit: int | None = None
    best_of: Mapping[str, float] | None = None
    images: int | None = None
    classes: str | None = None
    color: str = COLORS[-1]
    dashes: tuple[float, ...] = ()

    @property
    def depends_on_image(self) -> bool:
        """Whether theta does, so that the answers are sound only with a memory."""
        return self.best_of is not None or (self.theta is not None and self.fit is None)

    def choose(
        self, classifier: Classifier, x: Tensor, law: Noise, seed: int, indices: Sequence[int]
    ) -> Tensor:
        """theta for images x (B, ...), from law's and in its basis: (B,) or like x.

        Of a method with fit, (1, ...) for all images alike. Raises ValueError that names method and
        function where they return anything else.
        """
        assert self.theta is not None
        x = x.to(classifier.device)
        theta = self.theta(classifier, x, law, seed=seed, indices=indices, **self.options)
        problem = None
        shapes = [(1, *x.shape[1:])]
        if self.fit is None:
            shapes = [(len(x),), tuple(x.shape)]
        if not isinstance(theta, Tensor) or theta.shape not in shapes:
            shape = tuple(theta.shape) if isinstance(theta, Tensor) else type(theta).__name__
            problem = f"found {shape}, expected {' or '.join(map(str, shapes))}"
        elif not (torch.isfinite(theta) & (theta > 0)).all():
            problem = "found scales that are not > 0 and finite"
        if problem is not None:
            raise ValueError(
                f"method {self.name}: {self.theta.__module__}.{self.theta.__qualname__} must "
                f"return theta: {problem}"
            )
        return theta.cpu()


class Methods(Mapping[str, Method]):
    """A profile's methods by name, in the order of params.yaml."""

    def __init__(self, methods: Mapping[str, Method]):
        self._methods = dict(methods)

    def __getitem__(self, name: str) -> Method:
        return self._methods[name]

    def __iter__(self):
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)

    def by_label(self, label: str) -> Method:
        """The one that tables and figures call so."""
        labels = {method.label: method for method in self._methods.values()}
        if label not in labels:
            raise KeyError(f"no method is called {label!r}: {closest(label, labels)}")
        return labels[label]

    def basis(self, name: str) -> str:
        """Name of the basis of a method's certificates; of several, the one that is not pixels."""
        for member in self[name].best_of or ():
            if self[member].basis != PIXELS.name:
                return self[member].basis
        return self[name].basis

    def chosen(self, names: Iterable[str]) -> dict[str, Method]:
        """Those whose theta some methods need and a function chooses, each after its start."""
        found: dict[str, Method] = {}
        for name in names:
            found |= self.chain(name)
        return found

    def chain(self, name: str) -> dict[str, Method]:
        """The methods whose theta a method needs, itself last, that a function chooses."""
        method = self[name]
        needed: dict[str, Method] = {}
        for member in method.best_of or ():
            needed |= self.chain(member)
        if method.theta is not None and method.start is not None:
            needed |= self.chain(method.start)
            needed[name] = method
        return needed

    def images(self, name: str, total: int) -> int:
        """How many of so many images a method runs on: no more than those that it needs do."""
        for method in self.chain(name).values():
            total = min(total, method.images or total)
        return total

    def noises(
        self, names: Sequence[str], model: nn.Module | Classifier, x: Tensor, law: Noise, seed: int
    ) -> dict[str, Noise]:
        """The noise of some methods round x, by their functions' own defaults, from `law`."""
        found: dict[str, Noise] = {}
        for name, method in self.chosen(names).items():
            assert method.theta is not None
            start = found.get(str(method.start), law)
            found[name] = start.with_theta(method.theta(model, x, start, seed=seed))
        return {name: found.get(name, law) for name in names}

    def with_options(self, options: Mapping[str, Mapping[str, Any]], where: str) -> "Methods":
        """The same with other options of some.

        where: the section that says so. Raises ValueError for an option that is not taken.
        """
        changed = dict(self._methods)
        for name, more in options.items():
            method = changed[name]
            if method.theta is None:
                raise ValueError(
                    f"params.yaml: {where}.{name}: without theta a method has no options, "
                    f"found {', '.join(more)}"
                )
            merged = {**method.options, **more}
            checked = checked_options(f"{where}.{name}", method.theta, merged)
            changed[name] = replace(method, options=checked)
        return Methods(changed)


def methods_of(parameters: Parameters) -> Methods:
    """The methods of params.yaml, their functions found and their options checked.

    The planned n and alpha of certification are options where a function takes them. Raises
    ValueError for a function that is not there, an option that it does not take, or a circle.
    """
    planned = {"n": parameters.certify.n, "alpha": parameters.certify.alpha}
    found = {}
    for position, (name, section) in enumerate(parameters.methods.items()):
        found[name] = Method(
            name=name,
            label=section.label or name,
            start=section.start,
            basis=section.basis,
            fit=section.fit,
            best_of=section.best_of,
            images=section.images,
            classes=section.classes,
            color=COLORS[position % len(COLORS)],
            # those of a colour differ in it
            dashes=DASHES[(position + position // len(COLORS)) % len(DASHES)],
            **_theta_and_options(name, section, planned),
        )
    _check_best_of(found)
    _check_starts(found)
    _check_bases(found)
    return Methods(found)


def _theta_and_options(name: str, section: MethodSection, planned: dict) -> dict[str, Any]:
    if section.theta is None:
        return {}
    theta = theta_function(section.theta, f"methods.{name}.theta")
    with named(f"methods.{name}.basis"):
        if ":" not in section.basis and section.basis != PCA:
            parsed(section.basis)
    takes = inspect.signature(theta).parameters
    options = {key: value for key, value in planned.items() if key in takes}
    return {
        "theta": theta,
        "options": checked_options(f"methods.{name}", theta, {**options, **section.options}),
    }


def check_parameters(parameters: Parameters) -> None:
    """Raise ValueError for a function, option or data set of params.yaml that is not there."""
    _check_ablations(parameters)
    methods = methods_of(parameters)
    for name, experiment in parameters.experiments.items():
        where = f"experiments.{name}"
        methods.with_options(experiment.method_options, f"{where}.method_options")
        recipe = parameters.train[experiment.training]
        with named(f"{where}.dataset"):
            maker_of(experiment.dataset)
        with named(f"{where}.options"):
            if isinstance(recipe, TrainingRecipe):
                recipe.recipes(experiment.options)
        with named(f"{where}.methods"):
            for method in experiment.methods or ():
                if not suits(methods, method, experiment.noise):
                    raise ValueError(
                        f"{method} is in basis {methods.basis(method)}, and {experiment.noise} "
                        "noise certifies l1, in pixels only"
                    )


def suits(methods: Methods, name: str, noise: str) -> bool:
    """Whether a method can be had under a noise: another basis than pixels is for l2 alone."""
    return methods.basis(name) == PIXELS.name or find(noise, NOISES, "noise").norm == 2


def _check_ablations(parameters: Parameters) -> None:
    """Raise ValueError where the ablations' function, an option or a start is not there."""
    section = parameters.ablations
    theta = theta_function(section.theta, "ablations.theta")
    for position, setting in enumerate(section.settings):
        where = f"ablations.settings.{position}"
        options = dict(setting)
        start = options.pop("start", None)
        options.pop("basis", None)
        if start is not None and start not in parameters.methods:
            raise ValueError(
                f"params.yaml: {where}.start: found {start!r}, {closest(start, parameters.methods)}"
            )
        checked_options(where, theta, options)


def _check_best_of(methods: Mapping[str, Method]) -> None:
    """Raise ValueError for a candidate that is itself the best of others."""
    for name, method in methods.items():
        for member in method.best_of or ():
            if methods[member].best_of is not None:
                raise ValueError(
                    f"params.yaml: methods.{name}.best_of: {member!r} has best_of, no theta"
                )


def _check_bases(methods: Mapping[str, Method]) -> None:
    """Raise ValueError where candidates are in several bases, or a start is fitted to others."""
    for name, method in methods.items():
        bases = {methods[member].basis for member in method.best_of or ()} - {PIXELS.name}
        if len(bases) > 1:
            raise ValueError(
                f"params.yaml: methods.{name}.best_of: its candidates must share one basis beside "
                f"pixels, found {', '.join(sorted(bases))}"
            )
        start = methods.get(method.start or "")
        if start is not None and start.fit:
            raise ValueError(
                f"params.yaml: methods.{name}.start: {start.name!r} has one theta for all images, "
                "from which no other starts"
            )
        if method.fit and start is not None and start.theta is not None:
            raise ValueError(
                f"params.yaml: methods.{name}.start: theta for all images starts from the training "
                f"noise, found {start.name!r}"
            )


def _check_starts(methods: Mapping[str, Method]) -> None:
    """Raise ValueError for a start that is a circle or no theta."""
    for name in methods:
        seen = [name]
        while (start := methods[seen[-1]].start) is not None:
            if start in seen:
                path = " -> ".join([*seen, start])
                raise ValueError(f"params.yaml: methods.{name}.start: {path} is a circle")
            if methods[start].best_of is not None:
                raise ValueError(
                    f"params.yaml: methods.{seen[-1]}.start: {start!r} has best_of, so no theta "
                    "of its own"
                )
            seen.append(start)
