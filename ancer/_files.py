"""Files written in one piece: a kill leaves the old one or the new one; a full disk is named."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import portalocker
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

HEADER = "ancer"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure of the disk into an error that names the file and the fix."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"cannot write {path} ({error}): fix the disk and run again, what is finished is kept"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a text file in one piece, and its folder where there is none."""
    write_bytes(path, text.encode())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Any) -> None:
    """Write a safetensors file in one piece, and its folder where there is none.

    It is made on the disk: tensors may be larger than the memory. header: what JSON can hold, as
    one entry of the metadata, whose order would change from run to run.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with _part(path) as part:
        save_file(plain, part, metadata={HEADER: json.dumps(header, sort_keys=True)})


def write_state(path: Path, state: dict) -> None:
    """Write nested dictionaries of tensors and numbers in one piece.

    `torch.load(path, weights_only=True)` reads them.
    """
    buffer = BytesIO()
    torch.save(state, buffer)  # to a file it would turn the disk's error into one of its own
    write_bytes(path, buffer.getbuffer())


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file in one piece, and its folder where there is none."""
    with _part(path) as part, open(part, "wb") as file:
        file.write(content)


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    """A fresh file beside `path` that takes its place when it is on the disk.

    A machine that is lost leaves the old file or the new one; a link that somebody put in the way
    is not followed.
    """
    part = path.with_name(f"{path.name}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)  # of a run that was killed
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)


def lock(file: IO) -> bool:
    """Lock an open file until it is closed; False where another process or file object holds it."""
    try:
        portalocker.lock(file, portalocker.LOCK_EX | portalocker.LOCK_NB)
    except portalocker.LockException:
        return False
    return True


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Tensors and header of such a file; SafetensorError when it is truncated or none."""
    with safe_open(path, framework="pt") as file:
        return tensors_of(file), header_of(file)


def tensors_of(file: Any) -> dict[str, Tensor]:
    """All tensors of an open file, by name."""
    return {name: file.get_tensor(name) for name in file.keys()}


def header_of(file: safe_open) -> Any:
    """The header of an open file; SafetensorError where it has none."""
    text = (file.metadata() or {}).get(HEADER)
    if text is None:
        raise SafetensorError("it has no header of ancer")
    return json.loads(text)


def sha256_of(path: str | Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
