"""Data sets by name or path: one split as a tensor of images in [0, 1], their labels and their numbers."""

import hashlib
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

CHECKSUMS = Path(__file__).parents[1] / "data/checksums.txt"  # of the repository; an installed package has none
ARCHIVES = (".tar", ".tar.xz", ".tar.gz")
FOLDERS = {"train": ("train",), "test": ("test", "val")}  # val: as ImageNet names it


@dataclass(frozen=True)
class Dataset:
    """One split of a data set.

    images: (M, ...) float32 in [0, 1]; labels: (M,) int64 in [0, len(classes)).
    index: (M,) int64, each image's number in its data set: rows name it and seeds depend on it.
    lattice: the step of the pixels' lattice (1/16 for digits, 1/255 for 8-bit images), None for float data.

    Raises ValueError that names the data set and what does not fit.
    """

    name: str
    images: Tensor
    labels: Tensor
    index: Tensor
    classes: Sequence[str]
    lattice: float | None

    def __post_init__(self):
        if not len(self.images):
            raise ValueError(f"{self.name} has no images")
        if self.images.dtype != torch.float32 or not (self.images.min() >= 0 and self.images.max() <= 1):
            raise ValueError(f"images of {self.name} must be float32 in [0, 1]")
        for field in ("labels", "index"):
            values, expected = getattr(self, field), (len(self.images),)
            if values.dtype != torch.int64 or values.shape != expected:
                found = f"{values.dtype} of shape {tuple(values.shape)}"
                raise ValueError(f"{field} of {self.name} must be int64 of shape {expected}, found {found}")
        if len(self.index.unique()) != len(self.index):
            raise ValueError(f"index of {self.name} has a number twice")
        wrong = self.labels[(self.labels < 0) | (self.labels >= len(self.classes))]
        if len(wrong):
            raise ValueError(f"label {wrong[0].item()} of {self.name} is outside its {len(self.classes)} classes")

    def take(self, numbers: Sequence[int]) -> "Dataset":
        """The part with these image numbers, in their order; ValueError for one that is not among `index`."""
        position = {number: k for k, number in enumerate(self.index.tolist())}
        absent = [number for number in numbers if number not in position]
        if absent:
            raise ValueError(f"image {absent[0]} of {self.name} is not among the {len(self.index)} that were loaded")
        at = [position[number] for number in numbers]
        return replace(self, images=self.images[at], labels=self.labels[at], index=self.index[at])


@dataclass(frozen=True)
class _Split:
    """A split before its images are chosen: `read` takes (M,) positions in it and gives the images (M, ...)."""

    labels: Tensor
    index: Tensor
    classes: Sequence[str]
    lattice: float | None
    read: Callable[[Tensor], Tensor]


def load(
    name: str, folder: str | Path = ".", *, split: str = "test", images: int | None = None, every: int = 1
) -> Dataset:
    """The images 0, every, 2 every, ... of a split ("train" or "test"), at most the first `images` of those.

    name: one of
    - "digits": UCI handwritten digits (scikit-learn), 1,797 images (1, 8, 8) on the lattice 1/16; every fifth is test;
    - "moons": two half-circles (scikit-learn), 1,000 points (2,) in [0.15, 0.85]^2; every fifth is test;
    - "cifar10": CIFAR-10, images (3, 32, 32), in folder/data/cifar10; downloaded when it is not there;
    - the path, relative to `folder`, of a folder <path>/{train,test}/<class>/<image>, or of an archive (.tar, .tar.xz,
      .tar.gz) of <top>/{train,test}/<class>/<image>, which is not unpacked. "val" may stand for "test". Images are
      8-bit RGB of one size; "<path>@224" scales the shorter side to 256 and crops the central 224 x 224 (256 / 224 of
      any other size likewise), and takes grey and CMYK files as RGB, as is done for ImageNet. A path has a "/" or the
      ending of an archive. Of an archive that data/checksums.txt of this repository lists, the sha256 must be as there.

    index: the position in the complete set for digits and moons, in the original train or test set for "cifar10". Files
    of a path whose names are distinct whole numbers (test/cat/0003.jpg) are ordered by them and have them as index;
    others have the position in the list of the split's files, sorted by class and name.

    Raises ValueError or FileNotFoundError (a file, folder or download is missing) that name the cause and the mend.
    """
    if split not in FOLDERS:
        raise ValueError(f"split must be one of {sorted(FOLDERS)}, found {split!r}")
    for key, value in {"every": every, "images": 1 if images is None else images}.items():
        if not (isinstance(value, int) and value >= 1):
            raise ValueError(f"{key} must be a whole number of at least 1, found {value!r}")
    known = {"digits": _digits, "moons": _moons, "cifar10": partial(_cifar10, Path(folder) / "data/cifar10")}
    path, size = _size(name)
    if name in known:
        data = known[name](split)
    elif "/" in path or Path(path).is_absolute() or path.endswith(ARCHIVES):
        data = _files(Path(folder) / path, split, size)
    else:
        raise ValueError(f"unknown data set {name!r}: choose one of {sorted(known)} or a path with a '/' ('./mine')")
    chosen = torch.arange(0, len(data.index), every)
    if images is not None and images > len(chosen):
        raise ValueError(f"{name} has {len(chosen)} {split} images with every = {every}, found images = {images}")
    chosen = chosen[:images]
    labels, index = data.labels[chosen], data.index[chosen]
    return Dataset(Path(name).name, data.read(chosen), labels, index, data.classes, data.lattice)


