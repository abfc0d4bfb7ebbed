"""Where a profile keeps what, and which results are made from which."""

import re
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


@dataclass(frozen=True, eq=False)
class Places:
    """Where a profile's results are.

    folder: that of params.yaml. output: where this run writes: the folder, or, with overrides, one
    for trials with these, so that they never come among the profile's results.
    """

    folder: Path
    output: Path

    def file(self, kind: str, name: str = "") -> Path:
        """Where a result of an earlier stage is: in a trial, that of a trial, if there is one."""
        path = FILES[kind].format(name=name)
        return self.output / path if (self.output / path).exists() else self.folder / path

    def target(self, kind: str, name: str = "") -> Path:
        """Where this stage writes it."""
        return self.output / FILES[kind].format(name=name)

    def results(self, kind: str) -> Path:
        """The folder to which this stage writes tables, figures, ..."""
        return self.output / FOLDERS[kind]
