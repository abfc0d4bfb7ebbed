"""Data sets that have a name."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ancer.datasets.dataset import Split

FOLDERS = {"cifar10": "data/cifar10"}  # of those that are files, below the profile's folder


def digits(split: str, folder: Path) -> Split:
    """UCI handwritten digits (scikit-learn): 1,797 images (1, 8, 8) on the lattice 1/16."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy((data.images / 16).astype(np.float32))[:, None]
    labels = torch.from_numpy(data.target).long()
    return _fifths(split, images, labels, list(map(str, data.target_names)), 1 / 16)


def moons(split: str, folder: Path) -> Split:
    """Two half-circles (scikit-learn): 1,000 points (2,) in [0.15, 0.85]^2."""
    from sklearn.datasets import make_moons

    x, y = make_moons(1000, noise=0.12, random_state=0)
    low = x.min(axis=0)
    high = x.max(axis=0)
    points = 0.15 + 0.7 * (x - low) / (high - low)
    images = torch.from_numpy(points.astype(np.float32))
    return _fifths(split, images, torch.from_numpy(y).long(), ["upper", "lower"], None)


def _fifths(
    split: str, images: Tensor, labels: Tensor, classes: Sequence[str], lattice: float | None
) -> Split:
    """A split of a complete set: every fifth is test."""
    index = torch.arange(len(images))
    is_test = index % 5 == 4
    index = index[is_test == (split == "test")]
    return Split(labels[index], index, classes, lattice, lambda chosen: images[index[chosen]])


def cifar10(split: str, folder: Path) -> Split:
    """CIFAR-10, images (3, 32, 32), in folder/data/cifar10; downloaded when it is not there."""
    from torchvision.datasets import CIFAR10

    root = folder / FOLDERS["cifar10"]
    try:
        data = CIFAR10(root, train=split == "train", download=True)  # compares the md5 sums
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"CIFAR-10 is not in {root} and its download failed ({error}): put "
            f"{CIFAR10.filename} of {CIFAR10.url} there, or name the path of an image folder or of "
            "an archive such as cifar10-jpeg.tar.xz as the data set"
        ) from error
    pixels = torch.from_numpy(data.data).permute(0, 3, 1, 2)
    labels = torch.tensor(data.targets)
    index = torch.arange(len(labels))
    return Split(
        labels, index, data.classes, 1 / 255, lambda chosen: pixels[chosen].float().div_(255)
    )


# each gives a split, "train" or "test"; what it downloads goes below the profile's folder
DATASETS: dict[str, Callable[[str, Path], Split]] = {
    "digits": digits,
    "moons": moons,
    "cifar10": cifar10,
}
