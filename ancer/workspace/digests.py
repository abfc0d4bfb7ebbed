"""What the images of an experiment are, by their content: the same wherever they lie."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ancer._files import sha256_of, write_text
from ancer.datasets.limits import Limits
from ancer.datasets.loading import load, place_of
from ancer.workspace.parameters.models import PCA, ExperimentSection, Parameters, TrainingRecipe

MISSING = "missing"
Digests = dict[str, dict[str, str]]


def data_digests(folder: Path, parameters: Parameters) -> Digests:
    """sha256 of the images that each experiment reads: its name -> split -> digest; and of a file
    of weights.

    To look at them takes seconds; .build/data.json remembers it, as long as no file of the data set
    has another size or time.
    """
    memory = folder / ".build/data.json"
    known = json.loads(memory.read_text()) if memory.is_file() else {}
    sections = parameters.experiments.values()
    states = {section.dataset: _state(section.dataset, folder) for section in sections}
    found: Digests = {}
    seen = {}
    for name, section in parameters.experiments.items():
        found[name] = {}
        for split, choice in _choices(section, parameters).items():
            key = json.dumps([section.dataset, split, choice, states[section.dataset]])
            if key not in known:
                limits = parameters.limits.limits()
                known[key] = _digest(section.dataset, folder, limits, split=split, **choice)
            found[name][split] = seen[key] = known[key]
        if "file" in section.options:
            path = folder / section.options["file"]
            found[name]["file"] = sha256_of(path) if path.is_file() else MISSING
    kept = {}
    for key, digest in seen.items():
        if digest != MISSING and json.loads(key)[-1] is not None:
            kept[key] = digest
    write_text(memory, json.dumps(kept, indent=1) + "\n")
    return found


def _choices(section: ExperimentSection, parameters: Parameters) -> dict[str, dict[str, Any]]:
    """By split, which of its images an experiment reads."""
    taken = {"convert": section.convert, "classes": section.classes}
    choices = {"test": {**taken, "images": parameters.images, "every": parameters.every}}
    recipe = parameters.train[section.training]
    if isinstance(recipe, TrainingRecipe):
        choices["train"] = {**taken, "every": recipe.every}
    for method in parameters.methods.values():
        if method.basis == PCA or (method.fit and "train" not in choices):
            choices["train"] = {**taken, "every": 1}
    return choices


def _digest(dataset: str, folder: Path, limits: Limits, **choice: Any) -> str:
    try:
        return load(dataset, folder, limits=limits, **choice).sha256
    except FileNotFoundError:
        return MISSING  # the stage that reads them says so


def _state(dataset: str, folder: Path) -> str | None:
    """Names, sizes and times of a data set's files; None where it has none."""
    place = place_of(dataset, folder)
    if place is None:
        return None
    digest = hashlib.sha256()
    for path in sorted([place, *place.rglob("*")]):
        if path.is_file():
            state = os.stat(path)
            line = f"{path.relative_to(place)} {state.st_size} {state.st_mtime_ns}\n"
            digest.update(line.encode())
    return digest.hexdigest()
