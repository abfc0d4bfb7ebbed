"""What archives of any kind have in common: their entries, their check sums."""

import re
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ancer._files import sha256_of

# of the repository; an installed package has none
CHECKSUMS = Path(__file__).parents[2] / "data/checksums.txt"
PIECE = 2**16  # bytes read at once
HEAD = 16  # bytes that tell what a file is


@dataclass(frozen=True)
class Entry:
    """A file or folder in an archive.

    head: the first bytes of a regular file; none of a folder, a link or a device.
    """

    name: str
    is_folder: bool
    head: bytes
    info: tarfile.TarInfo | zipfile.ZipInfo


def check_sum(path: Path) -> None:
    """Raise ValueError for a file that data/checksums.txt lists with another sum."""
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
