"""Functions that params.yaml names, and the options that it gives them."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from ancer.registry import closest, find
from ancer.workspace.parameters.fields import section_of
from ancer.workspace.parameters.problems import found_and_expected


@contextmanager
def named(where: str) -> Iterator[None]:
    """Say of an error which key it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"params.yaml: {where}: {error}") from None


def theta_function(path: str, where: str) -> Callable[..., Tensor]:
    """The function of a dotted path, "package.module.function" or "package.module:function".

    where: what names it. Raises ValueError for anything but a function.
    """
    dotted = path if ":" in path else ":".join(path.rsplit(".", 1))
    with named(where):
        found: Any = find(dotted, {}, "function")
    if not inspect.isfunction(found):
        raise ValueError(
            f"params.yaml: {where}: {path} is a {type(found).__name__}, expected a function (def)"
        )
    return found


def checked_options(where: str, theta: Callable, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options for a theta function, in its types: all but its first three, seed and indices.

    where: the section that they are in. Raises ValueError for an option that is not taken.
    """
    given = list(inspect.signature(theta).parameters)[:3]  # classifier, x, noise
    section = section_of(theta, without=[*given, "seed", "indices"])
    try:
        checked = section.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        problem = found_and_expected(first)
        if first["type"] == "extra_forbidden":
            problem = f"{theta.__name__} has no such option, {closest(key, section.model_fields)}"
        if first["type"] == "missing":
            problem = f"{theta.__name__} has no default for it, and it is not there"
        raise ValueError(f"params.yaml: {where}.{key}: {problem}") from None
    return {key: getattr(checked, key) for key in options}
