"""Files written in one piece: a kill leaves the old one or the new one, a failing disk an error that says so."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure of the disk into an error that names the file and the mend."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise OSError(f"cannot write {path} ({error}): mend the disk and run again, what is finished is kept") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file in one piece."""
    part = path.with_suffix(path.suffix + ".part")
    with writing(path):
        part.write_text(text)
        _replace(part, path)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file in one piece."""
    part = path.with_suffix(".part")
    with writing(path):
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, part, metadata=metadata)
        _replace(part, path)


def write_state(path: Path, state: dict) -> None:
    """Write tensors and numbers in nested dictionaries in one piece; `torch.load(path, weights_only=True)` reads it."""
    part = path.with_suffix(".part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = BytesIO()
        torch.save(state, buffer)  # to a file it would turn the disk's error into one of its own
        part.write_bytes(buffer.getbuffer())
        _replace(part, path)


def _replace(part: Path, path: Path) -> None:
    """`part` becomes `path` once it is on the disk: a machine that is lost leaves the old file or the new one."""
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; SafetensorError when it is truncated or none."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
