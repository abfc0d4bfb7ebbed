"""Data sets: exact images, labels and numbers, and for what does not fit an error with a fix."""

import bz2
import dataclasses
import gzip
import hashlib
import io
import lzma
import pickle
import random
import re
import shutil
import tarfile
import tracemalloc
import urllib.error
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import transforms
from trees import BOTH, ENDINGS, KINDS, LAYOUT, colour, packed, refused, source, tree

from ancer.datasets import archives
from ancer.datasets.dataset import Dataset
from ancer.datasets.limits import Limits
from ancer.datasets.loading import load

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT / "../shared/cifar10/cifar10-jpeg.tar.xz"
LOG = ROOT / "../shared/published/cohen2019/cifar10_resnet110_noise_0.25_sigma_0.25.tsv"
CIFAR10_CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]


# --- the data class


def made(**changes):
    fields = {
        "images": torch.rand(4, 2),
        "labels": torch.arange(4) % 2,
        "index": torch.arange(4) * 5,
    }
    return Dataset(name="mine", **fields | {"classes": ["a", "b"], "lattice": None} | changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"images": torch.rand(4, 2).double()}, "images of mine must be float32"),
        ({"images": torch.full((4, 2), 128, dtype=torch.uint8)}, "images of mine"),
        ({"images": torch.full((4, 2), 1.5)}, "images of mine"),
        ({"images": torch.full((4, 2), -0.5)}, "images of mine"),
        ({"images": torch.full((4, 2), float("nan"))}, "images of mine"),
        ({"images": torch.rand(0, 2)}, "mine has no images"),
        (
            {"labels": torch.zeros(3, dtype=torch.long)},
            r"labels of mine .* shape \(4,\), found torch.int64 .* \(3,\)",
        ),
        ({"labels": torch.zeros(4)}, "labels of mine must be int64 .* found torch.float32"),
        ({"labels": torch.zeros(4, 1, dtype=torch.long)}, "labels of mine"),
        ({"labels": torch.tensor([0, 1, 2, 1])}, "label 2 of mine .* 2 classes"),
        ({"labels": torch.tensor([0, 1, -1, 1])}, "label -1 of mine"),
        ({"index": torch.arange(5)}, "index of mine"),
        ({"index": torch.arange(4).int()}, "index of mine must be int64"),
        ({"index": torch.tensor([0, 1, 2, 1])}, "index of mine has a number twice"),
    ],
)
def test_inconsistent_data_sets_are_refused(changes, message):
    made()
    with pytest.raises(ValueError, match=message):
        made(**changes)


def test_part_with_given_numbers():
    data = made()
    part = data.take([15, 0])
    assert part.index.tolist() == [15, 0] and torch.equal(part.images, data.images[[3, 0]])
    assert part.labels.tolist() == [1, 0] and (part.name, part.classes, part.lattice) == (
        "mine",
        ["a", "b"],
        None,
    )
    for numbers, message in {
        (0, 7): "image 7 of mine .* 4",
        (-1,): "image -1",
        (5, 5): "twice",
        (): "no im",
    }.items():
        with pytest.raises(ValueError, match=message):
            data.take(numbers)


# --- digits and moons, and the choice of images


