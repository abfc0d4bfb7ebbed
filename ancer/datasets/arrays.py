"""Images as arrays in one file, .npz of NumPy or .safetensors."""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ancer.datasets.archives import check_sum
from ancer.datasets.dataset import Split
from ancer.datasets.limits import Limits

ARRAYS = (".npz", ".safetensors")
# a split's images and labels: ours, Keras', and those of a file of one split
KEYS = {
    "train": (("train_images", "train_labels"), ("x_train", "y_train")),
    "test": (("test_images", "test_labels"), ("x_test", "y_test"), ("images", "labels")),
}
CHANNELS = (1, 3)
BROKEN = (
    SafetensorError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    MemoryError,  # a header that claims to be huge
    NotImplementedError,
    TypeError,
    ValueError,
)


def array_file(path: Path, split: str, classes: Sequence[str] | None, limits: Limits) -> Split:
    """A split of a file of arrays; see `loading.load`.

    classes: the names of the labels 0, 1, ...; None for the labels themselves.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: put the file there or fix the path")
    check_sum(path)
    keys = _keys(path)
    if split not in keys:
        expected = " or ".join(map(" and ".join, KEYS[split]))
        raise FileNotFoundError(f"{path} has no {split} split: its arrays belong in {expected}")
    images_key, labels_key = keys[split]
    wanted = [images_key]
    for _, key in keys.values():
        wanted.append(key)
    arrays = _read(path, wanted)
    labels = {}
    for part, (_, key) in keys.items():
        labels[part] = _labels(path / key, arrays[key])
    images = _channels_first(path / images_key, arrays[images_key])
    if len(images) != len(labels[split]):
        raise ValueError(
            f"{path} has {len(images)} {images_key} and {len(labels[split])} {labels_key}: "
            "give as many of both"
        )
    limits.check_pixels(path / images_key, images.shape[3], images.shape[2])
    index = torch.arange(len(images))
    is_bytes = images.dtype == np.uint8

    def read(chosen: Tensor) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(images[chosen.numpy()]))
        return pixels.float().div_(255) if is_bytes else pixels

    lattice = 1 / 255 if is_bytes else None
    known = np.unique(np.concatenate(list(labels.values())))
    if classes is None:
        positions = torch.from_numpy(np.searchsorted(known, labels[split]))
        return Split(positions, index, list(map(str, known)), lattice, read)
    _check_names(path, known, classes)
    return Split(torch.from_numpy(labels[split]), index, classes, lattice, read)


def _keys(path: Path) -> dict[str, tuple[str, str]]:
    """The names of the images and labels of each split that is there."""
    with _reader(path) as (names, _):
        present = set(names)
    found: dict[str, tuple[str, str]] = {}
    for part, pairs in KEYS.items():
        for pair in pairs:
            if present.issuperset(pair):
                found.setdefault(part, pair)
    return found


def _read(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    with _reader(path) as (_, array):
        return {name: array(name) for name in names}


@contextmanager
def _reader(path: Path) -> Iterator[tuple[Sequence[str], Callable[[str], np.ndarray]]]:
    """The names of a file's arrays, and what reads one."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                yield file.files, file.__getitem__
        else:
            with safe_open(path, framework="np") as file:
                yield file.keys(), file.get_tensor
    except BROKEN as error:
        raise ValueError(
            f"{path} is truncated, damaged or no file of arrays ({error}): copy it again, or "
            "write it with numpy.savez or safetensors.numpy.save_file"
        ) from error


def _labels(place: Path, labels: np.ndarray) -> np.ndarray:
    """(N,) int64, of (N,) or (N, 1) whole numbers."""
    if labels.dtype.kind not in "iu" or labels.shape not in ((len(labels),), (len(labels), 1)):
        raise ValueError(
            f"{place} must be (N,) whole numbers, found {labels.dtype} of shape {labels.shape}"
        )
    return labels.reshape(-1).astype(np.int64)


def _channels_first(place: Path, images: np.ndarray) -> np.ndarray:
    """(N, C, H, W)."""
    if images.dtype not in (np.uint8, np.float32):
        raise ValueError(
            f"{place} has dtype {images.dtype}: give uint8 (0 to 255) or float32 in [0, 1]"
        )
    if images.ndim == 3:
        return images[:, None]
    first = images.ndim == 4 and images.shape[1] in CHANNELS
    last = images.ndim == 4 and images.shape[3] in CHANNELS
    if first and last:
        raise ValueError(
            f"{place} has shape {images.shape}, of which both the second and the last number may "
            "be the channels: give (N, H, W) for grey, or no images that are 1 or 3 pixels wide"
        )
    if not (first or last):
        raise ValueError(
            f"{place} has shape {images.shape}: give (N, H, W), (N, C, H, W) or (N, H, W, C) with "
            "C = 1 or 3"
        )
    return images if first else np.moveaxis(images, 3, 1)


def _check_names(path: Path, labels: np.ndarray, classes: Sequence[str]) -> None:
    for label in labels.tolist():
        if not 0 <= label < len(classes):
            raise ValueError(
                f"{path} has label {label}: `classes` must name the labels 0 to {label}, found "
                f"{len(classes)} names"
            )
