"""Images in folders and archives: <path>/{train,test}/<class>/<image>."""

import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from ancer.datasets import archives
from ancer.datasets.dataset import Split
from ancer.datasets.limits import Limits

ARCHIVES = (".tar", ".tar.xz", ".tar.gz")
FOLDERS = {"train": ("train",), "test": ("test", "val")}  # val: as ImageNet names it

Image = tuple[str, int]  # its file, relative to the path, and its label


@dataclass(frozen=True)
class Listing:
    """A split's classes and images, and their files' bytes."""

    classes: Sequence[str]
    images: Sequence[Image]
    contents: Callable[[Sequence[str]], Iterable[bytes]]


def path_and_size(name: str) -> tuple[str, int | None]:
    """ "<path>@<size>" as path and size, None without one."""
    if "@" not in Path(name).name:
        return name, None
    path, size = name.rsplit("@", 1)
    if not re.fullmatch("[1-9][0-9]*", size):
        raise ValueError(
            f"the size of {name!r} must be a whole number of pixels, such as '{path}@224'"
        )
    return path, int(size)


def image_files(path: Path, split: str, size: int | None, limits: Limits) -> Split:
    """A split of the images below a folder or in an archive; see `loading.load`."""
    is_archive = path.name.endswith(ARCHIVES)
    listing = (_archive if is_archive else _folder)(path, split, limits)
    images, index = _numbered(listing.images)
    labels = torch.tensor([label for _, label in images])

    def read(chosen: Tensor) -> Tensor:
        names = [images[k][0] for k in chosen.tolist()]
        pixels: list[Tensor] = []
        for name, content in zip(names, listing.contents(names), strict=True):
            image = _decode(path / name, content, size, limits)
            if pixels and image.shape != pixels[0].shape:
                raise ValueError(
                    f"{path / name} is {_width_height(image)}, {path / names[0]} is "
                    f"{_width_height(pixels[0])}: give all images one size, or name the data set "
                    f"'{path}@224' to scale and crop them"
                )
            pixels.append(image)
        return torch.stack(pixels).float().div_(255)

    return Split(labels, index, listing.classes, 1 / 255, read)


def _numbered(images: Sequence[Image]) -> tuple[Sequence[Image], Tensor]:
    """The images in order of their numbers: their names, where these are distinct numbers."""
    by_number = {}
    for file, label in images:
        stem = PurePosixPath(file).stem
        if re.fullmatch("[0-9]{1,18}", stem):
            by_number[int(stem)] = (file, label)
    if len(by_number) != len(images):
        return images, torch.arange(len(images))
    numbers = sorted(by_number)
    return [by_number[number] for number in numbers], torch.tensor(numbers)


def _width_height(image: Tensor) -> str:
    _, height, width = image.shape
    return f"{width} x {height}"


def _folder(path: Path, split: str, limits: Limits) -> Listing:
    from torchvision.datasets.folder import ImageFolder, find_classes

    present = {part.name for part in path.glob("*") if part.is_dir()}
    folders = _parts(present, path, split)
    classes = {}
    try:
        for part, name in folders.items():
            classes[part], _ = find_classes(path / name)
        samples = ImageFolder(path / folders[split]).samples
    except FileNotFoundError as error:
        raise ValueError(
            f"{path}: {error} Images belong in {folders[split]}/<class>/<image>"
        ) from error
    _check_classes(path, classes)
    images = []
    for file, label in samples:
        images.append((Path(file).relative_to(path).as_posix(), label))

    def contents(files: Sequence[str]) -> Iterator[bytes]:
        for file in files:
            limits.check_file(path / file, (path / file).stat().st_size)
            yield (path / file).read_bytes()

    return Listing(classes[split], images, contents)


def _archive(path: Path, split: str, limits: Limits) -> Listing:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: put the archive there or fix the path")
    archives.check_sum(path)
    found = _images_by_class(archives.members(path, limits))
    folders = _parts({folder for folder, _ in found}, path, split)
    classes: dict[str, list[str]] = {}
    for part, folder in folders.items():
        classes[part] = sorted(name for where, name in found if where == folder)
    _check_classes(path, classes)
    members: dict[str, tarfile.TarInfo] = {}
    images = []
    for label, name in enumerate(classes[split]):
        of_class = found[folders[split], name]
        if not of_class:
            raise ValueError(f"{path}: {folders[split]}/{name} has no image")
        for file in sorted(of_class):
            images.append((file, label))
        members |= of_class

    def contents(files: Sequence[str]) -> list[bytes]:
        # in the archive's order: to go back means to unpack from the start
        read = {}
        with archives.opened(path, limits) as archive:
            for name in sorted(files, key=lambda name: members[name].offset):
                file = archive.extractfile(members[name])
                assert file is not None  # a regular file
                read[name] = file.read()
        return [read[name] for name in files]

    return Listing(classes[split], images, contents)


def _images_by_class(
    members: Iterable[tarfile.TarInfo],
) -> dict[tuple[str, str], dict[str, tarfile.TarInfo]]:
    """What is in an archive <top>/<folder>/<class>/<image>: (folder, class) -> file -> member."""
    from torchvision.datasets.folder import is_image_file

    found: dict[tuple[str, str], dict[str, tarfile.TarInfo]] = {}
    for member in members:
        parts = PurePosixPath(member.name).parts
        if len(parts) > 3 or (len(parts) == 3 and member.isdir()):
            of_class = found.setdefault((parts[1], parts[2]), {})
            if member.isfile() and is_image_file(member.name):
                of_class[member.name] = member
    return found


def _parts(folders: Iterable[str], path: Path, split: str) -> dict[str, str]:
    """The folder of each split that is there."""
    present = set(folders)
    found: dict[str, str] = {}
    for part, names in FOLDERS.items():
        for name in names:
            if name in present:
                found.setdefault(part, name)
    if split not in found:
        raise FileNotFoundError(
            f"{path} has no folder {' or '.join(FOLDERS[split])}: "
            f"images belong in {split}/<class>/<image>"
        )
    return found


def _check_classes(path: Path, classes: Mapping[str, Sequence[str]]) -> None:
    if len(classes) < 2:
        return
    different = set(classes["train"]) ^ set(classes["test"])
    if different:
        raise ValueError(
            f"train and test of {path} have different classes: "
            f"{sorted(different)[0]!r} is in one only"
        )


def _decode(file: Path, content: bytes, size: int | None, limits: Limits) -> Tensor:
    """An 8-bit RGB image (3, H, W) uint8."""
    from PIL import Image as images
    from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

    with _naming_broken(file):
        opened = images.open(BytesIO(content))
    limits.check_pixels(file, *opened.size)
    with _naming_broken(file):
        opened.load()
    allowed = ("RGB", "L", "CMYK") if size else ("RGB",)
    if opened.mode not in allowed or opened.has_transparency_data:
        alpha = " with transparency" if opened.has_transparency_data else ""
        raise ValueError(f"{file} has mode {opened.mode}{alpha}: convert to RGB")
    image = opened.convert("RGB")
    if size:
        image = center_crop(resize(image, round(size * 256 / 224)), [size, size])
    return pil_to_tensor(image)


@contextmanager
def _naming_broken(file: Path) -> Iterator[None]:
    """Turn an error of the decoder into one that names the file."""
    from PIL import Image as images

    try:
        yield
    except (OSError, SyntaxError, ValueError, images.DecompressionBombError) as error:
        raise ValueError(f"{file} is no image or a broken one ({error}): replace it") from error