@pytest.mark.parametrize(
    "name, shape, sizes", [("digits", (1, 8, 8), (1438, 359)), ("moons", (2,), (800, 200))]
)
def test_splits_are_fixed_disjoint_and_complete(name, shape, sizes):
    parts = [load(name, split=split) for split in ("train", "test")]
    for data, size, split in zip(parts, sizes, ("train", "test"), strict=True):
        assert (
            data.name == name
            and data.images.shape == (size, *shape)
            and data.images.dtype == torch.float32
        )
        assert (
            set(data.labels.tolist()) == set(range(len(data.classes)))
            and data.labels.dtype == torch.int64
        )
        again = load(name, split=split)
        for field in ("images", "labels", "index"):
            assert torch.equal(getattr(data, field), getattr(again, field))
    assert parts[1].index.tolist() == list(range(4, sum(sizes), 5))
    assert torch.cat([part.index for part in parts]).sort().values.tolist() == list(
        range(sum(sizes))
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_digits_are_those_of_scikit_learn_on_their_lattice(split):
    data, bunch = load("digits", split=split), load_digits()
    assert data.classes == [str(c) for c in range(10)] and data.lattice == 1 / 16
    assert np.array_equal(data.images[:, 0].numpy() * 16, bunch.images[data.index])
    assert np.array_equal(data.labels, bunch.target[data.index])


def test_no_digit_is_in_both_splits():
    train, test = (
        {image.numpy().tobytes() for image in load("digits", split=s).images}
        for s in ("train", "test")
    )
    assert not train & test


def test_moons_leave_room_for_noise():
    """The scale is that of all 1,000 points: both ends of both coordinates are reached."""
    images = torch.cat([load("moons", split=split).images for split in ("train", "test")])
    torch.testing.assert_close(images.amin(0), torch.full((2,), 0.15))
    torch.testing.assert_close(images.amax(0), torch.full((2,), 0.85))
    data = load("moons")
    assert data.lattice is None and data.classes == ["upper", "lower"]
    upper, lower = (data.images[data.labels == k, 1].mean() for k in (0, 1))
    assert upper > lower + 0.2


@pytest.mark.parametrize(
    "choice, index",
    [
        ({"images": 3}, [4, 9, 14]),
        ({"images": 3, "every": 20}, [4, 104, 204]),
        ({"images": 10, "every": 20}, list(range(4, 1000, 100))),
        ({"every": 100}, [4, 504]),
        ({"every": 1000}, [4]),
        ({"split": "train", "images": 6}, [0, 1, 2, 3, 5, 6]),
        ({"split": "train", "images": 3, "every": 3}, [0, 3, 7]),
    ],
)
def test_chosen_images(choice, index):
    data, all_images = load("moons", **choice), load("moons", split=choice.get("split", "test"))
    rows = torch.isin(all_images.index, data.index)
    assert data.index.tolist() == index
    assert torch.equal(data.images, all_images.images[rows]) and torch.equal(
        data.labels, all_images.labels[rows]
    )


@pytest.mark.parametrize(
    "choice, parts",
    [
        ({"images": 201}, ["moons has 200 test images", "every = 1", "images = 201"]),
        ({"images": 11, "every": 20}, ["moons has 10 test images", "every = 20", "images = 11"]),
        ({"images": 801, "split": "train"}, ["moons has 800 train images"]),
        ({"images": 0}, ["images", "found 0"]),
        ({"images": -1}, ["images", "found -1"]),
        ({"images": 2.0}, ["images", "found 2.0"]),
        ({"every": 0}, ["every", "found 0"]),
        ({"every": None}, ["every", "found None"]),
        ({"split": "val"}, ["split", "'test', 'train'", "found 'val'"]),
    ],
)
def test_bad_choices_are_named(choice, parts):
    refused(ValueError, *parts, name="moons", **choice)


@pytest.mark.parametrize(
    "name, parts",
    [
        ("cifar", ["did you mean 'cifar10'?"]),
        ("digits@8", ["did you mean 'digits'?"]),
        ("mine", ["choose one of cifar10, digits, moons"]),
    ],
)
def test_unknown_data_set_is_named(name, parts):
    refused(ValueError, f"unknown data set {name!r}", *parts, "'./mine'", ":object'", name=name)


OWN = """
import torch
from ancer.datasets.dataset import Split

def ramp(split, folder):
    numbers = torch.arange(4) + (0 if split == "train" else 10)
    images = (numbers / 16)[:, None].float()
    return Split(numbers % 2, numbers, [str(folder), "odd"], 1 / 16, lambda chosen: images[chosen])
"""


def test_a_data_set_of_ones_own_is_loaded_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "my_own_data_sets.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    data = load("my_own_data_sets:ramp", tmp_path, every=2)
    assert data.name == "my_own_data_sets:ramp" and data.classes == [str(tmp_path), "odd"]
    assert data.index.tolist() == [10, 12] and data.labels.tolist() == [0, 0]
    assert data.images.tolist() == [[10 / 16], [12 / 16]] and data.lattice == 1 / 16
    assert load("my_own_data_sets:ramp", split="train").index.tolist() == [0, 1, 2, 3]
    for name, reason in [
        ("my_own_data_sets:slope", "has no attribute 'slope'"),
        ("my_other_data_sets:ramp", "No module named 'my_other_data_sets'"),
    ]:
        refused(ValueError, f"no data set {name!r}", reason, "'./mine'", name=name)


# --- CIFAR-10


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """A CIFAR-10 of 3 images a batch in tmp_path/data/cifar10.

    Image n of a split is all n, its class (7 n) mod 10.
    """
    folder = tmp_path / "data/cifar10/cifar-10-batches-py"
    folder.mkdir(parents=True)
    known = torchvision.datasets.CIFAR10

    def write(file, content):
        (folder / file).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / file).read_bytes()).hexdigest()

    for name in ("train_list", "test_list"):
        sums = []
        for k, (file, _) in enumerate(getattr(known, name)):
            numbers = np.arange(3 * k, 3 * k + 3, dtype=np.uint8)
            pixels = np.repeat(numbers[:, None], 3072, axis=1)
            pixels[:, 32:35] = 255  # red of the first pixels in the second row
            sums.append(
                [file, write(file, {"data": pixels, "labels": [int(7 * n % 10) for n in numbers]})]
            )
        monkeypatch.setattr(known, name, sums)
    meta = {**known.meta, "md5": write("batches.meta", {"label_names": CIFAR10_CLASSES})}
    monkeypatch.setattr(known, "meta", meta)
    return tmp_path


