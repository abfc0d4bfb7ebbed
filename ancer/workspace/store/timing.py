"""Seconds of each stage and method; they live apart, since they never repeat."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ancer._files import write_text


def save_seconds(
    folder: Path,
    experiment: str,
    stage: str,
    seconds: Mapping[str, float],
    images: Mapping[str, int],
    machine: Mapping[str, Any],
) -> None:
    """Write the seconds per image of each method into `folder`.

    images: how many each had; machine: that computed them, see `evaluation.arithmetic.machine`.
    """
    per_image = {method: spent / images[method] for method, spent in seconds.items()}
    record = {"images": dict(images), "seconds_per_image": per_image, **machine}
    write_text(folder / f"{experiment}.{stage}.json", json.dumps(record, indent=2) + "\n")


def read_seconds(folder: Path, experiment: str, stage: str) -> dict[str, float] | None:
    """Seconds per image of each method; None where the stage has still to run."""
    path = folder / f"{experiment}.{stage}.json"
    if not path.is_file():
        return None
    return json.loads(path.read_text())["seconds_per_image"]
