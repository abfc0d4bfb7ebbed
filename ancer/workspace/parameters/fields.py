"""The kinds of values in params.yaml, and what all its sections have in common."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING, is_dataclass
from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, create_model

from ancer.registry import NAME

MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _whole(value: object) -> object:
    """1e3 is a float in YAML, and a whole number here."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


Name = Annotated[str, Field(pattern=NAME)]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
Whole = Annotated[int, BeforeValidator(_whole), Field(ge=0)]


def _all(value: object) -> object:
    """None stands for all."""
    if value is None:
        raise ValueError("found None, expected a whole number or all")
    return None if value == "all" else value


CountOrAll = Annotated[Count | None, BeforeValidator(_all)]
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


class OpenSection(Section):
    """A section that may hold more than it names."""

    model_config = ConfigDict(extra="allow")


def section_of(function: Callable, without: Collection[str] = ()) -> type[Section]:
    """What a function or dataclass takes, as a section: its names, types and defaults.

    without: the names that are no parameters of params.yaml. One with **options takes any more.
    """
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    base = OpenSection if inspect.Parameter.VAR_KEYWORD in kinds else Section
    made: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if name not in without and parameter.kind not in MANY:
            kind = hints.get(name, Any)
            if kind is int:
                kind = Annotated[int, BeforeValidator(_whole)]
            default = ... if parameter.default is parameter.empty else parameter.default
            if is_dataclass(function):
                made[name] = (kind, _field_of(function, name, default))
            else:
                made[name] = (kind, default)
    return create_model(function.__name__, __base__=base, **made)


def _field_of(settings: Any, name: str, default: Any) -> Any:
    """A dataclass's field, with the sentence that stands under it."""
    description = TypeAdapter(settings).json_schema()["properties"][name]["description"]
    factory = settings.__dataclass_fields__[name].default_factory
    if factory is not MISSING:
        return Field(default_factory=factory, description=description)
    return Field(default, description=description)