@pytest.mark.parametrize("split, size", [("train", 15), ("test", 3)])
def test_cifar10(cifar10, split, size):
    data = load("cifar10", cifar10, split=split)
    assert data.name == "cifar10" and data.classes == CIFAR10_CLASSES and data.lattice == 1 / 255
    assert data.index.tolist() == list(range(size)) and data.labels.tolist() == [
        7 * n % 10 for n in range(size)
    ]
    expected = torch.arange(size).float().reshape(-1, 1, 1, 1).repeat(1, 3, 32, 32)
    expected[:, 0, 1, :3] = 255
    assert torch.equal(data.images, expected / 255) and data.images.is_contiguous()


def test_chosen_images_of_cifar10(cifar10):
    data = load("cifar10", cifar10, split="train", every=4, images=3)
    assert data.index.tolist() == [0, 4, 8] and data.labels.tolist() == [0, 8, 6]
    assert data.images[:, 2, 3, 4].tolist() == pytest.approx([0, 4 / 255, 8 / 255])
    refused(ValueError, "cifar10 has 3 test images", name="cifar10", folder=cifar10, images=4)


def test_cifar10_by_its_name_in_torchvision(cifar10):
    for split in ("train", "test"):
        data = load("torchvision:CIFAR10", cifar10, split=split)
        assert data.sha256 == load("cifar10", cifar10, split=split).sha256


@pytest.mark.parametrize("loss", ["all of it", "a byte"])
def test_cifar10_that_cannot_be_downloaded_says_what_to_put_where(cifar10, monkeypatch, loss):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    root = cifar10 / "data/cifar10"
    load("cifar10", cifar10)  # nothing to download
    if loss == "all of it":
        shutil.rmtree(root)
    else:
        file = root / "cifar-10-batches-py/data_batch_3"
        file.write_bytes(file.read_bytes()[:-1])
    parts = [root, "no network", "cifar-10-python.tar.gz", "image folder", "cifar10-jpeg.tar.xz"]
    refused(FileNotFoundError, *parts, name="cifar10", folder=cifar10)


# --- folders and archives of images


