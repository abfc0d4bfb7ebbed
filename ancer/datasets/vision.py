"""Data sets of torchvision, "torchvision:<class>"."""

import difflib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancer.datasets.dataset import Split
from ancer.datasets.pixels import Decoder

PREFIX = "torchvision:"
OWN = "read it by a function of yours, 'package.module:function'"


def root_of(name: str) -> Path:
    """The folder of a set's files, below the profile's: data/cifar100 for CIFAR100."""
    return Path("data") / name.removeprefix(PREFIX).lower()


def check_name(name: str) -> None:
    """Raise ValueError for a name that is none of those that torchvision has in two splits."""
    import torchvision

    known = {}
    for each in torchvision.datasets.__all__:
        parameters = inspect.signature(getattr(torchvision.datasets, each)).parameters.keys()
        has_splits = parameters & {"train", "split"}
        has_labels = parameters & {"target_transform", "kwargs"}
        if has_splits and has_labels:
            known[each.lower()] = PREFIX + each
    if name in known.values():
        return
    close = difflib.get_close_matches(name.removeprefix(PREFIX).lower(), known, n=1)
    hint = f"choose one of {', '.join(known.values())}"
    if close:
        hint = f"did you mean {known[close[0]]!r}?"
    raise ValueError(f"torchvision has no {name!r} with a train and a test split: {hint}")


def vision_set(name: str, root: Path, split: str, decoder: Decoder) -> Split:
    """A split of a set of a known name, whose files are in `root`; downloaded when they are not."""
    from PIL import Image as images

    data = _opened(name, root, split)
    labels = _labels(name, data)
    classes = getattr(data, "classes", range(int(labels.max()) + 1))

    def read(chosen: Tensor) -> Tensor:
        def taken() -> Iterator[tuple[Path, Tensor]]:
            for k in chosen.tolist():
                image, _ = data[k]
                if not isinstance(image, images.Image):
                    raise ValueError(f"{name} has no images but {type(image).__name__}: {OWN}")
                file = root / f"(image {k})"
                yield file, decoder.taken(file, image)

        return decoder.stacked(name, taken())

    index = torch.arange(len(labels))
    return Split(labels, index, list(map(str, classes)), 1 / 255, read, decoder.convert)


def _opened(name: str, root: Path, split: str) -> Any:
    import torchvision

    short = name.removeprefix(PREFIX)
    make = getattr(torchvision.datasets, short)
    parameters = inspect.signature(make).parameters
    choice: dict[str, Any] = {"split": split}
    if "train" in parameters:
        choice = {"train": split == "train"}
    attempts = [choice]
    if "download" in parameters or "kwargs" in parameters:
        attempts.append(choice | {"download": True})
    reason: Exception | None = None
    for options in attempts:
        try:
            return make(root, **options)
        except (OSError, RuntimeError) as error:  # not there, or not whole
            reason = error
        except (AssertionError, EOFError, TypeError, ValueError) as error:
            raise ValueError(
                f"{name} cannot be read from {root} ({error!r}): remove what is broken there, or "
                f"{OWN}"
            ) from error
    options_shown = ", ".join(f"{key}={value!r}" for key, value in attempts[-1].items())
    raise FileNotFoundError(
        f"the {split} split of {name} is not in {root} or not whole, and its download failed "
        f"({reason}): where there is a network, run torchvision.datasets.{short}"
        f"({str(root)!r}, {options_shown}), and copy that folder to {root}"
    ) from reason


def _labels(name: str, data: Any) -> Tensor:
    """(N,) int64; without decoding the images, where the set has its labels apart."""
    labels = getattr(data, "targets", getattr(data, "labels", None))
    if labels is None or np.ndim(labels) != 1:
        labels = [data[k][1] for k in range(len(data))]
    found = np.asarray(labels)
    if found.dtype.kind not in "iu" or found.shape != (len(data),):
        raise ValueError(f"{name} has no whole numbers as labels: {OWN}")
    return torch.from_numpy(found.astype(np.int64))
