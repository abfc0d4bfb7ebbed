"""All that a stage depends on, as one file for DVC: notebook, code, parameters.

A stage sees no other parameters than those of its fingerprint: a stage that reads one more says so
here, or it fails.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ancer.datasets.loading import maker_of
from ancer.models.networks import architecture
from ancer.noise.named import NOISES
from ancer.registry import find
from ancer.workspace.digests import Digests
from ancer.workspace.imports import PACKAGE, hash_of_modules, imports
from ancer.workspace.parameters.fields import Section
from ancer.workspace.parameters.models import Parameters
from ancer.workspace.parameters.options import theta_function
from ancer.workspace.store.provenance import content_of

S = TypeVar("S", bound=Section)
# the parameters that change no result, which every stage may read
FREE = ("root", "cluster", "tasks", "limits")
# those of a stage in which networks vote as `certify` says
VOTING = ("seed", "images", "every", "evaluate", "methods", "certify")
# the parameters that a stage of one experiment reads, beside the experiment and its recipe
OF_EXPERIMENT: dict[str, tuple[str, ...]] = {
    "train": ("seed", "images", "every", "evaluate"),
    "optimize": (
        "seed",
        "images",
        "every",
        "evaluate",
        "methods",
        "certify.methods",
        "certify.n",
        "certify.alpha",
        "figures",
    ),
    "certify": VOTING,
    "memory": ("images", "every", "methods", "certify", "memory"),
}
# of a stage that takes all experiments
OF_ALL: dict[str, tuple[str, ...]] = {
    "toy": ("seed", "toy", "methods", "certify.n", "certify.alpha"),
    "volumes": ("images", "every", "methods", "certify", "volumes", "experiments"),
    "tables": (
        "methods",
        "certify",
        "volumes.of",
        "tables",
        "published",
        "experiments",
    ),
    "coverage": (*VOTING, "memory", "coverage", "experiments"),
    "statistics": (*VOTING, "statistics", "tables", "experiments"),
    "ablations": (*VOTING, "ablations", "experiments"),
    "figures": (
        "seed",
        "images",
        "every",
        "methods",
        "certify",
        "figures",
        "experiments",
    ),
    "report": ("images", "every", "methods", "certify", "volumes.of", "experiments", "train"),
}
# the stages that read images; all may read those of training, to which a basis may be fitted
READS = (
    "train",
    "optimize",
    "certify",
    "memory",
    "volumes",
    "coverage",
    "statistics",
    "ablations",
    "figures",
)
SPLITS = ("train", "test")
NOT_NOTEBOOKS = {"report": "ancer.workspace.report.site"}
# the stages that call the functions of methods
CHOOSING = ("optimize", "toy")
TEMPLATES = PACKAGE / "workspace/report/templates"


def key_of(**everything) -> str:
    """A hash of all that affects a result; results with different keys never mix."""
    text = json.dumps(everything, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def visible(parameters: Parameters, stage: str | None, experiment: str | None) -> Parameters:
    """The parameters that a stage may read: what is not in its fingerprint is not there.

    stage: a key of OF_EXPERIMENT or OF_ALL; None for all parameters.
    """
    if stage is None:
        return parameters
    reads = OF_EXPERIMENT.get(stage) or OF_ALL[stage]
    seen = _part(parameters, (*FREE, *reads))
    if stage in OF_EXPERIMENT and experiment is not None:
        section = parameters.experiments[experiment]
        seen["experiments"] = {experiment: section}
        seen["train"] = {section.training: parameters.train[section.training]}
    return _holding_only(Parameters, seen)


def _part(section: Section, paths: Sequence[str]) -> dict[str, Any]:
    """Some fields of a section, by their dotted paths."""
    below: dict[str, list[str]] = {}
    for path in paths:
        name, _, rest = path.partition(".")
        below.setdefault(name, [])
        if rest:
            below[name].append(rest)
    part = {}
    for name, rests in below.items():
        value = getattr(section, name)
        part[name] = _holding_only(type(value), _part(value, rests)) if rests else value
    return part


def _holding_only(kind: type[S], fields: dict[str, Any]) -> S:
    """A section with these fields and no others, not even by default."""
    section = kind.model_construct(**fields)
    for name in set(kind.model_fields) - set(fields):
        section.__dict__.pop(name, None)
    return section


def _plain(value: Any) -> Any:
    """A section as dictionaries and lists, with all that it holds."""
    if isinstance(value, Section):
        return _plain({**value.__dict__, **(value.model_extra or {})})
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def fingerprint(
    notebooks: Path,
    parameters: Parameters,
    stage: str,
    experiment: str | None = None,
    *,
    digests: Digests,
) -> dict[str, Any]:
    """Of a stage: hashes of its notebook, of the code that this imports and of the images that it
    reads, and its parameters. Where a data set lies is none of it."""
    seen = visible(parameters, stage, experiment)
    plain = _plain(seen)
    for name in FREE:
        plain.pop(name)
    data = {}
    for name, section in plain.get("experiments", {}).items():
        section["dataset"] = Path(section["dataset"]).name
        if stage in READS:
            data[name] = {split: digests[name].get(split) for split in SPLITS}
        if stage == "train" and "file" in digests[name]:
            data[name]["file"] = digests[name]["file"]
    modules = set(_named_modules(seen, stage))
    if stage in NOT_NOTEBOOKS:
        modules.add(NOT_NOTEBOOKS[stage])
        page = content_of(TEMPLATES)[:16]
    else:
        cells = cells_of(notebooks / f"{stage}.ipynb")
        modules |= imports(_code(cells))
        page = hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]
    return {"page": page, "code": hash_of_modules(modules), "data": data, "parameters": plain}


def _named_modules(seen: Parameters, stage: str) -> Iterator[str]:
    """The modules of the functions that a stage's parameters name and it calls."""
    functions: list[Callable | None] = []
    if stage in CHOOSING:
        for name, method in seen.methods.items():
            if method.theta is not None:
                functions.append(theta_function(method.theta, f"methods.{name}.theta"))
    if stage == "ablations":
        functions.append(theta_function(seen.ablations.theta, "ablations.theta"))
    for section in seen.__dict__.get("experiments", {}).values():
        functions.append(architecture(section.arch))
        functions.append(maker_of(section.dataset))
        functions.append(find(section.noise, NOISES, "noise"))
    for function in functions:
        if function is not None:
            yield function.__module__
    for name in _bases_and_perturbations(seen):
        module, own, _ = name.partition(":")
        if own:
            yield module


