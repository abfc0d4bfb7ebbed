"""What a run has finished, kept on disk so that a kill loses nothing: rows of certificates and theta."""

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from torch import Tensor

from ancer.files import read_tensors, write_tensors, write_text, writing
from ancer.models import machine
from ancer.noise import Noise

if TYPE_CHECKING:  # certificates are only passed through: optimizing needs no certification
    from ancer.best import Best
    from ancer.certification import Certificate
    from ancer.memory import Answer


def key_of(**everything) -> str:
    """A hash of all that affects a result; results with different keys never mix."""
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]


def code_key(*modules) -> str:
    """A hash of the source of the modules that compute a result."""
    return hashlib.sha256(b"".join(Path(m.__file__).read_bytes() for m in modules)).hexdigest()[:16]


def arithmetic(lattice: float | None) -> str:
    """How noise and pixels were added, as rows and their provenance say it."""
    return f"lattice {lattice:.17g}" if lattice else "not floating-point sound"


def row(certificate: "Certificate", *, method: str, label: int, seed: int, draws: int) -> dict:
    """One row: one image, one method (full precision; theta in the units of x).

    candidate: whose theta it is; draws: noisy copies spent, selection included.
    """
    theta = certificate.theta.double()
    return {
        "method": method,
        "candidate": method,
        "idx": certificate.index,
        "label": label,
        "prediction": certificate.prediction,
        "correct": int(certificate.prediction == label),
        "p_a_lower": certificate.p_a_lower,
        "count": certificate.count,
        "gap": certificate.gap,
        "radius": certificate.radius,
        "proxy_radius": certificate.proxy_radius,
        "box_proxy_radius": certificate.box_proxy_radius,
        "log_volume": certificate.log_volume,
        "theta_min": theta.min().item(),
        "theta_gmean": theta.log().mean().exp().item(),
        "theta_max": theta.max().item(),
        "n": certificate.n,
        "draws": draws,
        "alpha": certificate.alpha,
        "seed": seed,
        "arithmetic": arithmetic(certificate.lattice),
    }


def best_row(best: "Best", *, label: int, seed: int) -> dict:
    """One row of `certify_best`, largest volume: the certificate reported, at the level of all candidates together."""
    certified = row(best.certificate, method="best", label=label, seed=seed, draws=best.draws)
    return {**certified, "candidate": best.names[0], "alpha": best.alpha}


def answer_row(answer: "Answer", certificate: "Certificate", *, method: str, label: int) -> dict:
    """One row of answers through a memory: what may be reported, and what happened to the certificate."""
    region = answer.region
    return {
        "method": method,
        "idx": certificate.index,
        "label": label,
        "prediction": answer.prediction,
        "correct": int(answer.prediction == label),
        "radius": region.radius if region else 0.0,
        "proxy_radius": region.proxy_radius if region else 0.0,
        "box_proxy_radius": region.box_proxy_radius if region else 0.0,
        "log_volume": region.log_volume if region else float("-inf"),
        "conflicts": answer.conflicts,
        "event": answer.event,
    }


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
        self.owner.unlink(missing_ok=True)
        self._lock.release()
        self.path.with_suffix(".lock").unlink(missing_ok=True)


class RowStore(_Locked):
    """Rows of one experiment: append-only, locked JSON lines while it runs; CSV when it is done.

    path: the CSV. key: hash of all that affects a row (`key_of`); rows of another key are left alone and never
    used. `with RowStore(...) as store:` finds what an earlier, killed run finished; a half-written last line is
    dropped and computed again.
    """

    def __init__(self, path: str | Path, *, key: str):
        super().__init__(Path(path))
        self.partial = self.path.with_suffix(f".{key}.jsonl")

    def __enter__(self):
        super().__enter__()
        text = self.partial.read_bytes() if self.partial.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        self.rows = [json.loads(line) for line in whole.splitlines()]
        with open(self.partial, "ab") as file:
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
        self.partial.unlink()
        return rows, seconds


def read_rows(path: str | Path) -> pd.DataFrame:
    """The rows of a finished CSV, every float as it was written."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no rows at {path}: run the certify stage (dvc repro) first")
    return pd.read_csv(path)


class ThetaStore(_Locked):
    """theta of one experiment: one file a chunk while it runs, one safetensors file when it is done.

    The file holds `indices` (M,) and, for each method, a tensor whose first dimension is M.
    """

    def __init__(self, path: str | Path, *, key: str):
        super().__init__(Path(path))
        self.parts = self.path.with_suffix(f".{key}.parts")

    def __enter__(self):
        super().__enter__()
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
        parts = [_load(self._part(indices)) for indices in chunks]
        joined = {name: torch.cat([tensors[name] for tensors, _ in parts]) for name in parts[0][0]}
        write_tensors(self.path, joined, {"provenance": json.dumps(provenance, sort_keys=True)})
        seconds = pd.DataFrame([json.loads(metadata["seconds"]) for _, metadata in parts]).sum()
        shutil.rmtree(self.parts)
        return {name: float(s) for name, s in seconds.items()}


def read_theta(path: str | Path, indices: Sequence[int]) -> dict[str, Tensor]:
    """theta of each method for the images `indices`, from a finished file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no theta at {path}: run the optimize stage (dvc repro) first")
    tensors, _ = _load(Path(path))
    position = {index: k for k, index in enumerate(tensors.pop("indices").tolist())}
    absent = [i for i in indices if i not in position]
    if absent:
        raise ValueError(f"{path} has no theta for image {absent[0]}: run the optimize stage for these images")
    return {name: t[[position[i] for i in indices]] for name, t in tensors.items()}


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


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        return read_tensors(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or not a theta file ({error}): remove it and optimize again") from None
