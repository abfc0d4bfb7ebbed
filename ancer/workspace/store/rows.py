"""Rows of certificates on disk: a line each while a run lasts, a CSV when it is done."""

import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ancer._files import write_text, writing
from ancer.workspace.store._locked import Locked
from ancer.workspace.store.provenance import write_provenance

SUM = 16  # hexadecimal digits of a line's checksum


class RowStore(Locked):
    """Rows of one experiment: append-only, locked JSON lines while it runs; CSV when it is done.

    path: the CSV. key: hash of all that affects a row (`fingerprints.key_of`); rows of another key
    are left alone and never used. `with RowStore(...) as store:` finds what earlier runs finished,
    whether they were killed or not; a half-written last line is dropped and computed again, a line
    that was altered is an error. The lines stay when the CSV is written: a run that is repeated
    because something else changed computes nothing again. To have rows computed afresh, remove
    <path>.<key>.jsonl.
    """

    def __init__(self, path: str | Path, *, key: str):
        path = Path(path)
        super().__init__(path, path.with_suffix(f".{key}.jsonl"))

    def __enter__(self):
        super().__enter__()
        try:
            text = self._file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self.rows = []
            for number, line in enumerate(whole.splitlines(), start=1):
                self.rows.append(_checked(self.data, number, line))
            with writing(self.data):
                self._file.truncate(len(whole))
        except BaseException:
            self.__exit__()
            raise
        return self

    def missing(self, method: str, images: Mapping[int, str], seed: int) -> list[int]:
        """The numbers of the images that have no row of `method` and seed yet, in their order.

        images: number -> digest; a row of another image under the same number does not count.
        """
        done = set()
        for row in self.rows:
            if row["method"] == method and row["seed"] == seed:
                if row["image"] == images.get(row["idx"]):
                    done.add(row["idx"])
        return [i for i in images if i not in done]

    def append(self, rows: Sequence[dict], *, seconds: float) -> None:
        """Write finished rows through to the disk, with the seconds that they took together."""
        timed = []
        lines = b""
        for row in rows:
            timed.append({**row, "seconds": seconds / len(rows)})
            lines += _line(timed[-1])
        with writing(self.data):
            self.check()
            self._file.write(lines)
            self._file.flush()
            os.fsync(self._file.fileno())
        self.rows += timed

    def finish(
        self,
        *,
        images: Mapping[str, Mapping[int, str]],
        seeds: Sequence[int],
        provenance: dict[str, Any],
    ) -> tuple[pd.DataFrame, dict[str, float]]:
        """Write the CSV, and beside it the provenance.

        images: of each method, number -> digest, in the order of the rows of each of the seeds.
        Returns the rows and the seconds spent on each method.
        """
        found = pd.DataFrame(self.rows).set_index(["method", "seed", "idx", "image"], drop=False)
        wanted = []
        for method, seed in itertools.product(images, seeds):
            wanted += [(method, seed, *image) for image in images[method].items()]
        rows = found.loc[wanted]
        seconds = rows["seconds"].groupby(level="method").sum()
        rows = rows.drop(columns="seconds").reset_index(drop=True)
        write_text(self.path, rows.to_csv(index=False))
        write_provenance(self.path, provenance)
        return rows, seconds.to_dict()


def _line(row: dict[str, Any]) -> bytes:
    """A row as JSON, after the checksum of it."""
    text = json.dumps(row).encode()
    return _sum(text) + b" " + text + b"\n"


def _sum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:SUM].encode()


def _checked(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """The row of a line; ValueError where it is not as it was written."""
    text = line[SUM + 1 :]
    if line[: SUM + 1] != _sum(text) + b" ":
        raise ValueError(
            f"line {number} of {path} was altered: remove the line, and its row is computed again"
        )
    return json.loads(text)


def read_rows(path: str | Path) -> pd.DataFrame:
    """The rows of a finished CSV, every float as it was written."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no rows at {path}: run the certify stage (dvc repro) first")
    return pd.read_csv(path)
