"""params.yaml read and checked: an error says file, key, value, what is expected or meant."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from ancer.registry import closest
from ancer.workspace.parameters import Parameters, PublishedRecipe, TrainingRecipe

FILE = "params.yaml"
# what papermill's parameters override, by the key that they stand for
OVERRIDES = {"images": ("images",), "n": ("certify", "n")}


def profile_folder(profile: str | Path | None = None) -> Path:
    """A folder with params.yaml: the one given, or the nearest at or above the working directory.

    Raises FileNotFoundError where there is none.
    """
    if profile is not None:
        if not (Path(profile) / FILE).is_file():
            raise FileNotFoundError(f"no {FILE} in profile folder {profile}")
        return Path(profile).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            return folder
    raise FileNotFoundError(
        f"no {FILE} at or above {here}: run inside the project or give profile=<folder>"
    )


def read_parameters(folder: Path, overrides: Mapping[str, Any] | None = None) -> Parameters:
    """The parameters of a profile's folder, checked.

    overrides: values in place of the file's, by the keys of OVERRIDES. Recipes and experiments with
    `base: <another>` have what they do not say from that one. `published` may be the path of a YAML
    file that holds the list.

    Raises ValueError that lists all that is wrong.

    Example:
        read_parameters(Path("profiles/cifar10")).certify.n
    """
    path = folder / FILE
    values = _mapping(path)
    for section in ("train", "experiments"):
        values[section] = _with_bases(values.get(section), f"{path.name}: {section}")
    if isinstance(values.get("published"), str):
        values["published"] = _load(folder / values["published"])
    if values.get("cluster") is None:
        values.pop("cluster", None)  # nothing means this process
    for name, value in (overrides or {}).items():
        _set(values, OVERRIDES[name], value)
    try:
        parameters = Parameters.model_validate(values)
    except ValidationError as error:
        lines = [_line(one) for one in error.errors()]
        raise ValueError("\n".join(dict.fromkeys(lines))) from None
    _check_names(parameters)
    return parameters


def _load(path: Path) -> Any:
    """A YAML file as DVC reads it."""
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 ({error}): save it as UTF-8") from None
    except MarkedYAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        hint = ": indent with spaces, not tabs" if "\\t" in str(error.problem) else ""
        raise ValueError(f"{path.name}{place}: {error.problem}{hint}") from None


def _mapping(path: Path) -> dict[str, Any]:
    values = _load(path)
    if not isinstance(values, dict):
        found = "nothing" if values is None else repr(values)
        raise ValueError(f"{path.name}: expected sections such as 'experiments:', found {found}")
    return dict(values)


def _with_bases(section: Any, where: str) -> Any:
    """Entries with `base: <another>` resolved: what an entry does not say is that one's."""
    if not isinstance(section, dict):
        return {} if section is None else section
    return {name: _resolved(section, name, where, ()) for name in section}


def _resolved(section: dict, name: str, where: str, seen: tuple[str, ...]) -> Any:
    entry = section[name]
    if not isinstance(entry, dict) or "base" not in entry:
        return entry
    base = entry["base"]
    if base not in section:
        raise ValueError(f"{where}.{name}.base: found {base!r}, {closest(base, section)}")
    if base in seen or base == name:
        raise ValueError(f"{where}.{name}.base: {' -> '.join([*seen, name, base])} is a circle")
    inherited = _resolved(section, base, where, (*seen, name))
    whole = {**inherited, **entry}
    del whole["base"]
    return whole


def _set(values: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        values[key] = dict(values.get(key) or {})
        values = values[key]
    values[keys[-1]] = value


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
TAGS = {"trained": TrainingRecipe, "published": PublishedRecipe}


def _line(error: Mapping[str, Any]) -> str:
    """One error of pydantic in one line."""
    place = error["loc"]
    # pydantic names what kind of recipe it took an entry for, and that a key itself is wrong
    keys = [key for k, key in enumerate(place) if not (k >= 2 and key in (*TAGS, "[key]"))]
    where = f"{FILE}: {'.'.join(map(str, keys))}"
    kind = error["type"]
    if kind == "extra_forbidden":
        return f"{where}: unknown key, {closest(keys[-1], _known(place[:-1]))}"
    if kind == "missing":
        return f"{where}: is missing"
    if kind == "value_error":
        return f"{where}: {error['ctx']['error']}"
    expected = EXPECTED.get(kind, error["msg"]).format(**error.get("ctx", {}))
    return f"{where}: found {error['input']!r}, expected {expected}"


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


def _check_names(parameters: Parameters) -> None:
    """Raise ValueError for a recipe, method or experiment that is named and not there."""
    problems = []

    def check(name: str, known: Mapping, where: str) -> None:
        if name not in known:
            problems.append(f"{FILE}: {where}: found {name!r}, {closest(name, known)}")

    methods = parameters.methods
    for name, method in methods.items():
        if method.start is not None:
            check(method.start, methods, f"methods.{name}.start")
        for member in method.best_of or {}:
            check(member, methods, f"methods.{name}.best_of")
    for section in ("certify", "memory"):
        for name in getattr(parameters, section).methods or []:
            check(name, methods, f"{section}.methods")
    for name in parameters.ablations.experiments:
        check(name, parameters.experiments, "ablations.experiments")
    for name, experiment in parameters.experiments.items():
        where = f"experiments.{name}"
        check(experiment.training, parameters.train, f"{where}.training")
        for method_name in (*(experiment.methods or ()), *experiment.method_options):
            check(method_name, methods, f"{where}.methods")
        recipe = parameters.train.get(experiment.training)
        if getattr(recipe, "scheme", None) == "published" and "file" not in experiment.options:
            problems.append(f"{FILE}: {where}.options: must name a published checkpoint's file")
    if problems:
        raise ValueError("\n".join(problems))
