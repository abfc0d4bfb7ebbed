"""Rows of certificates on disk: a line each while a run lasts, a CSV when it is done."""

import json
import os
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

import pandas as pd

from ancer._files import write_text, writing
from ancer.workspace.store._locked import Locked


class RowStore(Locked):
    """Rows of one experiment: append-only, locked JSON lines while it runs; CSV when it is done.

    path: the CSV. key: hash of all that affects a row (`fingerprints.key_of`); rows of another key
    are left alone and never used. `with RowStore(...) as store:` finds what earlier runs finished,
    whether they were killed or not; a half-written last line is dropped and computed again. The
    lines stay when the CSV is written: a run that is repeated because something else changed
    computes nothing again. To have rows computed afresh, remove <path>.<key>.jsonl.
    """

    def __init__(self, path: str | Path, *, key: str):
        super().__init__(Path(path))
        self.partial = self.path.with_suffix(f".{key}.jsonl")

    def __enter__(self):
        super().__enter__()
        text = self.partial.read_bytes() if self.partial.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        self.rows = list(map(json.loads, whole.splitlines()))
        with writing(self.partial), open(self.partial, "ab") as file:
            file.truncate(len(whole))
        return self

    def missing(self, method: str, indices: Iterable[int]) -> list[int]:
        """Those of `indices` that have no row of `method` yet, in their order."""
        done = {row["idx"] for row in self.rows if row["method"] == method}
        return [i for i in indices if i not in done]

    def append(self, rows: Sequence[dict], *, seconds: float) -> None:
        """Write finished rows through to the disk, with the seconds that they took together."""
        lines = ""
        for row in rows:
            lines += json.dumps({**row, "seconds": seconds / len(rows)}) + "\n"
        with writing(self.partial), open(self.partial, "ab") as file:
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())
        self.rows += map(json.loads, lines.splitlines())

    def finish(
        self, *, methods: Sequence[str], indices: Sequence[int], provenance: dict
    ) -> tuple[pd.DataFrame, dict[str, float]]:
        """Write the CSV, in the order of `methods` and `indices`, and beside it the provenance.

        Returns the rows and the seconds spent on each method.
        """
        found = pd.DataFrame(self.rows).set_index(["method", "idx"], drop=False)
        rows = found.loc[list(product(methods, indices))]
        seconds = rows["seconds"].groupby(level="method").sum()
        rows = rows.drop(columns="seconds").reset_index(drop=True)
        write_text(self.path, rows.to_csv(index=False))
        text = json.dumps(provenance, indent=2, sort_keys=True)
        write_text(self.path.with_suffix(".json"), text + "\n")
        return rows, seconds.to_dict()


def read_rows(path: str | Path) -> pd.DataFrame:
    """The rows of a finished CSV, every float as it was written."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no rows at {path}: run the certify stage (dvc repro) first")
    return pd.read_csv(path)
