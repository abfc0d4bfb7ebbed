"""One writer at a time."""

import os
import socket
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ancer._files import writing


class Locked:
    """Holds `<path>.lock` while open; a second run is refused with the first's process and host."""

    def __init__(self, path: Path):
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.owner = path.with_suffix(".owner")
        self._lock = FileLock(path.with_suffix(".lock"))

    def __enter__(self):
        with writing(self.path):
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                owner = self.owner.read_text() if self.owner.exists() else "another process"
                raise RuntimeError(
                    f"{self.path} is being written by {owner}: wait for it or stop it"
                ) from None
            self.owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        return self

    def __exit__(self, *_):
        # a disk that went read-only keeps both; its own error is the one to be seen
        with suppress(OSError):
            self.owner.unlink(missing_ok=True)
        self._lock.release()
        with suppress(OSError):
            self.path.with_suffix(".lock").unlink(missing_ok=True)
