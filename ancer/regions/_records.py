"""Where a memory keeps its regions: mapped files that only grow; a kill leaves them whole."""

import contextlib
import json
import math
import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from ancer.regions._geometry import SMALLEST

FORMAT = "ancer memory 1"
KINDS = ("isotropic", "anisotropic")  # the files of regions with one axis, and with n
HEADER = 4096  # bytes of the file "owner": whose memory it is, in JSON; last, the two counts
COUNTS = 16  # bytes of these
CHUNK = 2**16  # numbers handled at once: temporaries stay in the processor's cache


class Records:
    """The regions of one memory: in a folder, for one process at a time, or in temporary files.

    owner: what the memory is bound to; `start` adds norm, shape and number format. The counts of
    regions in the file "owner" are written after the regions themselves: a kill in between leaves
    bytes that do not count and that the next region overwrites. Raises ValueError for a folder that
    is damaged or another owner's, RuntimeError for one in use, MemoryError beyond limit bytes.
    """

    def __init__(self, owner: dict, *, path: Path | None, limit: int):
        self.owner = {"format": FORMAT, **owner}
        self.path = path
        self.limit = limit
        self.files: list[RecordFile] = []
        self._resources = contextlib.ExitStack()
        self.close = weakref.finalize(self, self._resources.close)
        if path is not None:
            self._lock(path)
            try:
                if (path / "owner").exists():
                    self._open(*self._read(path / "owner"))
            except BaseException:
                self.close()  # whoever repairs the folder finds it free
                raise

    def _lock(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / "lock", thread_local=False)  # whichever thread closes it
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RuntimeError(
                f"the memory in {path} is in use: all queries must share one"
            ) from None
        self._resources.callback(lock.release)

    def __len__(self) -> int:
        return int(self._counts().sum())

    def _counts(self) -> np.ndarray:
        return np.array([file.count for file in self.files], "<i8")

    @property
    def nbytes(self) -> int:
        """Bytes that the regions take."""
        return sum(file.nbytes for file in self.files)

    def start(self, **owner) -> None:
        """Begin a new memory."""
        self.owner |= owner
        if self.path is not None:
            if any((self.path / kind).exists() for kind in KINDS):
                raise ValueError(
                    f"{self.path} holds regions whose owner is lost: choose another folder"
                )
            draft = self.path / "owner.draft"
            text = json.dumps(self.owner).encode()
            draft.write_bytes(text.ljust(HEADER - COUNTS) + bytes(COUNTS))
            draft.replace(self.path / "owner")  # whole or not at all
        self._open(self.owner, [0, 0])

    def append(self, prediction: int, b: Tensor, x: Tensor) -> Tensor:
        """Store a region of axes b round x; returns the axes as stored: at most b, 0 if too small.

        They are on the disk when it returns.
        """
        # 1. round the axes down to the file's numbers
        number = torch.float64 if self.owner["number"] == "<f8" else torch.float32
        axes = b.to(number)
        smaller = torch.nextafter(axes, torch.zeros_like(axes))
        axes = torch.where(axes.double() > b, smaller, axes)
        if not (axes.double() >= SMALLEST).all():
            axes = axes.new_zeros(1)
        # 2. write the region
        file = self.files[len(axes) > 1]
        if self.nbytes + file.record.itemsize > self.limit:
            raise MemoryError(
                f"{len(self)} regions take {self.nbytes} bytes and one more would pass the limit "
                f"of {self.limit}: raise it; to forget a region would break the guarantee"
            )
        file.append(prediction, axes, x.to(number))
        # 3. then count it
        if self.path is not None:
            os.fsync(file.file.fileno())
            self._index.seek(HEADER - COUNTS)
            self._index.write(self._counts().tobytes())
            self._index.flush()
            os.fsync(self._index.fileno())
        return axes.double()

    def _read(self, path: Path) -> tuple[dict, list[int]]:
        """The stored owner, checked against ours, and the counts of regions."""
        head = path.read_bytes()
        try:
            owner = json.loads(head[: HEADER - COUNTS])
            counts = np.frombuffer(head[HEADER - COUNTS :], "<i8").tolist()
            ours = owner["format"] == FORMAT and len(counts) == len(KINDS)
        except (ValueError, TypeError, KeyError):
            ours = False
        if not ours:
            raise ValueError(f"{path} is damaged or no memory of ancer: choose another folder")
        for key, value in self.owner.items():
            if value is not None and owner[key] != value:
                raise ValueError(
                    f"the memory in {path.parent} was made for {key} {owner[key]!r}, "
                    f"not {value!r}: choose another folder"
                )
        return owner, counts

    def _open(self, owner: dict, counts: list[int]) -> None:
        self.owner = owner
        n = math.prod(owner["shape"])
        for kind, width, count in zip(KINDS, (1, n), counts, strict=True):
            file: BinaryIO
            if self.path is None:
                file = tempfile.TemporaryFile()
            else:
                (self.path / kind).touch()
                file = open(self.path / kind, "r+b")
            self._resources.callback(file.close)
            self.files.append(RecordFile(file, count, width, n, owner["number"]))
        if self.path is not None:
            self._index = self._resources.enter_context(open(self.path / "owner", "r+b"))