def _bases_and_perturbations(seen: Parameters) -> Iterator[str]:
    """The names of those that a stage's parameters hold: ours, and package.module:object."""
    sections = seen.__dict__
    options: list[Mapping[str, Any]] = []
    for method in sections.get("methods", {}).values():
        options.append({"basis": method.basis, **method.options})
    for recipe in sections.get("train", {}).values():
        if getattr(recipe, "under", None) is not None:
            options.append({"basis": recipe.under.basis})
    for experiment in sections.get("experiments", {}).values():
        options += experiment.method_options.values()
    if "ablations" in sections:
        options += seen.ablations.settings
    for given in options:
        yield str(given.get("basis", ""))
        yield from given.get("toward") or ()


def cells_of(path: Path) -> list[tuple[str, str]]:
    """A notebook's cells without outputs: their kinds and texts."""
    cells = []
    for cell in json.loads(path.read_text())["cells"]:
        cells.append((cell["cell_type"], "".join(cell["source"])))
    return cells


def _code(cells: Sequence[tuple[str, str]]) -> str:
    code = []
    for kind, text in cells:
        if kind == "code":
            code.append(text)
    return "\n".join(code)


def write_fingerprints(
    notebooks: Path, parameters: Parameters, folder: Path, *, digests: Digests
) -> list[Path]:
    """Write folder/<stage>.json and folder/<stage>/<experiment>.json; returns what it wrote.

    digests: of the images of each experiment. A file is the same, byte for byte, as long as the
    stage has nothing new to do.
    """
    found: dict[str, Mapping] = {}
    for stage in OF_ALL:
        found[f"{stage}.json"] = fingerprint(notebooks, parameters, stage, digests=digests)
    for stage in OF_EXPERIMENT:
        for name in parameters.experiments:
            print_of = fingerprint(notebooks, parameters, stage, name, digests=digests)
            found[f"{stage}/{name}.json"] = print_of
    written = []
    for name, content in found.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
        written.append(path)
    for path in folder.rglob("*.json"):
        if path not in written:
            path.unlink()  # of an experiment or stage that is gone
    return written
