"""params.yaml read and checked: an error says file, key, value, what is expected or meant."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from ancer.registry import closest
from ancer.workspace.parameters.models import Parameters
from ancer.workspace.parameters.problems import FILE, problem_line, unknown_names

# what papermill's parameters override, by the keys that they stand for
OVERRIDES = {
    "images": ("images",),
    "seed": ("seed",),
    "methods": ("certify", "methods"),
    "n": ("certify", "n"),
    "alpha": ("certify", "alpha"),
    "stop": ("certify", "stop"),
    "exact": ("certify", "exact"),
    "sigma": ("experiments", "{experiment}", "sigma"),
}


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


def read_parameters(
    folder: Path, overrides: Mapping[str, Any] | None = None, experiment: str | None = None
) -> Parameters:
    """The parameters of a profile's folder, checked.

    overrides: values in place of the file's, by the keys of OVERRIDES; experiment: whose sigma is
    meant. Recipes and experiments with `base: <another>` have what they do not say from that one.
    `published` may be the path of a YAML file that holds the list.

    Raises ValueError that lists all that is wrong.

    Example:
        read_parameters(Path("profiles/cifar10")).certify.n
    """
    path = folder / FILE
    values = _mapping(path)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # where functions that it names may be
    for section in ("train", "methods", "experiments"):
        if isinstance(values.get(section), dict):
            values[section] = _with_bases(values[section], f"{path.name}: {section}")
    if isinstance(values.get("published"), str):
        values["published"] = _load(folder / values["published"])
    if values.get("cluster") is None:
        values.pop("cluster", None)  # nothing means this process
    for name, value in (overrides or {}).items():
        keys = [key.format(experiment=experiment) for key in OVERRIDES[name]]
        _set(values, keys, value)
    try:
        parameters = Parameters.model_validate(values)
    except ValidationError as error:
        problems = list(map(problem_line, error.errors()))
        raise ValueError("\n".join(dict.fromkeys(problems))) from None
    if problems := list(unknown_names(parameters)):
        raise ValueError("\n".join(problems))
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
    except YAMLError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _mapping(path: Path) -> dict[str, Any]:
    values = _load(path)
    if not isinstance(values, dict):
        found = "nothing" if values is None else repr(values)
        raise ValueError(f"{path.name}: expected sections such as 'experiments:', found {found}")
    return dict(values)


def _with_bases(section: dict, where: str) -> dict:
    """Entries with `base: <another>` resolved: what an entry does not say is that one's."""
    whole = {}
    for name in section:
        whole[name] = _resolved(section, name, where, ())
    return whole


def _resolved(section: dict, name: str, where: str, seen: tuple[str, ...]) -> Any:
    entry = section[name]
    if not isinstance(entry, dict) or "base" not in entry:
        return entry
    base = entry["base"]
    if not isinstance(base, str) or base not in section:
        raise ValueError(f"{where}.{name}.base: found {base!r}, {closest(base, section)}")
    if base in seen or base == name:
        raise ValueError(f"{where}.{name}.base: {' -> '.join([*seen, name, base])} is a circle")
    whole = dict(entry)
    inherited = _resolved(section, base, where, (*seen, name))
    if isinstance(inherited, dict):
        whole = {**inherited, **entry}
    del whole["base"]
    return whole


def _set(values: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        values[key] = dict(values.get(key) or {})
        values = values[key]
    values[keys[-1]] = value