class RecordFile:
    """Regions of `width` axes each, round centers of n numbers, in one file.

    predictions, largest: class and largest axis of each region, (count,), in main memory.
    """

    def __init__(self, file: BinaryIO, count: int, width: int, n: int, number: str):
        self.record = np.dtype(
            [("prediction", "<i8"), ("axes", number, (width,)), ("center", number, (n,))]
        )
        self.file = file
        self.count = count
        self.n = n
        size = os.fstat(file.fileno()).st_size
        if size < count * self.record.itemsize:
            raise ValueError(
                f"{file.name} is truncated: {size} bytes for {count} regions of "
                f"{self.record.itemsize}; restore it: a memory that forgets is not sound"
            )
        self._map()
        self.predictions = torch.from_numpy(np.array(self._regions["prediction"][:count]))
        largest = self._regions["axes"][:count].max(-1)
        self.largest = torch.from_numpy(largest.astype("f8"))

    @property
    def nbytes(self) -> int:
        """Bytes that they take."""
        return self.count * self.record.itemsize

    def _map(self) -> None:
        """Map the file with room for as many regions again: a hole takes no disk until used."""
        self._capacity = max(16, 2 * self.count)
        self.file.truncate(self._capacity * self.record.itemsize)
        mapped = np.memmap(self.file, self.record, "r+", shape=(self._capacity,))
        self._regions = mapped.view(np.ndarray)

    def append(self, prediction: int, axes: Tensor, center: Tensor) -> None:
        """Write a region; axes and center in the file's number format."""
        if self.count == self._capacity:
            self._map()
        region = np.zeros((), self.record)
        region["prediction"] = prediction
        region["axes"] = axes.numpy()
        region["center"] = center.numpy()
        self.file.seek(self.count * self.record.itemsize)
        self.file.write(region.tobytes())
        self.file.flush()
        self.predictions = torch.cat([self.predictions, torch.tensor([prediction])])
        self.largest = torch.cat([self.largest, axes.max().double()[None]])
        self.count += 1

    def distances(self, x: Tensor, p: int) -> Tensor:
        """||center - x||_p of each region, (count,)."""
        step = max(1, CHUNK // self.n)
        centers = self._regions["center"][: self.count]
        distances = x.new_zeros(self.count)
        room = x.new_zeros(step, self.n)  # once: fresh memory costs page faults
        for i in range(0, self.count, step):
            part = torch.from_numpy(centers[i : i + step])
            u = torch.sub(part, x, out=room[: len(part)])
            distances[i : i + step] = torch.linalg.vector_norm(u, p, dim=-1)
        return distances

    def chunks(self, where: Tensor) -> Iterator[np.ndarray]:
        """The rows where it is true, a few at a time."""
        rows = where.nonzero()[:, 0].numpy()
        step = max(1, CHUNK // self.n)
        for i in range(0, len(rows), step):
            yield rows[i : i + step]

    def load(self, rows: np.ndarray | list[int], x: Tensor) -> tuple[Tensor, Tensor]:
        """center - x, (m, n), and axes, (m, n) or (m, 1), of m rows: fresh float64 tensors."""
        center = torch.from_numpy(self._regions["center"][rows])
        axes = torch.from_numpy(self._regions["axes"][rows])
        return center - x, axes.double()