def _digits(split: str) -> _Split:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy((data.images / 16).astype(np.float32))[:, None]
    return _fifths(split, images, torch.from_numpy(data.target).long(), [str(c) for c in data.target_names], 1 / 16)


def _moons(split: str) -> _Split:
    from sklearn.datasets import make_moons

    x, y = make_moons(1000, noise=0.12, random_state=0)
    x = 0.15 + 0.7 * (x - x.min(axis=0)) / (x.max(axis=0) - x.min(axis=0))
    return _fifths(split, torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y).long(), ["upper", "lower"], None)


def _fifths(split: str, images: Tensor, labels: Tensor, classes: Sequence[str], lattice: float | None) -> _Split:
    """A split of a complete set: every fifth is test."""
    index = torch.arange(len(images))
    index = index[(index % 5 == 4) == (split == "test")]
    return _Split(labels[index], index, classes, lattice, lambda chosen: images[index[chosen]])


def _cifar10(root: Path, split: str) -> _Split:
    from torchvision.datasets import CIFAR10

    try:
        data = CIFAR10(root, train=split == "train", download=True)  # compares the md5 sums
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"CIFAR-10 is not in {root} and its download failed ({error}): put {CIFAR10.filename} of {CIFAR10.url} "
            "there, or name the path of an image folder or of an archive such as cifar10-jpeg.tar.xz as the data set"
        ) from error
    pixels = torch.from_numpy(data.data).permute(0, 3, 1, 2)
    labels = torch.tensor(data.targets)
    return _Split(
        labels, torch.arange(len(labels)), data.classes, 1 / 255, lambda chosen: pixels[chosen].float().div_(255)
    )


def _size(name: str) -> tuple[str, int | None]:
    """ "<path>@<size>" as path and size, None without one."""
    if "@" not in Path(name).name:
        return name, None
    path, size = name.rsplit("@", 1)
    if not re.fullmatch("[1-9][0-9]*", size):
        raise ValueError(f"the size of {name!r} must be a whole number of pixels, such as '{path}@224'")
    return path, int(size)


def _files(path: Path, split: str, size: int | None) -> _Split:
    classes, samples, contents = (_archive if path.name.endswith(ARCHIVES) else _folder)(path, split)
    stems = [PurePosixPath(file).stem for file, _ in samples]
    numbers = [int(stem) for stem in stems if re.fullmatch("[0-9]{1,18}", stem)]
    if len(set(numbers)) == len(samples):
        samples = [samples[k] for k in np.argsort(numbers)]
        index = torch.tensor(sorted(numbers))
    else:
        index = torch.arange(len(samples))

    def read(chosen: Tensor) -> Tensor:
        files = [samples[k][0] for k in chosen.tolist()]
        pixels = []
        for file, content in zip(files, contents(files), strict=True):
            pixels.append(_decode(path / file, content, size))
            if pixels[-1].shape != pixels[0].shape:
                (_, h, w), (_, h0, w0) = pixels[-1].shape, pixels[0].shape
                raise ValueError(
                    f"{path / file} is {w} x {h}, {path / files[0]} is {w0} x {h0}: give all images one size, or name "
                    f"the data set '{path}@224' to scale and crop them"
                )
        return torch.stack(pixels).float().div_(255)

    return _Split(torch.tensor([label for _, label in samples]), index, classes, 1 / 255, read)


# What _folder and _archive give: the classes; each image's file (relative to the path) and label; the files' contents
_Listing = tuple[Sequence[str], list[tuple[str, int]], Callable[[list[str]], Iterable[bytes]]]