@KINDS
def test_image_trees(tmp_path, kind):
    path = tree(tmp_path / "pets", LAYOUT)
    (path / "README").write_text("beside the splits")
    path = source(path, kind)
    for name, folder in [
        (path.name, path.parent),
        (f"./{path.name}", path.parent),
        (str(path), "elsewhere"),
    ]:
        if "/" in name or kind != "folder":
            data = load(name, folder)
            assert (
                data.name == path.name
                and list(data.classes) == ["cat", "dog"]
                and data.lattice == 1 / 255
            )
            assert data.labels.tolist() == [0, 1, 1] and data.index.tolist() == [0, 1, 2]
            red = torch.tensor([40.0, 50.0, 60.0])[:, None, None].expand(3, 5, 6) / 255
            assert torch.equal(data.images, torch.stack([red, 0 * red, 0 * red + 1], dim=1))
    data = load(str(path), split="train", every=2)
    assert data.index.tolist() == [0, 2] and data.labels.tolist() == [0, 1]
    assert (data.images[:, 0, 0, 0] * 255).tolist() == pytest.approx([10, 30])
    refused(ValueError, "pets", "has 3 test images", "images = 4", name=str(path), images=4)


def test_images_keep_their_rows_and_columns(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    path = tree(tmp_path, {"test/a/0.png": Image.fromarray(pixels)})
    assert torch.equal(
        load(str(path)).images[0], torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    )


@KINDS
def test_whole_numbers_as_names_order_the_images(tmp_path, kind):
    files = {
        "test/cat/0012.png": 12,
        "test/cat/3.png": 3,
        "test/dog/00.png": 0,
        "test/dog/100.png": 100,
    }
    data = load(str(source(tree(tmp_path / "pets", files), kind)))
    assert data.index.tolist() == [0, 3, 12, 100] and data.labels.tolist() == [1, 0, 0, 1]
    assert (data.images[:, 0, 0, 0] * 255).round().tolist() == [0, 3, 12, 100]
    data = load(str(tmp_path / "pets"), every=2, images=2)
    assert data.index.tolist() == [0, 12]


@pytest.mark.parametrize("other", ["dog/003.png", "dog/x7.png", "dog/-7.png", f"dog/{10**30}.png"])
def test_other_names_are_sorted_by_class_and_name(tmp_path, other):
    path = tree(tmp_path / "pets", {"test/cat/12.png": 12, "test/cat/3.png": 3, f"test/{other}": 7})
    for kind in ("folder", ".tar"):
        data = load(str(source(path, kind)))
        assert data.index.tolist() == [0, 1, 2] and data.labels.tolist() == [0, 0, 1]
        assert (data.images[:, 0, 0, 0] * 255).round().tolist() == [12, 3, 7]


@BOTH
def test_val_stands_for_test(tmp_path, kind):
    path = source(tree(tmp_path / "net", {"train/a/0.png": 1, "val/a/0.png": 2}), kind)
    assert (load(str(path)).images[:, 0, 0, 0] * 255).tolist() == pytest.approx([2])
    shutil.rmtree(tmp_path / "net/train")
    # no train, and both test and val: test
    path = source(tree(tmp_path / "net", {"test/a/0.png": 3}), kind)
    assert (load(str(path)).images[:, 0, 0, 0] * 255).tolist() == pytest.approx([3])


PNG_START = b"\x89PNG\r\n\x1a\n"


@BOTH
def test_only_the_images_asked_for_are_decoded(tmp_path, kind):
    path = tree(tmp_path / "pets", LAYOUT)
    (path / "test/dog/b.png").write_bytes(PNG_START + b"broken")
    (path / "train/cat/a.png").write_bytes(b"broken")  # of the other split
    path = source(path, kind)
    assert load(str(path), images=2).index.tolist() == [0, 1]
    refused(
        ValueError,
        path / ("top/" * (kind != "folder") + "test/dog/b.png"),
        "broken",
        name=str(path),
    )


# --- sizes and modes


@pytest.mark.parametrize("size", [224, 32])
@pytest.mark.parametrize("shape", [(300, 400), (500, 260), (256, 256), (40, 31)])
def test_size_is_that_of_torchvision_for_imagenet(tmp_path, size, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    tree(tmp_path, {"val/a/0.png": image})
    data = load(f"{tmp_path}@{size}")
    assert data.name == f"{tmp_path.name}@{size}" and data.images.shape == (1, 3, size, size)
    edge = {224: 256, 32: 37}[size]  # 32 * 256 / 224 = 36.6
    usual = transforms.Compose(
        [transforms.Resize(edge), transforms.CenterCrop(size), transforms.ToTensor()]
    )
    assert torch.equal(data.images[0], usual(image))


@BOTH
def test_image_of_another_size_is_named_with_the_fix(tmp_path, kind):
    path = source(tree(tmp_path / "pets", {**LAYOUT, "test/dog/b.png": colour(0, (7, 5))}), kind)
    odd, first = (
        path / ("top/" * (kind != "folder") + file) for file in ("test/dog/b.png", "test/cat/a.png")
    )
    refused(ValueError, f"{odd} is 7 x 5", f"{first} is 6 x 5", f"'{path}@224'", name=str(path))
    assert load(f"{path}@4").images.shape == (3, 3, 4, 4)


@pytest.mark.parametrize("size", ["", "0", "-1", "08", "22.4", "x"])
def test_bad_size_is_named(tmp_path, size):
    refused(ValueError, f"'{tmp_path}@{size}'", f"{tmp_path}@224", name=f"{tmp_path}@{size}")


def test_at_sign_in_a_folder_above(tmp_path):
    tree(tmp_path / "me@home/pets", LAYOUT)
    assert load("me@home/pets", tmp_path).name == "pets"
    assert load("me@home/pets@4", tmp_path).images.shape == (3, 3, 4, 4)


def keyed(mode):
    """An image whose colour 0 is transparent without an alpha channel."""
    image = colour(0, mode=mode)
    image.info["transparency"] = 0 if mode != "RGB" else (0, 0, 255)
    return image


ALPHA = {
    "RGBA": colour(0, mode="RGBA"),
    "LA": colour(0, mode="LA"),
    "P": keyed("P"),
    "L": keyed("L"),
    "RGB": keyed("RGB"),
}


@BOTH
@pytest.mark.parametrize("end", ["", "@224"])
@pytest.mark.parametrize("mode", ALPHA)
def test_transparent_images_are_refused(tmp_path, kind, mode, end):
    path = source(
        tree(tmp_path / "pets", {"test/a/x.png": colour(1), "test/a/y.png": ALPHA[mode]}), kind
    )
    refused(
        ValueError,
        "test/a/y.png",
        f"mode {mode} with transparency",
        "convert to RGB",
        name=f"{path}{end}",
    )


OPAQUE = [
    ("CMYK", "jpeg"),
    ("P", "png"),
    ("1", "png"),
    ("I;16", "png"),
]


@pytest.mark.parametrize("mode, ending", OPAQUE)
def test_images_of_other_modes_are_refused_with_both_ways_out(tmp_path, mode, ending):
    odd = Image.new(mode, (6, 5))
    path = tree(tmp_path, {"test/a/x.png": colour(1), f"test/a/y.{ending}": odd})
    parts = [f"y.{ending} has mode {mode}: convert to RGB, or set convert: true"]
    refused(ValueError, *parts, name=str(path))
    if mode == "CMYK":
        assert len(load(f"{path}@4").images) == 2
    else:
        refused(ValueError, *parts, name=f"{path}@4")
    assert len(load(str(path), convert=True).images) == 2


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_of_imagenet_are_read_as_torchvision_does(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (256, 300, 3), dtype=np.uint8)
    tree(tmp_path, {"val/a/x.JPEG": Image.fromarray(pixels).convert(mode)})
    usual = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    )
    image, _ = torchvision.datasets.ImageFolder(tmp_path / "val", usual)[0]
    assert torch.equal(load(f"{tmp_path}@224").images[0], image)


# --- what is missing or damaged


@BOTH
@pytest.mark.parametrize(
    "split, missing", [("train", "folder train"), ("test", "folder test or val")]
)
def test_missing_split_is_named(tmp_path, kind, split, missing):
    path = source(
        tree(
            tmp_path / "pets", {file: v for file, v in LAYOUT.items() if not file.startswith(split)}
        ),
        kind,
    )
    refused(
        FileNotFoundError, path, missing, f"{split}/<class>/<image>", name=str(path), split=split
    )
    # the other one needs no partner
    load(str(path), split={"train": "test", "test": "train"}[split])


@pytest.mark.parametrize("name", ["no/pets", "./pets.tar.xz", "pets.tar"])
def test_missing_folder_or_archive_is_named(tmp_path, name):
    refused(FileNotFoundError, tmp_path / name, name=name, folder=tmp_path)


@BOTH
def test_empty_class_is_named(tmp_path, kind):
    tree(tmp_path / "pets", LAYOUT)
    for split in ("train", "test"):
        (tmp_path / "pets" / split / "eel").mkdir()
    path = source(tmp_path / "pets", kind)
    refused(ValueError, path, "eel", "test", name=str(path))


def test_folder_without_classes_is_named(tmp_path):
    path = tree(tmp_path / "pets", {"test/a.png": 1})
    for kind in ("folder", ".tar", ".zip"):
        parts = ["test/a.png is in no class", "test/<class>/<image>"]
        refused(ValueError, *parts, name=str(source(path, kind)))
    (path / "test/a.png").unlink()
    for kind in ("folder", ".tar", ".zip"):
        parts = ["test has no class", "test/<class>/<image>"]
        refused(ValueError, *parts, name=str(source(path, kind)))


@BOTH
@pytest.mark.parametrize("damage", ["noise", "cut", "empty", "huge"])
@pytest.mark.parametrize("ending", ["png", "jpg", "bmp"])
def test_broken_images_are_named(tmp_path, kind, damage, ending):
    path = tree(tmp_path / "pets", {"test/a/a.png": 1, f"test/a/b.{ending}": 2})
    odd = path / f"test/a/b.{ending}"
    whole = odd.read_bytes()
    huge = b"\x7f\xff\x00\x00"
    odd.write_bytes({
        "noise": np.random.default_rng(0).bytes(100),
        "cut": whole[: len(whole) * 2 // 3],
        "empty": b"",
        # width and height of a BMP: more than Pillow opens
        "huge": whole[:18] + huge + huge + whole[26:],
    }[damage])  # fmt: skip
    path = source(path, kind)
    kind_of_damage = "by its first bytes" if damage in ("noise", "empty") else "or a broken one"
    refused(ValueError, f"test/a/b.{ending} is no image {kind_of_damage}", name=str(path))


@ENDINGS
def test_every_truncation_of_an_archive_is_found(tmp_path, ending):
    path = packed(tree(tmp_path / "pets", LAYOUT), ending)
    whole = path.read_bytes()
    last, step = len(whole), 5
    if ending == ".tar":
        with tarfile.open(path) as archive:
            archive.getmembers()
            # blocks of zeros follow: the first one ends the archive
            last, step = archive.offset + tarfile.BLOCKSIZE, 256
    for length in [*range(0, last, step), last - 1]:
        path.write_bytes(whole[:length])
        refused(ValueError, path, "truncated", name=str(path))
    path.write_bytes(whole)
    assert len(load(str(path)).images) == 3


@ENDINGS
def test_damaged_archives_give_the_images_or_an_error_that_names_them(tmp_path, ending):
    path = packed(tree(tmp_path / "pets", LAYOUT), ending)
    expected, whole, choose, errors = load(str(path)), path.read_bytes(), random.Random(0), 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[choose.randrange(len(whole))] ^= 1 << choose.randrange(8)
        path.write_bytes(damaged)
        try:
            data = load(str(path))
        except (ValueError, FileNotFoundError) as error:
            assert str(path) in str(error)
            errors += 1
        else:
            # a plain one has no sums of images
            assert ending == ".tar" or torch.equal(data.images, expected.images)
    assert errors >= 5


@pytest.mark.parametrize("ending", [".tar.xz", ".tar.gz", ".tar.bz2", ".zip"])
def test_damage_in_the_middle_of_a_compressed_archive_is_named(tmp_path, ending):
    pixels = np.random.default_rng(0).integers(0, 16, (200, 200, 3), dtype=np.uint8)
    path = packed(
        tree(tmp_path / "pets", {"test/a/0.bmp": Image.fromarray(pixels), "test/a/1.bmp": 1}),
        ending,
    )
    whole = path.read_bytes()
    middle = len(whole) // 2
    for byte in range(256):
        path.write_bytes(whole[:middle] + bytes([byte]) * 200 + whole[middle + 200 :])
        refused(ValueError, path, "damaged", name=str(path))


@pytest.mark.parametrize(
    "prefix, order", [("", [*range(10)]), ("x", [0, 2, 4, 6, 8, 1, 3, 5, 7, 9])]
)
def test_archive_in_any_order_with_no_entries_of_folders(tmp_path, prefix, order):
    path = tree(tmp_path / "pets", {f"test/{'ab'[n % 2]}/{prefix}{n}.png": n for n in range(10)})
    files = sorted(path.rglob("*.png"), key=lambda file: hashlib.md5(file.name.encode()).digest())
    with tarfile.open(tmp_path / "pets.tar.xz", "w:xz") as archive:
        for file in files:
            archive.add(file, arcname=f"./top/{file.relative_to(path)}")
    data = load("pets.tar.xz", tmp_path)
    assert data.index.tolist() == list(range(10)) and data.labels.tolist() == [n % 2 for n in order]
    assert (data.images[:, 0, 0, 0] * 255).round().tolist() == order


# --- check sums


# --- what files of others may take

SMALL = Limits(megabytes=1, megapixels=1)
PEAK = 12_000_000  # bytes; the dictionary of xz takes 8 MB


def too_much(name, *parts, **limits):
    """The peak of memory, in bytes, until the images of `name` are refused."""
    tracemalloc.start()
    refused(ValueError, *parts, name=str(name), limits=dataclasses.replace(SMALL, **limits))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


PACK = {
    ".tar": bytes,
    ".tar.xz": lzma.compress,
    ".tar.gz": gzip.compress,
    ".tar.bz2": bz2.compress,
}
TARS = pytest.mark.parametrize("ending", PACK)


def archived(path, members, ending=".tar.xz", after=b""):
    """An archive of members, name -> bytes, in <path>/, with something after its end."""
    buffer = BytesIO()
    if ending == ".zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(f"pets/{name}", content)
        path = path.with_name(path.name + ending)
        path.write_bytes(buffer.getvalue())
        return path
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"pets/{name}")
            info.size = len(content)
            archive.addfile(info, BytesIO(content))
    pack = PACK[ending]
    path = path.with_name(path.name + ending)
    path.write_bytes(pack(buffer.getvalue() + after))
    return path


def png(width, height):
    buffer = BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "png")
    return buffer.getvalue()


