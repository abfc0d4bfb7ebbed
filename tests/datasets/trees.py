"""Small image trees, as folders and as archives, and how loading them is refused."""

import tarfile
import zipfile

import pytest
from PIL import Image

from ancer.datasets.loading import load

TAR = {
    ".tar": "w",
    ".tar.xz": "w:xz",
    ".tar.gz": "w:gz",
    ".tgz": "w:gz",
    ".tar.bz2": "w:bz2",
}
ENDINGS = pytest.mark.parametrize("ending", [".tar", ".tar.xz", ".tar.gz", ".tar.bz2", ".zip"])
KINDS = pytest.mark.parametrize("kind", ["folder", ".zip", *TAR])
BOTH = pytest.mark.parametrize("kind", ["folder", ".tar.xz", ".zip"])
LAYOUT = {
    "train/cat/a.png": 10,
    "train/cat/b.png": 20,
    "train/dog/a.png": 30,
    "test/cat/a.png": 40,
    "test/dog/b.png": 60,
    "test/dog/a.png": 50,
}


def refused(error, *parts, **call):
    """load(**call) raises an error whose text has all the parts."""
    with pytest.raises(error) as caught:
        load(**call)
    for part in parts:
        assert str(part) in str(caught.value), (part, str(caught.value))


def colour(value, size=(6, 5), mode="RGB"):
    return Image.new("RGB", size, (value, 0, 255)).convert(mode)


def tree(path, layout):
    """Write path/<file> for each file.

    Bytes, an image, or the red of an image (red, 0, 255) of 6 x 5 pixels.
    """
    for file, content in layout.items():
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            (path / file).write_bytes(content)
        else:
            (content if isinstance(content, Image.Image) else colour(content)).save(path / file)
    return path


def packed(path, ending, top="top"):
    """The tree as an archive beside it, below a top folder or, with ".", below none."""
    target = path.with_name(path.name + ending)
    if ending == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(path.rglob("*")):
                archive.write(file, f"{top}/{file.relative_to(path)}")
    else:
        with tarfile.open(target, TAR[ending]) as archive:
            archive.add(path, arcname=top)
    return target


def source(path, kind):
    return path if kind == "folder" else packed(path, kind)


def reds(data):
    """The red of each image's first pixel, 0 to 255."""
    return (data.images[:, 0, 0, 0] * 255).round().tolist()
