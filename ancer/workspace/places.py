"""Where a profile keeps what, and which results are made from which."""

import glob
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# where a profile keeps what; {name} is the experiment's
FILES = {
    "checkpoint": "data/checkpoints/{name}.safetensors",
    "theta": "data/theta/{name}.safetensors",
    "rows": "results/rows/{name}.csv",
    "answers": "results/memory/{name}.csv",
    "ablations": "results/ablations/{name}.csv",
    "volumes": "results/volumes.csv",
    "toy": "data/toy/{name}.safetensors",
}
FOLDERS = {
    "tables": "results/tables",
    "metrics": "results/metrics",
    "figures": "results/figures",
    "toy": "results/toy",
    "coverage": "results/coverage",
    "statistics": "results/statistics",
    "ablations": "results/ablations",
    "timing": "results/timing",
    "notebooks": "results/notebooks",
    "report": "results/report",
}
# the notebook that writes a result that others are made from
WRITTEN_BY = {"rows": "certify", "answers": "memory", "volumes": "volumes"}
TRIAL = ".build/trial"
HAND = ".build/hand"
RUNNING = "ANCER_OUTPUT"  # the environment's name for where notebooks write that the engine runs
# which results a stage reads to make others, beside checkpoints and theta
MADE_FROM = {
    "volumes": ("rows",),
    "tables": ("rows", "answers", "volumes"),
    "figures": ("rows", "volumes"),
    "coverage": ("rows",),
    "statistics": ("rows",),
}


def trial_name(overrides: Mapping[str, Any]) -> str:
    """The folder of the trials with some overrides, such as "images=20,n=500"."""
    parts = [f"{name}={overrides[name]}" for name in sorted(overrides)]
    return re.sub("[^A-Za-z0-9.,=_-]+", "-", ",".join(parts))


def output_folder(output: str | None, overrides: Mapping[str, Any]) -> str:
    """Where in its profile a run writes: see `Places`.

    output: "results", or None: what the notebook's engine says, by hand HAND. With overrides it is
    a trial's either way. Raises ValueError for another.
    """
    if output not in (None, "results"):
        raise ValueError(f'output must be "results" or None (in {HAND}), found {output!r}')
    if overrides:
        return f"{TRIAL}/{trial_name(overrides)}"
    return "" if "results" in (output, os.environ.get(RUNNING)) else HAND


@dataclass(frozen=True, eq=False)
class Places:
    """Where a profile's results are.

    folder: that of params.yaml. output: where this run writes: the folder; or, by hand, one that
    git ignores; or, with overrides, one for trials with these. So only the pipeline, and who asks
    for it, changes the profile's results.
    """

    folder: Path
    output: Path

    def file(self, kind: str, name: str = "") -> Path:
        """Where a result of an earlier stage is: the output's own, if there is one."""
        path = FILES[kind].format(name=name)
        return self.output / path if (self.output / path).exists() else self.folder / path

    def target(self, kind: str, name: str = "") -> Path:
        """Where this stage writes it; by hand, it goes on from what the profile has of it."""
        path = self.output / FILES[kind].format(name=name)
        if self.output == self.folder / HAND:
            path.parent.mkdir(parents=True, exist_ok=True)
            made = (self.folder / path.relative_to(self.output)).parent
            for file in made.glob(f"{glob.escape(path.stem)}.*"):
                if not (path.parent / file.name).exists():
                    shutil.copy2(file, path.parent)
        return path

    def results(self, kind: str) -> Path:
        """The folder to which this stage writes tables, figures, ..."""
        return self.output / FOLDERS[kind]
