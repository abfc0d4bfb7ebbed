"""What a file was made from, in a JSON file beside it, and whether that is what there is now."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ancer._files import sha256_of, write_text
from ancer.workspace.places import FILES, WRITTEN_BY


def provenance_file(path: Path) -> Path:
    """Where the provenance of a file or folder stands."""
    return path / "provenance.json" if path.is_dir() else path.with_suffix(".json")


def content_of(path: Path) -> str:
    """sha256 of a file, or of all files in a folder with their names, its provenance apart."""
    if not path.is_dir():
        return sha256_of(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file() and file != provenance_file(path):
            digest.update(f"{file.relative_to(path).as_posix()}\n{sha256_of(file)}\n".encode())
    return digest.hexdigest()


def write_provenance(path: Path, made_from: Mapping[str, Any]) -> None:
    """Write what the file or folder `path` was made from, and its own sha256."""
    record = {**made_from, "sha256": content_of(path)}
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
        if not file.exists():
            raise FileNotFoundError(f"no {file}: run the {notebook} notebook (dvc repro) first")
    try:
        record = json.loads(beside.read_text())
        own = record["sha256"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{beside} is damaged: {again}") from None
    if own != content_of(path):
        raise ValueError(f"{path} is not as it was written: {again}")
    compare(path, record, made_from, notebook)
    return record


def compare(path: Path, record: Mapping[str, Any], now: Mapping[str, Any], notebook: str) -> None:
    """Raise ValueError where the record of `path` says of a name another value than `now`."""
    for name, value in now.items():
        if record.get(name) != value:
            raise ValueError(
                f"{path} was made with {name} = {record.get(name)!r}, now it is {value!r}: "
                f"run the {notebook} notebook (dvc repro) again"
            )


def digests_of(
    kinds: Iterable[str], file: Callable[..., Path], experiments: Iterable[str]
) -> dict[str, Any]:
    """sha256 of results, by kind, and of those that each experiment has, by kind and name.

    file: where a kind is, and of which experiment. Raises as `read_provenance` does where one is
    missing or no longer as it was written.
    """
    found: dict[str, Any] = {}
    for kind in kinds:
        notebook = WRITTEN_BY[kind]
        if "{name}" not in FILES[kind]:
            found[kind] = read_provenance(file(kind), {}, notebook)["sha256"]
            continue
        found[kind] = {}
        for name in experiments:
            found[kind][name] = read_provenance(file(kind, name), {}, notebook)["sha256"]
    return found
