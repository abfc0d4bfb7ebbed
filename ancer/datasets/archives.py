"""Tar archives, read in pieces: whole, as their check sums say, and of bounded size."""

import gzip
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ancer._files import sha256_of
from ancer.datasets.limits import Limits

# of the repository; an installed package has none
CHECKSUMS = Path(__file__).parents[2] / "data/checksums.txt"
PIECE = 2**16  # bytes read at once of what is thrown away


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
def opened(path: Path, limits: Limits) -> Iterator[tarfile.TarFile]:
    unpack: dict[str, Callable] = {".xz": lzma.open, ".gz": gzip.open}
    with unpack.get(path.suffix, open)(path, "rb") as file:
        bounded: Any = _Bounded(file, path, limits)
        with tarfile.open(fileobj=bounded, mode="r:") as archive:
            yield archive


def members(path: Path, limits: Limits) -> list[tarfile.TarInfo]:
    """All members of an archive that is whole.

    The tarfile module takes a plain one that is cut between members for whole.
    """
    members = []
    try:
        with opened(path, limits) as archive:
            for member in archive:  # before the next one is looked for behind it
                limits.check_file(path / member.name, member.size)
                members.append(member)
            assert archive.fileobj is not None
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise EOFError("it has no end")
            after = 0
            while piece := archive.fileobj.read(PIECE):  # xz and gzip compare their sums at the end
                after += len(piece)
                limits.check_file(path / "(after its end)", after)
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(
            f"{path} is truncated, damaged or no tar archive ({error}): copy it again"
        ) from error
    return members


def check_sum(path: Path) -> None:
    listed = CHECKSUMS.read_text() if CHECKSUMS.exists() else ""
    sums = re.findall("^([0-9a-f]{64}) [ *](.+)$", listed, re.MULTILINE)
    expected = ""
    for checksum, file in sums:
        if file == path.name:
            expected = checksum
    if expected and sha256_of(path) != expected:
        raise ValueError(
            f"{path} has sha256 {sha256_of(path)}, {CHECKSUMS} says {expected}: copy it again "
            "or rename it"
        )
