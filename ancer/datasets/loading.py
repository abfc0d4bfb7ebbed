"""A data set by its name or path."""

from collections.abc import Callable
from pathlib import Path

import torch

from ancer.datasets.dataset import Dataset, Split
from ancer.datasets.images import ARCHIVES, image_files, path_and_size
from ancer.datasets.limits import Limits
from ancer.datasets.named import DATASETS, FOLDERS
from ancer.registry import find

Maker = Callable[[str, Path], Split]
LIMITS = Limits()
SPLITS = ("train", "test")


def load(
    name: str,
    folder: str | Path = ".",
    *,
    split: str = "test",
    images: int | None = None,
    every: int = 1,
    limits: Limits = LIMITS,
) -> Dataset:
    """The images 0, every, 2 every, ... of a split, at most the first `images` of those.

    name: one of
    - "digits", "moons" (scikit-learn; every fifth is test), "cifar10" (in folder/data/cifar10);
    - "package.module:function" of yours, which gives a `datasets.dataset.Split` from the split's
      name and the folder;
    - the path, relative to `folder`, of a folder <path>/{train,test}/<class>/<image>, or of an
      archive (.tar, .tar.xz, .tar.gz) of <top>/{train,test}/<class>/<image>, which is not unpacked.
      "val" may stand for "test". Images are 8-bit RGB of one size; "<path>@224" scales the shorter
      side to 256 and crops the central 224 x 224 (256 / 224 of any other size likewise), and takes
      grey and CMYK files as RGB, as is done for ImageNet. A path has a "/" or the ending of an
      archive. Of an archive that data/checksums.txt of this repository lists, the sha256 must be as
      there.

    index: the position in the complete set for digits and moons, in the original train or test set
    for "cifar10". Files of a path whose names are distinct whole numbers (test/cat/0003.jpg) are
    ordered by them and have them as index; others have the position in the list of the split's
    files, sorted by class and name.

    limits: what a file and an image of a path may take.

    Raises ValueError or FileNotFoundError (a file, folder or download is missing) that name the
    cause and the fix.

    Example:
        >>> data = load("digits", images=3)
        >>> data.images.shape, data.indices
        (torch.Size([3, 1, 8, 8]), [4, 9, 14])
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {sorted(SPLITS)}, found {split!r}")
    _check_count("every", every)
    if images is not None:
        _check_count("images", images)
    data = _split(name, Path(folder), split, limits)
    chosen = torch.arange(0, len(data.index), every)
    if images is not None and images > len(chosen):
        raise ValueError(
            f"{name} has {len(chosen)} {split} images with every = {every}, found images = {images}"
        )
    return data.choose(Path(name).name, chosen[:images])


def maker_of(name: str) -> Maker | None:
    """The function that reads a data set of this name; None where the name is a path.

    Raises ValueError where it is neither.
    """
    path, _ = path_and_size(name)
    is_path = "/" in path or Path(path).is_absolute() or path.endswith(ARCHIVES)
    if is_path and name not in DATASETS:
        return None
    try:
        return find(name, DATASETS, "data set")
    except ValueError as error:
        raise ValueError(f"{error}; a path has a '/', such as './mine'") from None


def place_of(name: str, folder: str | Path = ".") -> Path | None:
    """The file or folder that a data set is read from; None where a function makes it."""
    path, _ = path_and_size(name)
    if maker_of(name) is None:
        return Path(folder) / path
    if name in FOLDERS:
        return Path(folder) / FOLDERS[name]
    return None


def _split(name: str, folder: Path, split: str, limits: Limits) -> Split:
    make = maker_of(name)
    if make is not None:
        return make(split, folder)
    path, size = path_and_size(name)
    return image_files(folder / path, split, size, limits)


def _check_count(name: str, value: int) -> None:
    if not (isinstance(value, int) and value >= 1):
        raise ValueError(f"{name} must be a whole number of at least 1, found {value!r}")