def _folder(path: Path, split: str) -> _Listing:
    from torchvision.datasets.folder import ImageFolder, find_classes

    folders = _parts([p.name for p in path.iterdir() if p.is_dir()] if path.is_dir() else [], path, split)
    try:
        classes = {part: find_classes(path / folder)[0] for part, folder in folders.items()}
        samples = ImageFolder(path / folders[split]).samples
    except FileNotFoundError as error:
        raise ValueError(f"{path}: {error} Images belong in {folders[split]}/<class>/<image>") from error
    _check_classes(path, classes)
    relative = [(Path(file).relative_to(path).as_posix(), label) for file, label in samples]
    return classes[split], relative, lambda files: ((path / file).read_bytes() for file in files)


def _archive(path: Path, split: str) -> _Listing:
    from torchvision.datasets.folder import is_image_file

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: put the archive there or mend the path")
    _check_sum(path)
    found: dict[str, dict[str, dict[str, tarfile.TarInfo]]] = {}  # folder, class, file: member
    for member in _members(path):
        match PurePosixPath(member.name).parts:
            case [_, folder, label, *rest] if rest or member.isdir():
                files = found.setdefault(folder, {}).setdefault(label, {})
                if member.isfile() and is_image_file(member.name):
                    files[member.name] = member
    folders = _parts(found, path, split)
    _check_classes(path, {part: sorted(found[folder]) for part, folder in folders.items()})
    labelled = found[folders[split]]
    classes = sorted(labelled)
    if empty := [label for label in classes if not labelled[label]]:
        raise ValueError(f"{path}: {folders[split]}/{empty[0]} has no image")
    members = {file: (member, k) for k, label in enumerate(classes) for file, member in sorted(labelled[label].items())}

    def contents(files: list[str]) -> Iterable[bytes]:
        with tarfile.open(path) as archive:  # read in the archive's order: to go back means to unpack from the start
            places = sorted((members[file][0] for file in files), key=lambda member: member.offset)
            content = {member.name: archive.extractfile(member).read() for member in places}
        return (content[file] for file in files)

    return classes, [(file, label) for file, (_, label) in members.items()], contents


def _members(path: Path) -> list[tarfile.TarInfo]:
    """All members of an archive that is whole: the tarfile module takes a plain one cut between members for whole."""
    try:
        with tarfile.open(path) as archive:
            members = archive.getmembers()
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise EOFError("it has no end")
            archive.fileobj.read()  # xz and gzip compare their sums at the end
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{path} is truncated, damaged or no tar archive ({error}): copy it again") from error
    return members


def _check_sum(path: Path) -> None:
    listed = re.findall("^([0-9a-f]{64}) [ *](.+)$", CHECKSUMS.read_text(), re.M) if CHECKSUMS.exists() else []
    expected = {file: checksum for checksum, file in listed}.get(path.name)
    if expected:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise ValueError(f"{path} has sha256 {found}, {CHECKSUMS} says {expected}: copy it again or rename it")


def _parts(folders: Iterable[str], path: Path, split: str) -> dict[str, str]:
    """The folder of each split that is there."""
    present = {part: [name for name in names if name in folders] for part, names in FOLDERS.items()}
    if not present[split]:
        names = " or ".join(FOLDERS[split])
        raise FileNotFoundError(f"{path} has no folder {names}: images belong in {split}/<class>/<image>")
    return {part: names[0] for part, names in present.items() if names}


def _check_classes(path: Path, classes: dict[str, Sequence[str]]) -> None:
    different = set.symmetric_difference(*map(set, classes.values())) if len(classes) == 2 else set()
    if different:
        raise ValueError(f"train and test of {path} have different classes: {sorted(different)[0]!r} is in one only")


def _decode(file: Path, content: bytes, size: int | None) -> Tensor:
    """An 8-bit RGB image (3, H, W) uint8."""
    from PIL import Image
    from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

    try:
        image = Image.open(BytesIO(content))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} is no image or a broken one: replace it") from error
    if image.mode not in (["RGB", "L", "CMYK"] if size else ["RGB"]) or image.has_transparency_data:
        alpha = " with transparency" if image.has_transparency_data else ""
        raise ValueError(f"{file} has mode {image.mode}{alpha}: convert to RGB")
    image = image.convert("RGB")
    if size:
        image = center_crop(resize(image, round(size * 256 / 224)), [size, size])
    return pil_to_tensor(image)
