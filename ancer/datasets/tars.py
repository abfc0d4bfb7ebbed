"""Tar archives, read in pieces: whole, as their check sums say, and of bounded size."""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ancer.datasets.archives import HEAD, PIECE, Entry
from ancer.datasets.limits import Limits

UNPACK: dict[str, Callable] = {
    ".xz": lzma.open,
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
}


class _Bounded:
    """A file of which nobody reads too much at once, such as a header that claims to be huge."""

    def __init__(self, file: IO[bytes], path: Path, limits: Limits):
        self._file = file
        self._path = path
        self._limits = limits
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        self._limits.check_file(self._path / "(a header)", size)
        return self._file.read(size)


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[tarfile.TarFile]:
    with UNPACK.get(path.suffix, open)(path, "rb") as file:
        bounded: Any = _Bounded(file, path, limits)
        with tarfile.open(fileobj=bounded, mode="r:") as archive:
            yield archive


def entries(path: Path, limits: Limits) -> list[Entry]:
    """All entries of an archive that is whole.

    The tarfile module takes a plain one that is cut between members for whole.
    """
    found = []
    try:
        with _opened(path, limits) as archive:
            assert archive.fileobj is not None
            for member in archive:  # before the next one is looked for behind it
                limits.check_file(path / member.name, member.size)
                head = b""
                if member.isfile():
                    archive.fileobj.seek(member.offset_data)
                    head = archive.fileobj.read(min(HEAD, member.size))
                found.append(Entry(member.name, member.isdir(), head, member))
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise EOFError("it has no end")
            after = 0
            while piece := archive.fileobj.read(PIECE):  # the sums are compared at the end
                after += len(piece)
                limits.check_file(path / "(after its end)", after)
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(
            f"{path} is truncated, damaged or no tar archive ({error}): copy it again"
        ) from error
    return found


def contents(path: Path, wanted: Sequence[Entry], limits: Limits) -> list[bytes]:
    """The bytes of some regular files."""
    # in the archive's order: to go back means to unpack from the start
    read = {}
    with _opened(path, limits) as archive:
        for entry in sorted(wanted, key=_offset):
            assert isinstance(entry.info, tarfile.TarInfo)
            file = archive.extractfile(entry.info)
            assert file is not None  # a regular file
            read[entry.name] = file.read()
    return [read[entry.name] for entry in wanted]


def _offset(entry: Entry) -> int:
    assert isinstance(entry.info, tarfile.TarInfo)
    return entry.info.offset
