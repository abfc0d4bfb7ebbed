"""One writer at a time: the data itself is locked, not a file beside it."""

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from ancer._files import lock, writing


class Locked:
    """Holds a lock on the file `data` while open.

    A second run is refused with the first one's process and host, which stand in `<data>.owner`.
    """

    def __init__(self, path: Path, data: Path):
        self.path = path
        self.data = data
        self.owner = data.with_name(f"{data.name}.owner")
        self._file: Any = None

    def __enter__(self):
        with writing(self.data):
            self.data.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
            file = os.fdopen(os.open(self.data, flags, 0o666), "r+b")
        if not lock(file):
            file.close()
            owner = self.owner.read_text() if self.owner.exists() else "another process"
            raise RuntimeError(f"{self.path} is being written by {owner}: wait for it or stop it")
        self._file = file
        with writing(self.owner):
            self.owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        return self

    def check(self) -> None:
        """Raise OSError where the data are no longer the file that was locked."""
        ours = os.fstat(self._file.fileno())
        try:
            there = os.stat(self.data)
        except OSError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            raise OSError(f"{self.data} was removed or replaced while it was written")

    def __exit__(self, *_):
        # a disk that went read-only keeps it; its own error is the one to be seen
        with suppress(OSError):
            self.owner.unlink(missing_ok=True)
        if self._file is not None:
            self._file.close()
