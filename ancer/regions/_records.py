"""Where a memory keeps its regions: mapped files that only grow; a kill leaves them whole.

Every record carries a checksum under its memory's key, its file and its row, so that a record that
was altered, moved or taken from another memory is noticed when the folder is opened.
"""

import contextlib
import json
import math
import os
import secrets
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ancer._files import lock
from ancer.regions._geometry import SMALLEST
from ancer.regions._record_file import CHECK, RecordFile, checksum

FORMAT = "ancer memory 3"
KINDS = ("isotropic", "anisotropic")  # the files of regions with one axis, and with n
HEADER = 4096  # bytes of the file "owner" before the counts: whose memory it is, in JSON
COUNTS = 16 + CHECK  # bytes of the two counts and of the checksum of owner and counts


class Records:
    """The regions of one memory: in a folder, for one process at a time, or in temporary files.

    owner: what the memory is bound to; `start` adds the rest. The counts of regions in the file
    "owner" are written after the regions themselves: a kill in between leaves a region that is
    counted when the folder is opened, or bytes that do not count and that the next region
    overwrites. Opening reads everything once, to compare the checksums.

    Raises ValueError for a folder that is damaged or another owner's, RuntimeError for one in use,
    MemoryError beyond limit bytes.
    """

    def __init__(self, owner: dict, *, path: Path | None, limit: int):
        self.owner = {"format": FORMAT, "key": secrets.token_hex(16), **owner}
        self.path = path
        self.limit = limit
        self.files: list[RecordFile] = []
        self._resources = contextlib.ExitStack()
        self.close = weakref.finalize(self, self._resources.close)
        if path is not None:
            self._index = self._resources.enter_context(_locked(path))
            try:
                self._continue(path)
            except BaseException:
                self.close()  # whoever repairs the folder finds it free
                raise

    def __len__(self) -> int:
        return int(self._counts().sum())

    def _counts(self) -> np.ndarray:
        return np.array([file.count for file in self.files], "<i8")

    @property
    def nbytes(self) -> int:
        """Bytes that the regions take."""
        return sum(file.nbytes for file in self.files)

    def start(self, **owner: Any) -> None:
        """Begin a new memory."""
        self.owner |= owner
        self._open([0, 0])
        self._write_owner()

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
            self._write_owner()
        return axes.double()

    def _write_owner(self) -> None:
        if self.path is not None:
            self._index.seek(0)
            self._index.write(_owner_bytes(self.owner, self._counts()))
            self._index.flush()
            os.fsync(self._index.fileno())

    def _continue(self, path: Path) -> None:
        """Open the regions that are there, if any."""
        head = self._index.read()
        if not head:
            _refuse_lost_owner(path)
            return
        owner, counts = _read_owner(path / "owner", head)
        for key, value in self.owner.items():
            if key != "key" and value is not None and owner[key] != value:
                raise ValueError(
                    f"the memory in {path} was made for {key} {owner[key]!r}, not {value!r}: "
                    "choose another folder"
                )
        self.owner = owner
        self._open(counts)
        for file in self.files:
            file.check()
        for file in self.files:
            file.count_complete()
        self._write_owner()

    def _open(self, counts: list[int]) -> None:
        n = math.prod(self.owner["shape"])
        for kind, width, count in zip(KINDS, (1, n), counts, strict=True):
            file: BinaryIO
            if self.path is None:
                file = tempfile.TemporaryFile()
            else:
                (self.path / kind).touch()
                file = open(self.path / kind, "r+b")
            self._resources.callback(file.close)
            key = f"{self.owner['key']} {kind}"
            self.files.append(RecordFile(file, count, width, n, self.owner["number"], key))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file "owner" of a folder, made if need be, locked as long as it is open."""
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path / "owner", os.O_RDWR | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "r+b") as file:
        if not lock(file):
            raise RuntimeError(f"the memory in {path} is in use: all queries must share one")
        yield file


def _refuse_lost_owner(path: Path) -> None:
    for kind in KINDS:
        file = path / kind
        if file.exists() and file.stat().st_size:
            raise ValueError(f"{path} holds regions whose owner is lost: choose another folder")


def _owner_bytes(owner: dict, counts: np.ndarray) -> bytes:
    content = json.dumps(owner).encode().ljust(HEADER) + counts.astype("<i8").tobytes()
    return content + checksum(owner["key"], content)


def _read_owner(path: Path, head: bytes) -> tuple[dict, list[int]]:
    """The stored owner and the counts of regions."""
    try:
        owner = json.loads(head[:HEADER])
        counts = np.frombuffer(head[HEADER : HEADER + 16], "<i8").tolist()
        ours = owner["format"] == FORMAT and len(counts) == len(KINDS)
        whole = head[HEADER + 16 :] == checksum(owner["key"], head[: HEADER + 16])
    except (ValueError, TypeError, KeyError):
        ours = False
    if not ours or not whole:
        raise ValueError(f"{path} is damaged or no memory of ancer: choose another folder")
    return owner, counts


def salvage(path: Path, to: Path) -> tuple[int, int]:
    """Copy the undamaged records of a folder into a new one; how many were kept, and lost.

    Raises ValueError where the owner's name and key cannot be read: without them no record can be
    told from a damaged one.
    """
    with _locked(path) as index:
        head = index.read()
        try:
            owner = json.loads(head[:HEADER])
            fresh = {name: owner[name] for name in owner if name not in ("format", "key")}
            n = math.prod(owner["shape"])
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"the owner of {path} cannot be read: nothing can be kept") from None
        records = Records(fresh, path=to, limit=2**63)
        records.start()
        lost = 0
        for kind, width in zip(KINDS, (1, n), strict=True):
            if (path / kind).exists():
                lost += _copy_valid(path / kind, width, n, owner, records)
        kept = len(records)
        records.close()
    return kept, lost


def _copy_valid(path: Path, width: int, n: int, owner: dict, records: Records) -> int:
    """Append the valid records of a file; the number of others."""
    lost = 0
    with open(path, "r+b") as file:
        key = f"{owner['key']} {path.name}"
        found = RecordFile(file, 0, width, n, owner["number"], key)
        for row in range(found.capacity):
            if found.valid(row):
                records.append(*found.stored(row))
            elif not found.empty(row):
                lost += 1
    return lost
