"""A data set by its name or path."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ancer.datasets.arrays import ARRAYS, array_file
from ancer.datasets.dataset import Dataset, Split
from ancer.datasets.images import ARCHIVES, image_files, path_and_size
from ancer.datasets.limits import Limits
from ancer.datasets.named import DATASETS, FOLDERS
from ancer.datasets.pixels import Decoder
from ancer.datasets.vision import PREFIX, check_name, root_of, vision_set
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
    convert: bool = False,
    classes: Sequence[str] | None = None,
) -> Dataset:
    """The images 0, every, 2 every, ... of a split, at most the first `images` of those.

    name: one of
    - "digits", "moons" (scikit-learn; every fifth is test), "cifar10" (in folder/data/cifar10);
    - "torchvision:<class>" of torchvision.datasets with a train and a test split of images and
      whole numbers, such as CIFAR100, MNIST, SVHN, STL10 ("torchvision:GTSRB@32" where sizes
      differ); in folder/data/<class, lower case>, downloaded when it is not there;
    - "package.module:function" of yours, which gives a `datasets.dataset.Split` from the split's
      name and the folder;
    - the path, relative to `folder`, of a folder <path>/{train,test}/<class>/<image>, or of an
      archive (.zip, .tar, .tar.xz, .tar.gz, .tgz, .tar.bz2) of the same with or without one folder
      above, which is not unpacked. "val" may stand for "test". "<path>@224" scales the shorter side
      to 256 and crops the central 224 x 224 (256 / 224 of any other size likewise);
    - the path of a file of arrays (.npz, .safetensors): test_images and test_labels, train_images
      and train_labels; or x_test, y_test, x_train, y_train as Keras has them; or images and labels,
      which are test. Images are uint8 or float32 in [0, 1], (N, H, W), (N, C, H, W) or (N, H, W, C)
      with C = 1 or 3; labels are whole numbers.
    A path has a "/" or one of these endings. Of a file that data/checksums.txt of this repository
    lists, the sha256 must be as there.

    Of files: hidden ones (a part of the path begins with ".", or is Thumbs.db or __MACOSX) are
    skipped, and so is what lies beside the splits' folders. All others in the split are images by
    their first bytes (BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF, WebP), whatever their names, or
    loading stops at them.

    Of images: one size and one mode, 8-bit grey (1, H, W) or RGB (3, H, W); "@224" takes grey and
    CMYK as RGB, as is done for ImageNet.

    convert: take all images of files and of torchvision as RGB, also those in grey, black and
    white, CMYK, with a palette, or with 16 bits (divided by 257). What is transparent is put on
    white; of an animation the first frame counts. `Dataset.converted` says so.

    classes: their names in the order of a network's outputs; they may hold more than the data. By
    default those of both splits, sorted, or in the set's own order; of arrays, the labels of both
    splits as text, for which `classes` gives the names of the labels 0, 1, ....

    index: the position in the complete set for digits and moons, in the split for "cifar10", those
    of torchvision, and arrays. Files whose names are distinct whole numbers (test/cat/0003.jpg) are
    ordered by them and have them as index; others have the position in the list of the split's
    files, sorted by class, folder and name.

    limits: what a file and an image of a path may take. A file of arrays is read whole, whatever
    its size; `megapixels` holds for an image of it.

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
    data = _split(name, Path(folder), split, classes, convert, limits)
    if classes is not None:
        data = data.in_order(name, classes)
    chosen = torch.arange(0, len(data.index), every)
    if images is not None and images > len(chosen):
        raise ValueError(
            f"{name} has {len(chosen)} {split} images with every = {every}, found images = {images}"
        )
    return data.choose(Path(name).name, chosen[:images])


def maker_of(name: str) -> Maker | None:
    """The function that makes a data set of this name; None for a path, or a set of torchvision.

    Raises ValueError where it is none of these.
    """
    path, _ = path_and_size(name)
    if path.startswith(PREFIX):
        check_name(path)
        return None
    is_path = "/" in path or Path(path).is_absolute() or path.endswith((*ARCHIVES, *ARRAYS))
    if is_path and name not in DATASETS:
        return None
    try:
        return find(name, DATASETS, "data set")
    except ValueError as error:
        raise ValueError(
            f"{error}; a path has a '/', such as './mine'; a set of torchvision is such as "
            "'torchvision:MNIST'"
        ) from None


def place_of(name: str, folder: str | Path = ".") -> Path | None:
    """The file or folder that a data set is read from; None where a function makes it."""
    path, _ = path_and_size(name)
    if path.startswith(PREFIX):
        return Path(folder) / root_of(path)
    if maker_of(name) is None:
        return Path(folder) / path
    if name in FOLDERS:
        return Path(folder) / FOLDERS[name]
    return None


def _split(
    name: str,
    folder: Path,
    split: str,
    classes: Sequence[str] | None,
    convert: bool,
    limits: Limits,
) -> Split:
    make = maker_of(name)
    if make is not None:
        return make(split, folder)
    path, size = path_and_size(name)
    decoder = Decoder(size, convert, limits)
    if path.startswith(PREFIX):
        return vision_set(path, folder / root_of(path), split, decoder)
    if not path.endswith(ARRAYS):
        return image_files(folder / path, split, decoder)
    if size:
        raise ValueError(f"{name!r} has a size, which arrays cannot take: name {path!r}")
    return array_file(folder / path, split, classes, limits)


def _check_count(name: str, value: int) -> None:
    if not (isinstance(value, int) and value >= 1):
        raise ValueError(f"{name} must be a whole number of at least 1, found {value!r}")
