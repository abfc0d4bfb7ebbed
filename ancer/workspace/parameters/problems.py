"""What is wrong with params.yaml, in a line each: key, value, what is expected or was meant."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args

from ancer.models.networks import architecture
from ancer.noise.named import NOISES
from ancer.registry import closest, find
from ancer.workspace.parameters.models import (
    ExperimentSection,
    Parameters,
    PublishedRecipe,
    TrainingRecipe,
    WeightsRecipe,
)

FILE = "params.yaml"
EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a section of names and values",
    "model_type": "a section of names and values",
    "finite_number": "a finite number",
    "greater_than": "a number > {gt}",
    "greater_than_equal": "a number >= {ge}",
    "less_than": "a number < {lt}",
    "less_than_equal": "a number <= {le}",
    "literal_error": "one of {expected}",
    "string_pattern_mismatch": "letters, digits, '.', '_', '-', the first a letter or digit",
}
# where sections name methods
NAME_METHODS = {
    "toy": {"methods"},
    "certify": {"methods"},
    "memory": {"methods"},
    "volumes": {"of", "against"},
    "figures": {"ball", "region"},
    "coverage": {"methods"},
    "statistics": {"method"},
    "ablations": {"start"},
}
TAGS = {"trained": TrainingRecipe, "published": PublishedRecipe, "weights": WeightsRecipe}


def problem_line(error: Mapping[str, Any]) -> str:
    """One error of pydantic in one line."""
    place = error["loc"]
    keys = list(place[:2])
    for key in place[2:]:
        # pydantic names what kind of recipe it took an entry for, and that a key itself is wrong
        if key not in (*TAGS, "[key]"):
            keys.append(key)
    where = f"{FILE}: {'.'.join(map(str, keys))}"
    kind = error["type"]
    if kind == "extra_forbidden":
        return f"{where}: unknown key, {closest(keys[-1], _known(place[:-1]))}"
    if kind == "missing":
        return f"{where}: is missing"
    if kind == "value_error":
        return f"{where}: {error['ctx']['error']}"
    return f"{where}: {found_and_expected(error)}"


def found_and_expected(error: Mapping[str, Any]) -> str:
    """Of an error of pydantic: what is there, and what should be."""
    expected = EXPECTED.get(error["type"], error["msg"]).format(**error.get("ctx", {}))
    return f"found {error['input']!r}, expected {expected}"


def _known(place: tuple) -> list[str]:
    """The names that a section may hold."""
    model: Any = Parameters
    for k, key in enumerate(place):
        if k >= 2 and key in TAGS:
            model = TAGS[key]
        elif hasattr(model, "model_fields"):
            model = model.model_fields[key].annotation
        else:  # of a dictionary or list: what it holds
            model = get_args(model)[-1]
    return list(getattr(model, "model_fields", ()))


def unknown_names(parameters: Parameters) -> Iterator[str]:
    """A line for each recipe, method, experiment, noise or network that is not there."""
    methods = parameters.methods
    for name, method in methods.items():
        if method.start is not None:
            yield from _absent([method.start], methods, f"methods.{name}.start")
        yield from _absent(method.best_of or (), methods, f"methods.{name}.best_of")
    for section, fields in NAME_METHODS.items():
        holder = getattr(parameters, section)
        for field in sorted(holder.model_fields_set & fields):
            value = getattr(holder, field) or []
            names = [value] if isinstance(value, str) else value
            yield from _absent(names, methods, f"{section}.{field}")
    for noise in parameters.memory.largest:
        yield from _refused("memory.largest", find, noise, NOISES, "noise")
    ablated = parameters.ablations.experiments
    yield from _absent(ablated, parameters.experiments, "ablations.experiments")
    for name, experiment in parameters.experiments.items():
        yield from _unknown_in(experiment, parameters, f"experiments.{name}")


def _unknown_in(experiment: ExperimentSection, parameters: Parameters, where: str) -> Iterator[str]:
    methods = parameters.methods
    yield from _absent([experiment.training], parameters.train, f"{where}.training")
    yield from _absent(experiment.methods or (), methods, f"{where}.methods")
    yield from _absent(experiment.method_options, methods, f"{where}.method_options")
    yield from _refused(f"{where}.noise", find, experiment.noise, NOISES, "noise")
    yield from _refused(f"{where}.arch", architecture, experiment.arch)
    if parameters.certify.stop is not None:
        for method in experiment.methods or parameters.certify.methods or methods:
            if method in methods and methods[method].best_of is not None:
                yield (
                    f"{FILE}: certify.stop: {method!r} is the best of several, which are not "
                    "stopped early: name methods without it"
                )
    recipe = parameters.train.get(experiment.training)
    read = isinstance(recipe, PublishedRecipe | WeightsRecipe)
    if read and "file" not in experiment.options:
        yield f"{FILE}: {where}.options: must name the file, {{file: <path>}}"


def _absent(names: Iterable[str], known: Mapping, where: str) -> Iterator[str]:
    for name in names:
        if name not in known:
            yield f"{FILE}: {where}: found {name!r}, {closest(name, known)}"


def _refused(where: str, check: Callable, *arguments: Any) -> Iterator[str]:
    try:
        check(*arguments)
    except ValueError as error:
        yield f"{FILE}: {where}: {error}"
