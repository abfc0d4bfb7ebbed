"""What a run has finished, kept on disk so that a kill loses nothing: rows of certificates and theta."""

import hashlib
import json
import math
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ancer.files import read_tensors, write_tensors, write_text, writing
from ancer.models import machine
from ancer.noise import Noise


def key_of(**everything) -> str:
    """A hash of all that affects a result; results with different keys never mix."""
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]


def code_key(*modules) -> str:
    """A hash of the source of the modules that compute a result."""
    return hashlib.sha256(b"".join(Path(m.__file__).read_bytes() for m in modules)).hexdigest()[:16]


class _Locked:
    """Holds `<path>.lock` while open; a second run is refused with the first one's process and host."""

    def __init__(self, path: Path):
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.owner = path, path.with_suffix(".owner")
        self._lock = FileLock(path.with_suffix(".lock"))

    def __enter__(self):
        with writing(self.path):
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                owner = self.owner.read_text() if self.owner.exists() else "another process"
                raise RuntimeError(f"{self.path} is being written by {owner}: wait for it or stop it") from None
            self.owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        return self

    def __exit__(self, *_):
        with suppress(OSError):  # a disk that went read-only keeps both; its own error is the one to be seen
            self.owner.unlink(missing_ok=True)
        self._lock.release()
        with suppress(OSError):
            self.path.with_suffix(".lock").unlink(missing_ok=True)


class RowStore(_Locked):
    """Rows of one experiment: append-only, locked JSON lines while it runs; CSV when it is done.

    path: the CSV. key: hash of all that affects a row (`key_of`); rows of another key are left alone and never
    used. `with RowStore(...) as store:` finds what earlier runs finished, whether they were killed or not; a
    half-written last line is dropped and computed again. The lines stay when the CSV is written: a run that is repeated
    because something else changed computes nothing again. To have rows computed afresh, remove <path>.<key>.jsonl.
    """

    def __init__(self, path: str | Path, *, key: str):
        super().__init__(Path(path))
        self.partial = self.path.with_suffix(f".{key}.jsonl")

    def __enter__(self):
        super().__enter__()
        text = self.partial.read_bytes() if self.partial.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        self.rows = [json.loads(line) for line in whole.splitlines()]
        with writing(self.partial), open(self.partial, "ab") as file:
            file.truncate(len(whole))
        return self

    def missing(self, method: str, indices: Iterable[int]) -> list[int]:
        """Those of `indices` that have no row of `method` yet, in their order."""
        done = {r["idx"] for r in self.rows if r["method"] == method}
        return [i for i in indices if i not in done]

    def append(self, rows: Sequence[dict], *, seconds: float) -> None:
        """Write finished rows through to the disk, with the seconds that they took together."""
        rows = [{**r, "seconds": seconds / len(rows)} for r in rows]
        with writing(self.partial), open(self.partial, "ab") as file:
            file.write("".join(json.dumps(r) + "\n" for r in rows).encode())
            file.flush()
            os.fsync(file.fileno())
        self.rows += rows

    def finish(self, *, methods: Sequence[str], indices: Sequence[int], provenance: dict) -> tuple[pd.DataFrame, dict]:
        """Write the CSV, in the order of `methods` and `indices`, and beside it the provenance as JSON.

        Returns the rows and the seconds spent on each method.
        """
        by_name = {(r["method"], r["idx"]): r for r in self.rows}
        rows = pd.DataFrame([by_name[m, i] for m in methods for i in indices])
        seconds = {m: float(s) for m, s in rows.groupby("method")["seconds"].sum().items()}
        rows = rows.drop(columns="seconds")
        write_text(self.path, rows.to_csv(index=False))
        write_text(self.path.with_suffix(".json"), json.dumps(provenance, indent=2, sort_keys=True) + "\n")
        return rows, seconds


