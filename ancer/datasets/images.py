"""Images in folders and archives: <path>/{train,test}/<class>/<image>."""

import gzip
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any

import torch
from torch import Tensor

from ancer._files import sha256_of
from ancer.datasets.dataset import Split

# of the repository; an installed package has none
CHECKSUMS = Path(__file__).parents[2] / "data/checksums.txt"
ARCHIVES = (".tar", ".tar.xz", ".tar.gz")
FOLDERS = {"train": ("train",), "test": ("test", "val")}  # val: as ImageNet names it


PIECE = 2**16  # bytes read at once of what is thrown away

Image = tuple[str, int]  # its file, relative to the path, and its label


@dataclass(frozen=True)
class Limits:
    """What an image may take, so that files of others do not fill the memory."""

    # for those who make a form of it: each field's sentence stands under it
    __pydantic_config__ = {"use_attribute_docstrings": True}  # noqa: RUF012

    megabytes: int = 64
    """Of one file, 10^6 bytes each; of an archive also what follows after its end."""
    megapixels: int = 64
    """Of one image, 10^6 pixels each."""

    def __post_init__(self):
        if min(self.megabytes, self.megapixels) < 1:
            raise ValueError(f"limits must be >= 1, found {self.megabytes} and {self.megapixels}")

    def check_file(self, path: Path, size: int) -> None:
        """Raise ValueError for a file of too many bytes."""
        if size > self.megabytes * 10**6:
            raise ValueError(
                f"{path} has {size:,} bytes, more than {self.megabytes} megabytes: remove it, or "
                "raise limits.megabytes"
            )

    def check_pixels(self, path: Path, width: int, height: int) -> None:
        """Raise ValueError for an image of too many pixels."""
        if width * height > self.megapixels * 10**6:
            raise ValueError(
                f"{path} is {width} x {height}, more than {self.megapixels} megapixels: remove it, "
                "or raise limits.megapixels"
            )


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
    _check_sum(path)
    found = _images_by_class(_members(path, limits))
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
        with _opened(path, limits) as archive:
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


class _Bounded:
    """A file of which nobody reads too much at once, such as a header that claims to be huge."""

    def __init__(self, file: IO[bytes], path: Path, limits: Limits):
        self._file = file
        self._path = path
        self._limits = limits
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        self._limits.check_file(self._path / "(a header)", size)
        return self._file.read(size)


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[tarfile.TarFile]:
    unpack: dict[str, Callable] = {".xz": lzma.open, ".gz": gzip.open}
    with unpack.get(path.suffix, open)(path, "rb") as file:
        bounded: Any = _Bounded(file, path, limits)
        with tarfile.open(fileobj=bounded, mode="r:") as archive:
            yield archive


def _members(path: Path, limits: Limits) -> list[tarfile.TarInfo]:
    """All members of an archive that is whole.

    The tarfile module takes a plain one that is cut between members for whole.
    """
    members = []
    try:
        with _opened(path, limits) as archive:
            for member in archive:  # before the next one is looked for behind it
                limits.check_file(path / member.name, member.size)
                members.append(member)
            assert archive.fileobj is not None
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise EOFError("it has no end")
            after = 0
            while piece := archive.fileobj.read(PIECE):  # xz and gzip compare their sums at the end
                after += len(piece)
                limits.check_file(path / "(after its end)", after)
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(
            f"{path} is truncated, damaged or no tar archive ({error}): copy it again"
        ) from error
    return members


def _check_sum(path: Path) -> None:
    listed = CHECKSUMS.read_text() if CHECKSUMS.exists() else ""
    sums = re.findall("^([0-9a-f]{64}) [ *](.+)$", listed, re.MULTILINE)
    expected = ""
    for checksum, file in sums:
        if file == path.name:
            expected = checksum
    if expected and sha256_of(path) != expected:
        raise ValueError(
            f"{path} has sha256 {sha256_of(path)}, {CHECKSUMS} says {expected}: copy it again "
            "or rename it"
        )


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