@TARS
def test_zeros_after_an_archives_end_do_not_fill_the_memory(tmp_path, ending):
    """98 KB of xz may hold 640 MB of them."""
    members = {"test/cat/a.png": png(4, 4), "test/dog/b.png": png(4, 4)}
    path = archived(tmp_path / "pets", members, ending, after=bytes(20_000_000))
    peak = too_much(path, "after its end", "more than 1 megabytes", "raise limits.megabytes")
    assert peak < PEAK
    assert len(load(str(path), limits=Limits(megabytes=21)).images) == 2


@ENDINGS
def test_a_huge_member_is_refused_before_it_is_read(tmp_path, ending):
    members = {"test/cat/a.png": png(4, 4), "test/dog/b.png": bytes(20_000_000)}
    path = archived(tmp_path / "pets", members, ending)
    assert too_much(path, "b.png has 20,000,000 bytes", "more than 1 megabytes") < PEAK


@TARS
def test_a_huge_header_is_refused(tmp_path, ending):
    """The name of a member stands in a header of any length."""
    info = tarfile.TarInfo("pets/test/cat/a.png")
    info.pax_headers = {"comment": "x" * 20_000_000}
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, BytesIO())
    pack = PACK[ending]
    path = tmp_path / f"pets{ending}"
    path.write_bytes(pack(buffer.getvalue()))
    assert too_much(path, "a header", "more than 1 megabytes") < PEAK


