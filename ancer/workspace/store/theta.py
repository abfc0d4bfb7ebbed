"""theta on disk: a file a chunk of images while a run lasts, one file when it is done."""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ancer._files import read_tensors, write_tensors, writing
from ancer.workspace.store._locked import Locked


class ThetaStore(Locked):
    """theta of one experiment: a file a chunk while it runs, one safetensors file when it is done.

    The file holds `indices` (M,) and, for each method, a tensor whose first dimension is M. It is
    made on the disk, never in memory. The chunks stay, like the lines of `RowStore`, in
    <path>.<key>.parts.
    """

    def __init__(self, path: str | Path, *, key: str):
        super().__init__(Path(path))
        self.parts = self.path.with_suffix(f".{key}.parts")

    def __enter__(self):
        super().__enter__()
        with writing(self.parts):
            self.parts.mkdir(exist_ok=True)
        return self

    def _part(self, indices: Sequence[int]) -> Path:
        return self.parts / f"{indices[0]}-{indices[-1]}-{len(indices)}.safetensors"

    def has(self, indices: Sequence[int]) -> bool:
        """Whether the chunk of these images is finished."""
        return self._part(indices).exists()

    def add(
        self, indices: Sequence[int], theta: dict[str, Tensor], *, seconds: dict[str, float]
    ) -> None:
        """Save a finished chunk in one piece."""
        tensors = {"indices": torch.as_tensor(indices), **theta}
        write_tensors(self._part(indices), tensors, {"seconds": json.dumps(seconds)})

    def finish(self, chunks: Sequence[Sequence[int]], *, provenance: dict) -> dict[str, float]:
        """Join the chunks into the file; returns the seconds spent on each method."""
        folder = self.parts / "joined"
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed while it joined
        with writing(folder):
            folder.mkdir()
        seconds: dict[str, float] = {}
        tensors: dict[str, Tensor] = {}
        for part in map(self._part, chunks):
            with _whole(part):
                tensors, metadata = read_tensors(part)
            for method, spent in json.loads(metadata["seconds"]).items():
                seconds[method] = seconds.get(method, 0.0) + spent
            for name, tensor in tensors.items():
                with writing(folder), open(folder / name, "ab") as file:
                    file.write(tensor.numpy().tobytes())
        total = sum(map(len, chunks))
        whole = {}
        for name, last in tensors.items():
            shape = (total, *last.shape[1:])
            mapped = torch.from_file(
                str(folder / name), shared=True, size=math.prod(shape), dtype=last.dtype
            )
            whole[name] = mapped.reshape(shape)
        write_tensors(self.path, whole, {"provenance": json.dumps(provenance, sort_keys=True)})
        shutil.rmtree(folder)
        return seconds


def read_theta(
    path: str | Path, indices: Sequence[int], methods: Sequence[str]
) -> dict[str, Tensor]:
    """theta of some methods for the images `indices`, from a finished file; no more is read.

    Raises FileNotFoundError without the file, ValueError for an image or method that it lacks.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no theta at {path}: run the optimize stage (dvc repro) first")
    with _whole(path), safe_open(path, framework="pt") as file:
        there = file.get_tensor("indices").tolist()
        position = dict(zip(there, range(len(there)), strict=True))
        for index in indices:
            if index not in position:
                raise ValueError(
                    f"{path} has no theta for image {index}: run the optimize stage for it"
                )
        at = [position[index] for index in indices]
        found = {}
        for name in methods:
            if name not in file.keys():
                raise ValueError(
                    f"{path} has no theta of method {name}: run the optimize stage (dvc repro)"
                )
            whole: Any = file.get_slice(name)
            found[name] = torch.cat([whole[k : k + 1] for k in at])
        return found


@contextmanager
def _whole(path: str | Path) -> Iterator[None]:
    """Turn the error of a file that was cut or is of another kind into one that says so."""
    try:
        yield
    except SafetensorError as error:
        raise ValueError(
            f"{path} is truncated or not a theta file ({error}): remove it and optimize again"
        ) from None
