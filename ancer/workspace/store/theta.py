"""theta on disk: a file a chunk of images while a run lasts, one file when it is done."""

import hashlib
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ancer._files import header_of, read_tensors, tensors_of, write_tensors, writing
from ancer.workspace.store._locked import Locked


class ThetaStore(Locked):
    """theta of one experiment: a file a chunk while it runs, one safetensors file when it is done.

    counts: whose theta it is, and of how many images, the first. The file holds `indices` (M,) and,
    for each method, a tensor whose first dimension is its count. It is made on the disk, never in
    memory. The chunks stay, like the lines of `RowStore`, in <path>.<key>.parts.
    """

    def __init__(self, path: str | Path, *, key: str, counts: Mapping[str, int]):
        path = Path(path)
        self.parts = path.with_suffix(f".{key}.parts")
        self.counts = counts
        super().__init__(path, self.parts / "lock")

    def _part(self, images: Mapping[int, str]) -> Path:
        name = hashlib.sha256(repr(list(images.items())).encode()).hexdigest()[:16]
        return self.parts / f"{name}.safetensors"

    def has(self, images: Mapping[int, str]) -> bool:
        """Whether the chunk of these images, number -> digest, is finished."""
        return self._part(images).exists()

    def add(
        self, images: Mapping[int, str], theta: dict[str, Tensor], *, seconds: dict[str, float]
    ) -> None:
        """Save a finished chunk in one piece."""
        tensors = {"indices": torch.tensor(list(images)), **theta}
        write_tensors(self._part(images), tensors, seconds)

    def finish(self, chunks: Sequence[Mapping[int, str]], *, provenance: dict) -> dict[str, float]:
        """Join the chunks into the file; returns the seconds spent on each method."""
        folder = self.parts / "joined"
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed while it joined
        with writing(folder):
            folder.mkdir()
        seconds: dict[str, float] = {}
        last: dict[str, Tensor] = {}
        digests: list[str] = []
        for chunk in chunks:
            total = len(digests)
            part = self._part(chunk)
            with _whole(part):
                tensors, spent_on = read_tensors(part)
            expected = ["indices", *(name for name, count in self.counts.items() if count > total)]
            if sorted(tensors) != sorted(expected):
                raise ValueError(
                    f"{part} holds {sorted(tensors)}, expected {sorted(expected)}: remove it and "
                    "optimize again"
                )
            for method, spent in spent_on.items():
                seconds[method] = seconds.get(method, 0.0) + spent
            for name, tensor in tensors.items():
                with writing(folder), open(folder / name, "ab") as file:
                    file.write(tensor.numpy().tobytes())
            last |= tensors
            digests += chunk.values()
        whole = {}
        for name, tensor in last.items():
            shape = (self.counts.get(name, len(digests)), *tensor.shape[1:])
            mapped = torch.from_file(
                str(folder / name), shared=True, size=math.prod(shape), dtype=tensor.dtype
            )
            whole[name] = mapped.reshape(shape)
        header = {"sha256": _digest(whole), "provenance": provenance, "images": digests}
        write_tensors(self.path, whole, header)
        shutil.rmtree(folder)
        return seconds


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of tensors and their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}\n".encode())
        digest.update(tensors[name].numpy().data)
    return digest.hexdigest()


def theta_provenance(path: str | Path) -> dict[str, Any]:
    """What a finished file was made from; ValueError where it is no longer as it was written."""
    with _opened(path) as file:
        header = header_of(file)
        tensors = tensors_of(file)
    if _digest(tensors) != header["sha256"]:
        raise ValueError(
            f"{path} is not as it was written: run the optimize notebook (dvc repro) again"
        )
    return header["provenance"]


def read_theta(
    path: str | Path, images: Mapping[int, str], methods: Sequence[str]
) -> dict[str, Tensor]:
    """theta of some methods for some images, number -> digest, from a finished file.

    No more of it is read. Raises FileNotFoundError without the file, ValueError for a method or an
    image that it does not have, or that it has otherwise.
    """
    with _opened(path) as file:
        there = file.get_tensor("indices").tolist()
        position = dict(zip(there, range(len(there)), strict=True))
        digests = header_of(file)["images"]
        at = []
        for index, digest in images.items():
            k = position.get(index)
            if k is None:
                raise ValueError(
                    f"{path} has no theta for image {index}: run the optimize stage for it"
                )
            if digests[k] != digest:
                raise ValueError(
                    f"theta of image {index} in {path} was chosen for another image of that "
                    "number: run the optimize notebook (dvc repro) again"
                )
            at.append(k)
        found = {}
        for name in methods:
            if name not in file.keys():
                raise ValueError(
                    f"{path} has no theta of method {name}: run the optimize stage (dvc repro)"
                )
            whole: Any = file.get_slice(name)
            count = whole.get_shape()[0]
            if at and max(at) >= count:
                raise ValueError(
                    f"{path} has theta of method {name} for the first {count} images only: raise "
                    f"methods.{name}.images"
                )
            found[name] = torch.cat([whole[k : k + 1] for k in at])
        return found


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no theta at {path}: run the optimize stage (dvc repro) first")
    with _whole(path), safe_open(path, framework="pt") as file:
        yield file


@contextmanager
def _whole(path: str | Path) -> Iterator[None]:
    """Turn the error of a file that was cut or is of another kind into one that says so."""
    try:
        yield
    except SafetensorError as error:
        raise ValueError(
            f"{path} is truncated or not a theta file ({error}): remove it and optimize again"
        ) from None
