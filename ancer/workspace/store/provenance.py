"""What a file was made from, in a JSON file beside it, and whether that is what there is now."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ancer._files import sha256_of, write_text


def provenance_file(path: Path) -> Path:
    """Where the provenance of a file stands."""
    return path.with_suffix(".json")


def write_provenance(path: Path, made_from: Mapping[str, Any]) -> None:
    """Write what `path` was made from, and its own sha256."""
    record = {**made_from, "sha256": sha256_of(path)}
    text = json.dumps(record, indent=2, sort_keys=True)
    write_text(provenance_file(path), text + "\n")


def read_provenance(path: Path, made_from: Mapping[str, Any], notebook: str) -> dict[str, Any]:
    """The provenance of `path`, compared with what there is now.

    made_from: what must stand in it, by name. notebook: which one makes the file. Raises
    FileNotFoundError or ValueError that say what differs and which notebook to run.
    """
    again = f"run the {notebook} notebook (dvc repro) again"
    beside = provenance_file(path)
    for file in (path, beside):
        if not file.is_file():
            raise FileNotFoundError(f"no {file}: run the {notebook} notebook (dvc repro) first")
    try:
        record = json.loads(beside.read_text())
        own = record["sha256"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{beside} is damaged: {again}") from None
    if own != sha256_of(path):
        raise ValueError(f"{path} is not as it was written: {again}")
    for name, value in made_from.items():
        if record.get(name) != value:
            raise ValueError(f"{path} was made from other {name} than there are now: {again}")
    return record
