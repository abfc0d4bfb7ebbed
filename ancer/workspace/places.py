"""Where a profile keeps what, and which results are made from which."""

import re
from collections.abc import Mapping
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
    "statistics": ("rows",),
}


def trial_name(overrides: Mapping[str, Any]) -> str:
    """The folder of the trials with some overrides, such as "images=20,n=500"."""
    parts = [f"{name}={overrides[name]}" for name in sorted(overrides)]
    return re.sub("[^A-Za-z0-9.,=_-]+", "-", ",".join(parts))