@BOTH
def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path, kind):
    """A PNG of one colour: few bytes, many pixels."""
    tree(tmp_path / "pets", LAYOUT)
    (tmp_path / "pets/test/cat/0.png").write_bytes(png(4000, 4000))
    path = source(tmp_path / "pets", kind)
    peak = too_much(f"{path}@8", "0.png is 4000 x 4000, more than 1 megapixels", megabytes=20)
    assert peak < PEAK


def test_a_huge_file_is_refused(tmp_path):
    path = tree(tmp_path / "pets", LAYOUT)
    (path / "test/cat/0.png").write_bytes(PNG_START + bytes(1_999_992))
    too_much(path, "0.png has 2,000,000 bytes", "raise limits.megabytes")


def test_ordinary_images_are_within_the_limits():
    """Photographs of phones (12 to 50 megapixels), ImageNet's largest (some 25)."""
    assert Limits().megapixels >= 50 and Limits().megabytes >= 32


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """An archive and its line in a list of sums."""
    path = packed(tree(tmp_path / "pets", LAYOUT), ".tar")
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(archives, "CHECKSUMS", tmp_path / "checksums.txt")
    return path, checksum, tmp_path / "checksums.txt"


@pytest.mark.parametrize("mark", [" ", "*"])
def test_listed_archive_must_have_its_sum(listed, mark):
    path, checksum, sums = listed
    other = "0" * 64
    sums.write_text(f"{other}  other.tar\n{checksum} {mark}{path.name}\n")
    assert len(load(str(path)).images) == 3
    sums.write_text(f"{other} {mark}{path.name}\n{checksum}  other.tar\n")
    refused(ValueError, path, checksum, other, sums, name=str(path))
    path.rename(path.with_name("another.tar"))
    assert len(load(str(path.with_name("another.tar"))).images) == 3  # not listed


