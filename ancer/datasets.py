"""Data sets: one tensor of images in [0, 1], one of labels, and fixed train and test indices."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """images (M, ...) float32 in [0, 1]; labels (M,) int64 in [0, len(classes)); train, test: indices into them.

    lattice: the step of the pixels' lattice (1/16 for digits, 1/255 for 8-bit images), None for float data.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: Sequence[str]
    train: Tensor
    test: Tensor
    lattice: float | None

    def __post_init__(self):
        if self.images.dtype != torch.float32 or not (self.images.min() >= 0 and self.images.max() <= 1):
            raise ValueError(f"images of {self.name} must be float32 in [0, 1]")
        if len(self.labels) != len(self.images):
            raise ValueError(f"{self.name} has {len(self.images)} images but {len(self.labels)} labels")
        wrong = self.labels[(self.labels < 0) | (self.labels >= len(self.classes))]
        if len(wrong):
            raise ValueError(f"label {wrong[0].item()} of {self.name} is outside its {len(self.classes)} classes")

    def first_test(self, images: int) -> Tensor:
        """The first `images` test indices; ValueError when there are not so many."""
        if not 1 <= images <= len(self.test):
            raise ValueError(f"images must lie in 1..{len(self.test)} (the test set of {self.name}), found {images}")
        return self.test[:images]


def digits() -> Dataset:
    """UCI handwritten digits (scikit-learn): 1,797 images (1, 8, 8) on the lattice 1/16; every fifth is test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy((data.images / 16).astype(np.float32))[:, None]
    index = torch.arange(len(images))
    return Dataset(
        name="digits",
        images=images,
        labels=torch.from_numpy(data.target).long(),
        classes=[str(c) for c in data.target_names],
        train=index[index % 5 != 4],
        test=index[index % 5 == 4],
        lattice=1 / 16,
    )


def moons(points: int = 1000, spread: float = 0.12, seed: int = 0) -> Dataset:
    """Two interleaved half-circles (scikit-learn), (points, 2) scaled into [0.15, 0.85]^2; every fifth is test."""
    from sklearn.datasets import make_moons

    x, y = make_moons(points, noise=spread, random_state=seed)
    x = 0.15 + 0.7 * (x - x.min(axis=0)) / (x.max(axis=0) - x.min(axis=0))
    index = torch.arange(points)
    return Dataset(
        name="moons",
        images=torch.from_numpy(x.astype(np.float32)),
        labels=torch.from_numpy(y).long(),
        classes=["upper", "lower"],
        train=index[index % 5 != 4],
        test=index[index % 5 == 4],
        lattice=None,
    )


def image_folder(path: str | Path) -> Dataset:
    """Any folder path/{train,test}/<class>/<image>, read as 8-bit RGB; all images must have one size.

    Raises FileNotFoundError or ValueError that names the folder or the image which does not fit.
    """
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.functional import pil_to_tensor

    parts = {}
    for split in ("train", "test"):
        if not (Path(path) / split).is_dir():
            raise FileNotFoundError(f"{Path(path) / split} is missing: images belong in {path}/{split}/<class>/")
        parts[split] = ImageFolder(Path(path) / split)
    if parts["train"].classes != parts["test"].classes:
        raise ValueError(f"{path}/train and {path}/test have different classes")
    images, labels = [], []
    for part in parts.values():
        for file, label in part.samples:
            images.append(pil_to_tensor(part.loader(file)))
            labels.append(label)
            if images[-1].shape != images[0].shape:
                raise ValueError(f"{file} is {tuple(images[-1].shape)}, others are {tuple(images[0].shape)}: resize")
    split = len(parts["train"])
    return Dataset(
        name=Path(path).name,
        images=torch.stack(images).float() / 255,
        labels=torch.tensor(labels),
        classes=parts["train"].classes,
        train=torch.arange(split),
        test=torch.arange(split, len(images)),
        lattice=1 / 255,
    )


def load(name: str, folder: str | Path = ".") -> Dataset:
    """The data set `name`: "digits", "moons", or the path of a folder for `image_folder`, relative to `folder`."""
    known = {"digits": digits, "moons": moons}
    if name in known:
        return known[name]()
    if "/" in name:
        return image_folder(Path(folder) / name)
    raise ValueError(f"unknown data set {name!r}: choose one of {sorted(known)} or the path of an image folder")
