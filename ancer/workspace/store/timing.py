"""Seconds of each stage and method; they live apart, since they never repeat."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from ancer._files import write_text
from ancer.evaluation.arithmetic import machine


def save_seconds(
    folder: Path,
    experiment: str,
    stage: str,
    seconds: Mapping[str, float],
    images: Mapping[str, int],
) -> None:
    """Write the seconds per image of each method into `folder`; images: how many each had."""
    per_image = {method: spent / images[method] for method, spent in seconds.items()}
    cpu = machine(torch.device("cpu"))
    record = {"images": dict(images), "seconds_per_image": per_image, **cpu}
    write_text(folder / f"{experiment}.{stage}.json", json.dumps(record, indent=2) + "\n")


def read_seconds(folder: Path, experiment: str, stage: str) -> dict[str, float] | None:
    """Seconds per image of each method; None where the stage has still to run."""
    path = folder / f"{experiment}.{stage}.json"
    if not path.is_file():
        return None
    return json.loads(path.read_text())["seconds_per_image"]