def test_without_a_list_nothing_is_compared(listed):
    path, _, sums = listed
    assert not sums.exists() and len(load(str(path)).images) == 3


def test_the_list_of_the_repository():
    assert archives.CHECKSUMS == ROOT / "data/checksums.txt"
    assert re.fullmatch("([0-9a-f]{64}  [^ ]+\n)+", archives.CHECKSUMS.read_text())


# --- CIFAR-10 (JPEG), where it is

real = pytest.mark.skipif(not ARCHIVE.exists(), reason=f"{ARCHIVE} is not here")


@real
def test_real_archive_has_the_images_of_the_published_logs():
    data = load("../shared/cifar10/cifar10-jpeg.tar.xz", ROOT, every=20)
    log = pd.read_csv(LOG, sep="\t")
    assert (
        data.index.tolist() == log["idx"].tolist() and data.labels.tolist() == log["label"].tolist()
    )
    assert (
        data.images.shape == (500, 3, 32, 32)
        and data.classes == CIFAR10_CLASSES
        and data.lattice == 1 / 255
    )
    with tarfile.open(ARCHIVE) as archive:
        file = io.BytesIO(archive.extractfile("cifar10-jpeg/test/cat/00000.jpg").read())
    assert torch.equal(data.images[0], transforms.functional.to_tensor(Image.open(file)))


@real
def test_real_archive_that_is_cut_or_changed_is_named(tmp_path):
    path = tmp_path / ARCHIVE.name
    whole = ARCHIVE.read_bytes()
    for damaged in (whole[:1_000_000], whole[:-1], whole + b"0"):
        path.write_bytes(damaged)
        expected, found = hashlib.sha256(whole).hexdigest(), hashlib.sha256(damaged).hexdigest()
        refused(ValueError, path, expected, found, name=str(path))