def read_rows(path: str | Path) -> pd.DataFrame:
    """The rows of a finished CSV, every float as it was written."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no rows at {path}: run the certify stage (dvc repro) first")
    return pd.read_csv(path)


class ThetaStore(_Locked):
    """theta of one experiment: one file a chunk while it runs, one safetensors file when it is done.

    The file holds `indices` (M,) and, for each method, a tensor whose first dimension is M. It is made on the disk,
    never in memory. The chunks stay, like the lines of `RowStore`, in <path>.<key>.parts.
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

    def add(self, indices: Sequence[int], theta: dict[str, Tensor], *, seconds: dict[str, float]) -> None:
        """Save a finished chunk in one piece."""
        write_tensors(
            self._part(indices), {"indices": torch.as_tensor(indices), **theta}, {"seconds": json.dumps(seconds)}
        )

    def finish(self, chunks: Sequence[Sequence[int]], *, provenance: dict) -> dict[str, float]:
        """Join the chunks into the file; returns the seconds spent on each method."""
        seconds, total, files = [], sum(map(len, chunks)), self.parts / "joined"
        shutil.rmtree(files, ignore_errors=True)  # of a run that was killed while it joined
        for part in map(self._part, chunks):
            with _whole(part):
                tensors, metadata = read_tensors(part)
            with writing(files):
                files.mkdir(exist_ok=True)
                for name, t in tensors.items():
                    with open(files / name, "ab") as file:
                        file.write(t.numpy().tobytes())
            seconds.append(json.loads(metadata["seconds"]))
        whole = {}
        for name, t in tensors.items():
            shape = (total, *t.shape[1:])
            mapped = torch.from_file(str(files / name), shared=True, size=math.prod(shape), dtype=t.dtype)
            whole[name] = mapped.reshape(shape)
        write_tensors(self.path, whole, {"provenance": json.dumps(provenance, sort_keys=True)})
        shutil.rmtree(files)
        return {name: float(s) for name, s in pd.DataFrame(seconds).sum().items()}


def read_theta(path: str | Path, indices: Sequence[int]) -> dict[str, Tensor]:
    """theta of each method for the images `indices`, from a finished file, of which no more is read."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no theta at {path}: run the optimize stage (dvc repro) first")
    with _whole(path), safe_open(path, framework="pt") as file:
        position = {index: k for k, index in enumerate(file.get_tensor("indices").tolist())}
        absent = [i for i in indices if i not in position]
        if absent:
            raise ValueError(f"{path} has no theta for image {absent[0]}: run the optimize stage for these images")
        at = [position[i] for i in indices]
        whole = {name: file.get_slice(name) for name in file.keys() if name != "indices"}
        return {name: torch.cat([t[k : k + 1] for k in at]) for name, t in whole.items()}


def read_sampled_theta(
    path: str | Path, x: Tensor, indices: Sequence[int], noise: Noise, lattice: float | None
) -> dict[str, Tensor]:
    """theta of each method as certification sampled it round images x (B, ...), numbered `indices`.

    noise: that of training, whose theta is the method "fixed". lattice: that on which noise was drawn, or None.
    """
    theta = {"fixed": noise.theta.expand(len(x)), **read_theta(path, indices)}
    return {method: type(noise)(t).theta_for(x, lattice) for method, t in theta.items()}


def save_seconds(folder: str | Path, experiment: str, stage: str, seconds: dict[str, float], images: int) -> None:
    """Write the seconds per image of each method into `folder`; timings live apart, since they never repeat."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    per_image = {method: s / images for method, s in seconds.items()}
    text = json.dumps({"images": images, "seconds_per_image": per_image, **machine(torch.device("cpu"))}, indent=2)
    write_text(folder / f"{experiment}.{stage}.json", text + "\n")


class Stopwatch:
    """`with Stopwatch() as watch: ...` then `watch.seconds` (wall clock)."""

    def __enter__(self):
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self._start


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turn the error of a file that was cut or is of another kind into one that says so."""
    try:
        yield
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or not a theta file ({error}): remove it and optimize again") from None
