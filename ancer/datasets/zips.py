"""Zip archives, read in pieces: what is read is whole, as its check sum says, and bounded."""

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ancer.datasets.archives import HEAD, PIECE, Entry
from ancer.datasets.limits import Limits

# zipfile unpacks others, such as bzip2, in steps of any size
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
END = 22  # bytes of the record at the end, before the archive's comment
MANY = 0xFFFF  # the number of entries of an archive that has more than fit there
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,  # encrypted, or of a kind that zipfile does not know
    UnicodeDecodeError,
)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_number(path, archive)
            yield archive
    except BROKEN as error:
        raise ValueError(
            f"{path} is truncated, damaged, encrypted or no zip archive ({error}): copy it again"
        ) from error


def _check_number(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise BadZipFile where the archive's end tells another number of entries than were found.

    A damaged one can take those behind it for its comment.
    """
    with open(path, "rb") as file:
        file.seek(-END - len(archive.comment), os.SEEK_END)
        end = file.read(END)
    (number,) = struct.unpack("<H", end[10:12])
    found = len(archive.infolist())
    if number not in (found, MANY):
        raise zipfile.BadZipFile(f"{found} entries of {number}")


def entries(path: Path, limits: Limits) -> list[Entry]:
    """All entries of an archive."""
    found = []
    with _opened(path) as archive:
        for member in archive.infolist():
            limits.check_file(path / member.filename, member.file_size)
            head = b""
            if not member.is_dir():
                with _member(path, archive, member) as file:
                    head = file.read(HEAD)
            found.append(Entry(member.filename, member.is_dir(), head, member))
    return found


def contents(path: Path, wanted: Sequence[Entry], limits: Limits) -> Iterator[bytes]:
    """The bytes of some regular files, whose sizes `entries` has compared with the limits."""
    with _opened(path) as archive:
        for entry in wanted:
            assert isinstance(entry.info, zipfile.ZipInfo)
            with _member(path, archive, entry.info) as file:
                pieces = []
                while piece := file.read(PIECE):  # up to the size that it claims
                    pieces.append(piece)
            yield b"".join(pieces)


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    if member.compress_type not in METHODS:
        raise ValueError(
            f"{path / member.filename} is packed by method {member.compress_type}: "
            "pack the archive with method 8 (deflate), which all programs know"
        )
    return archive.open(member)
