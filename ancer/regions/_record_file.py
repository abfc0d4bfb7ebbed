"""Regions in one mapped file, a record each, with a checksum under their memory's key."""

import hashlib
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

CHECK = 8  # bytes of a checksum
CHUNK = 2**16  # numbers handled at once: temporaries stay in the processor's cache


def checksum(key: str, content: bytes) -> bytes:
    """Of a content under a key, CHECK bytes."""
    return hashlib.blake2b(content, digest_size=CHECK, key=key.encode()).digest()


class RecordFile:
    """Regions of `width` axes each, round centers of n numbers, in one file.

    predictions, largest: class and largest axis of each region, (count,), in main memory. key:
    under which the checksums are made. capacity: records that the file has room for.
    """

    def __init__(self, file: BinaryIO, count: int, width: int, n: int, number: str, key: str):
        self.record = np.dtype(
            [
                ("prediction", "<i8"),
                ("axes", number, (width,)),
                ("center", number, (n,)),
                ("checksum", "V", CHECK),
            ]
        )
        self.file = file
        self.count = count
        self.n = n
        self.key = key
        size = os.fstat(file.fileno()).st_size
        if size < count * self.record.itemsize:
            raise ValueError(
                f"{file.name} is truncated: {size} bytes for {count} regions of "
                f"{self.record.itemsize}; restore it: a memory that forgets is not sound"
            )
        self._map()
        self._read()

    def _read(self) -> None:
        """Classes and largest axes of the regions."""
        regions = self._regions[: self.count]
        self.predictions = torch.from_numpy(np.array(regions["prediction"]))
        self.largest = torch.from_numpy(regions["axes"].max(-1).astype("f8"))

    @property
    def nbytes(self) -> int:
        """Bytes that they take."""
        return self.count * self.record.itemsize

    def _map(self) -> None:
        """Map the file with room for as many regions again: a hole takes no disk until used."""
        size = os.fstat(self.file.fileno()).st_size
        self.capacity = max(16, 2 * self.count, size // self.record.itemsize)
        self.file.truncate(self.capacity * self.record.itemsize)
        mapped = np.memmap(self.file, self.record, "r+", shape=(self.capacity,))
        self._regions = mapped.view(np.ndarray)

    def valid(self, row: int) -> bool:
        """Whether a record is as it was written, here and under this key."""
        region = self._regions[row]
        return bytes(region["checksum"]) == self._checksum(region, row)

    def empty(self, row: int) -> bool:
        """Whether nothing was ever written there."""
        return not any(self._regions[row].tobytes())

    def _checksum(self, region: Any, row: int) -> bytes:
        return checksum(f"{self.key} {row}"[-64:], region.tobytes()[:-CHECK])

    def check(self) -> None:
        """Raise ValueError for a counted record that is not as it was written."""
        for row in range(self.count):
            if not self.valid(row):
                raise ValueError(
                    f"record {row} of {self.file.name} is damaged, or of another memory: restore "
                    "the folder, or keep what is undamaged with Memory.salvage"
                )

    def count_complete(self) -> None:
        """Count the records that are complete beyond the counted ones: a kill left them so."""
        while self.count < self.capacity and self.valid(self.count):
            self.count += 1
        self._read()

    def append(self, prediction: int, axes: Tensor, center: Tensor) -> None:
        """Write a region; axes and center in the file's number format."""
        if self.count == self.capacity:
            self._map()
        region = np.zeros((), self.record)
        region["prediction"] = prediction
        region["axes"] = axes.numpy()
        region["center"] = center.numpy()
        region["checksum"] = np.void(self._checksum(region, self.count))
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

    def stored(self, row: int) -> tuple[int, Tensor, Tensor]:
        """Class, axes and center of a region, in float64."""
        region = self._regions[row]
        axes = torch.from_numpy(np.array(region["axes"], "f8"))
        center = torch.from_numpy(np.array(region["center"], "f8"))
        return int(region["prediction"]), axes, center
