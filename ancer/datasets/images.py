"""Images in folders and archives: <path>/{train,test}/<class>/<image>."""

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from ancer.datasets import archives, tars, zips
from ancer.datasets.archives import Entry
from ancer.datasets.dataset import Split
from ancer.datasets.limits import Limits
from ancer.datasets.pixels import Decoder, is_image

ARCHIVES = (".zip", ".tar", ".tar.xz", ".tar.gz", ".tgz", ".tar.bz2")
FOLDERS = {"train": ("train",), "test": ("test", "val")}  # val: as ImageNet names it
SPLIT_FOLDERS = ("train", "test", "val")

Parts = tuple[str, ...]  # of a path
Image = tuple[str, int]  # its file, relative to the path, and its label


@dataclass(frozen=True)
class Tree:
    """The parts of a path that a split needs, hidden ones left out.

    classes: the folders of each split that is there, by the split's folder.
    files: those below the split's folder, and the parts of their names from there on.
    """

    path: Path
    folder: str
    classes: Mapping[str, set[str]]
    files: Mapping[str, Parts]
    head: Callable[[str], bytes]
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


def image_files(path: Path, split: str, decoder: Decoder) -> Split:
    """A split of the images below a folder or in an archive; see `loading.load`."""
    is_archive = path.name.endswith(ARCHIVES)
    tree_of = _archive if is_archive else _folder
    tree = tree_of(path, split, decoder.limits)
    classes = sorted(set().union(*tree.classes.values()))
    images, index = _numbered(_images(tree, classes))
    files, labels = zip(*images, strict=True)

    def read(chosen: Tensor) -> Tensor:
        names = [files[k] for k in chosen.tolist()]

        def decoded() -> Iterator[tuple[Path, Tensor]]:
            for name, content in zip(names, tree.contents(names), strict=True):
                yield path / name, decoder.decoded(path / name, content)

        return decoder.stacked(str(path), decoded())

    return Split(torch.tensor(labels), index, classes, 1 / 255, read, decoder.convert)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the data set: of an editor, a system or a packer."""
    return name.startswith(".") or name in ("Thumbs.db", "__MACOSX")


def _images(tree: Tree, classes: Sequence[str]) -> list[Image]:
    """The files of a split, by class, folder and name; each is an image by its first bytes."""
    of_class: dict[str, list[str]] = {name: [] for name in tree.classes[tree.folder]}
    layout = f"images belong in {tree.folder}/<class>/<image>"
    for file, below in tree.files.items():
        if len(below) == 1:
            raise ValueError(f"{tree.path / file} is in no class: {layout}; move or remove it")
        if not is_image(tree.head(file)):
            raise ValueError(
                f"{tree.path / file} is no image by its first bytes: remove it, or hide it by a "
                "name that begins with '.'"
            )
        of_class[below[0]].append(file)
    if not of_class:
        raise ValueError(f"{tree.path / tree.folder} has no class: {layout}")
    images = []
    for name in sorted(of_class):
        if not of_class[name]:
            raise ValueError(
                f"{tree.path}: {tree.folder}/{name} has no image: remove the folder; `classes` can "
                "name a class without images"
            )
        label = classes.index(name)
        for file in sorted(of_class[name], key=_folder_and_name):
            images.append((file, label))
    return images


def _folder_and_name(file: str) -> tuple[str, str]:
    """The order of torchvision's ImageFolder."""
    path = PurePosixPath(file)
    return str(path.parent), path.name


def _numbered(images: Sequence[Image]) -> tuple[Sequence[Image], Tensor]:
    """The images in order of their numbers: their names, where these are distinct numbers."""
    by_number = {}
    for file, label in images:
        stem = PurePosixPath(file).stem
        if re.fullmatch("[0-9]{1,18}", stem):
            by_number[int(stem)] = (file, label)
    if len(by_number) != len(images):
        return images, torch.arange(len(images))
    in_order = dict(sorted(by_number.items()))
    return list(in_order.values()), torch.tensor(list(in_order))


def _folder(path: Path, split: str, limits: Limits) -> Tree:
    folders = _parts(_subfolders(path) if path.is_dir() else (), path, split)
    classes = {folder: _subfolders(path / folder) for folder in folders.values()}
    files = {}
    for place, below, names in os.walk(path / folders[split], onerror=_stop, followlinks=True):
        below[:] = itertools.filterfalse(is_hidden, below)
        for name in itertools.filterfalse(is_hidden, names):
            file = (Path(place) / name).relative_to(path)
            files[file.as_posix()] = file.parts[1:]

    def head(file: str) -> bytes:
        if not (path / file).is_file():  # a pipe, or a link to nothing
            return b""
        with open(path / file, "rb") as opened:
            return opened.read(archives.HEAD)

    def contents(files: Sequence[str]) -> Iterator[bytes]:
        for file in files:
            limits.check_file(path / file, (path / file).stat().st_size)
            yield (path / file).read_bytes()

    return Tree(path, folders[split], classes, files, head, contents)


def _subfolders(path: Path) -> set[str]:
    return {part.name for part in path.iterdir() if part.is_dir() and not is_hidden(part.name)}


def _stop(error: OSError) -> None:
    """Of a folder that cannot be listed, which os.walk would leave out."""
    raise error


def _archive(path: Path, split: str, limits: Limits) -> Tree:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: put the archive there or fix the path")
    archives.check_sum(path)
    kind = zips if path.suffix == ".zip" else tars
    entries: dict[Parts, Entry] = {}
    for entry in kind.entries(path, limits):
        parts = PurePosixPath(entry.name).parts
        if parts and not any(map(is_hidden, parts)):
            entries[parts] = entry
    below = _below_top(path, entries)
    tops = {parts[0] for parts in below if _is_folder(parts, 1, below)}
    folders = _parts(tops, path, split)
    classes: dict[str, set[str]] = {folder: set() for folder in folders.values()}
    files = {}
    by_name = {}
    for parts, entry in below.items():
        by_name[entry.name] = entry
        if _is_folder(parts, 2, below) and parts[0] in classes:
            classes[parts[0]].add(parts[1])
        in_split = parts[:1] == (folders[split],)
        if in_split and len(parts) > 1 and not entry.is_folder:
            files[entry.name] = parts[1:]

    def head(file: str) -> bytes:
        return by_name[file].head

    def contents(files: Sequence[str]) -> Iterable[bytes]:
        return kind.contents(path, list(map(by_name.__getitem__, files)), limits)

    return Tree(path, folders[split], classes, files, head, contents)


def _is_folder(parts: Parts, depth: int, entries: Mapping[Parts, Entry]) -> bool:
    """Whether an entry of an archive is a folder of this depth, or in one."""
    return len(parts) > depth or (len(parts) == depth and entries[parts].is_folder)


def _below_top(path: Path, entries: Mapping[Parts, Entry]) -> Mapping[Parts, Entry]:
    """An archive's entries as from its top folder, or all where the splits have none above."""
    for parts in entries:
        if _is_folder(parts, 1, entries) and parts[0] in SPLIT_FOLDERS:
            return entries
    tops = {parts[0] for parts in entries if len(parts) > 1 and parts[1] in SPLIT_FOLDERS}
    if len(tops) > 1:
        raise ValueError(
            f"{path} has splits in several folders, {', '.join(sorted(tops))}: pack one of them"
        )
    return {parts[1:]: entry for parts, entry in entries.items() if parts[0] in tops}


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
