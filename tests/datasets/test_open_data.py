"""Data sets of others: what is skipped, what stops, what images and classes are taken for."""

import os
import struct
import tracemalloc
import urllib.error
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from PIL import Image
from safetensors.numpy import save_file
from trees import BOTH, KINDS, LAYOUT, colour, packed, reds, refused, source, tree

from ancer.datasets import archives
from ancer.datasets.limits import Limits
from ancer.datasets.loading import load, maker_of, place_of

ARCHIVES = pytest.mark.parametrize("kind", [".zip", ".tar", ".tar.xz"])


def encoded(image, form="png", **options):
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


# --- the layout of archives


@ARCHIVES
@pytest.mark.parametrize("top", ["top", ".", "./top"])
def test_archives_with_and_without_a_folder_above(tmp_path, kind, top):
    path = packed(tree(tmp_path / "pets", LAYOUT), kind, top)
    data = load(str(path))
    assert data.classes == ["cat", "dog"] and reds(data) == [40, 50, 60]


@ARCHIVES
def test_splits_below_several_folders_are_named(tmp_path, kind):
    files = {"images/test/cat/a.png": 1, "masks/test/cat/a.png": 2}
    path = packed(tree(tmp_path / "pets", files), kind, ".")
    refused(ValueError, path, "images, masks", "pack one", name=str(path))


@KINDS
def test_folders_in_a_class_are_read_in_the_order_of_torchvision(tmp_path, kind):
    files = {"test/cat/b/a.png": 2, "test/cat/z.png": 1, "test/cat/b-c/a.png": 3}
    path = tree(tmp_path / "pets", files)
    samples = torchvision.datasets.ImageFolder(path / "test").samples
    expected = [float(np.asarray(Image.open(file))[0, 0, 0]) for file, _ in samples]
    assert reds(load(str(source(path, kind)))) == expected


# --- what is skipped and what stops

HIDDEN = [
    ".git/test/cat/0.png",
    "test/.DS_Store",
    "test/.ipynb_checkpoints/0.png",
    "test/cat/.ipynb_checkpoints/0.png",
    "test/cat/._a.png",
    "test/cat/Thumbs.db",
    "test/dog/__MACOSX/a.png",
    "__MACOSX/test/cat/._a.png",
    "train/.hidden/a.png",
]


@KINDS
def test_hidden_files_and_folders_are_skipped(tmp_path, kind):
    hidden = dict.fromkeys(HIDDEN, b"nothing to see")
    data = load(str(source(tree(tmp_path / "pets", LAYOUT | hidden), kind)))
    assert data.classes == ["cat", "dog"] and data.indices == [0, 1, 2]
    assert reds(data) == [40, 50, 60]


def test_a_path_below_a_hidden_folder_is_read(tmp_path):
    path = tree(tmp_path / ".cache/pets", LAYOUT)
    assert reds(load(str(path))) == [40, 50, 60]


@BOTH
def test_an_image_is_read_whatever_its_suffix(tmp_path, kind):
    files = {
        "test/cat/a.gif": encoded(Image.new("L", (6, 5), 10), "jpeg"),
        "test/cat/b": encoded(Image.new("L", (6, 5), 20)),
        "test/cat/c.txt": encoded(Image.new("L", (6, 5), 30), "bmp"),
        "test/cat/d.png": encoded(Image.new("L", (6, 5), 40), "tiff"),
        "test/cat/e.jpg": encoded(Image.new("L", (6, 5), 50), "ppm"),
        "test/cat/f.png": encoded(Image.new("L", (6, 5), 60), "jpeg2000"),
    }
    data = load(str(source(tree(tmp_path / "pets", files), kind)))
    assert reds(data) == [10, 20, 30, 40, 50, 60]


@BOTH
def test_a_gif_is_not_left_out(tmp_path, kind):
    """It has a palette."""
    path = source(tree(tmp_path / "pets", LAYOUT | {"test/cat/0.gif": colour(70)}), kind)
    refused(ValueError, "test/cat/0.gif has mode P", "set convert: true", name=str(path))
    assert reds(load(str(path), convert=True)) == [70, 40, 50, 60]


@BOTH
@pytest.mark.parametrize("content", [b"", b"P", b"no image", b"%!PS-Adobe-3.0 EPSF", bytes(100)])
@pytest.mark.parametrize("file", ["test/cat/b.png", "test/dog/desktop.ini", "test/cat/x/notes"])
def test_another_file_of_a_class_stops_with_its_name(tmp_path, kind, content, file):
    """Also one that is not chosen: it would shift the numbers of those behind it."""
    path = source(tree(tmp_path / "pets", LAYOUT | {file: content}), kind)
    refused(ValueError, f"{file} is no image by its first bytes", "'.'", name=str(path), images=1)
    assert len(load(str(path), split="train")) == 3


@BOTH
@pytest.mark.parametrize("content", [b"notes", encoded(colour(1))])
def test_a_file_in_no_class_stops_with_its_name(tmp_path, kind, content):
    path = source(tree(tmp_path / "pets", LAYOUT | {"test/notes": content}), kind)
    refused(ValueError, "test/notes is in no class", "move or remove it", name=str(path))
    assert len(load(str(path), split="train")) == 3


@BOTH
def test_what_lies_beside_the_splits_is_ignored(tmp_path, kind):
    beside = {"LICENSE": b"free", "notes/a.txt": b"notes", "val/eel/a.png": b"not test"}
    path = source(tree(tmp_path / "pets", LAYOUT | beside), kind)
    assert load(str(path)).classes == ["cat", "dog"]


@pytest.mark.parametrize("kind", ["folder", ".tar"])
def test_links_to_nothing_and_pipes_stop_with_their_names(tmp_path, kind):
    path = tree(tmp_path / "pets", LAYOUT)
    (path / "test/cat/x.png").symlink_to("nowhere.png")
    refused(ValueError, "test/cat/x.png is no image", name=str(source(path, kind)))
    (path / "test/cat/x.png").unlink()
    os.mkfifo(path / "test/cat/x.png")
    refused(ValueError, "test/cat/x.png is no image", name=str(source(path, kind)))


def test_links_to_images_and_folders_are_followed(tmp_path):
    tree(tmp_path, {"elsewhere/a.png": 30})
    path = tree(tmp_path / "pets", LAYOUT)
    (path / "test/eel").symlink_to(tmp_path / "elsewhere")
    (path / "test/cat/x.png").symlink_to(tmp_path / "elsewhere/a.png")
    assert reds(load(str(path))) == [40, 30, 50, 60, 30]


# --- zip archives


def zipped(path, contents, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def test_a_file_of_a_zip_that_claims_to_be_small_does_not_fill_the_memory(tmp_path):
    content = encoded(colour(1)) + bytes(50_000_000)
    path = zipped(tmp_path / "pets.zip", {"test/cat/a.png": content})
    size = struct.pack("<I", len(content))
    path.write_bytes(path.read_bytes().replace(size, struct.pack("<I", 900_000)))
    tracemalloc.start()
    refused(ValueError, path, "Bad CRC-32", name=str(path), limits=Limits(megabytes=1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_of_another_method_is_named_with_the_fix(tmp_path, method):
    path = zipped(tmp_path / "pets.zip", {"test/cat/a.png": encoded(colour(1))}, method)
    parts = [f"a.png is packed by method {method}", "method 8 (deflate)"]
    refused(ValueError, *parts, name=str(path))


def test_an_encrypted_zip_is_named(tmp_path):
    path = zipped(tmp_path / "pets.zip", {"test/cat/a.png": encoded(colour(1))})
    whole = bytearray(path.read_bytes())
    whole[6] |= 1
    whole[whole.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(whole)
    refused(ValueError, path, "encrypted", name=str(path))


def test_a_zip_whose_list_hides_entries_is_damaged(tmp_path):
    """One that claims the next ones as its comment."""
    image = encoded(colour(1))
    path = zipped(tmp_path / "pets.zip", {"test/cat/a.png": image, "test/cat/b.png": image})
    whole = bytearray(path.read_bytes())
    entry = 46 + len("test/cat/b.png")
    assert load(str(path)).indices == [0, 1]
    whole[whole.index(b"PK\1\2") + 32] = entry
    path.write_bytes(whole)
    refused(ValueError, path, "damaged", "1 entries of 2", name=str(path))


# --- modes


def of_modes(tmp_path, *images, **options):
    """The data set of these images, in one class."""
    files = {}
    for k, image in enumerate(images):
        files[f"test/a/{k}"] = image if isinstance(image, bytes) else encoded(image)
    return {"name": str(tree(tmp_path / "pets", files)), **options}


def grey(*values, dtype=np.uint8):
    return Image.fromarray(np.array([values], dtype=dtype))


def test_grey_images_have_one_channel(tmp_path):
    data = load(**of_modes(tmp_path, grey(0, 10, 255), grey(1, 2, 3)))
    expected = torch.tensor([[[[0, 10, 255.0]]], [[[1, 2, 3]]]]) / 255
    assert torch.equal(data.images, expected) and data.images.shape == (2, 1, 1, 3)
    assert data.lattice == 1 / 255 and not data.converted


@pytest.mark.parametrize("first", ["L", "RGB"])
def test_grey_among_rgb_is_named_and_converted(tmp_path, first):
    images = [colour(7, mode=first), colour(7, mode="RGB" if first == "L" else "L")]
    call = of_modes(tmp_path, *images)
    words = {"L": ["1 is RGB", "0 is grey"], "RGB": ["1 is grey", "0 is RGB"]}[first]
    refused(ValueError, *words, "set convert: true", **call)
    data = load(**call, convert=True)
    assert data.images.shape == (2, 3, 5, 6) and data.converted
    for image, expected in zip(data.images, images, strict=True):
        assert torch.equal(image, transformed(expected.convert("RGB")))


def transformed(image):
    return torchvision.transforms.functional.to_tensor(image)


def test_all_grey_images_are_rgb_where_all_are_converted(tmp_path):
    data = load(**of_modes(tmp_path, grey(0, 10)), convert=True)
    assert data.images.shape == (1, 3, 1, 2) and data.converted


def pixels(tmp_path, image, **options):
    """The pixels of one converted image, (H, W, 3), 0 to 255."""
    data = load(**of_modes(tmp_path, image), convert=True, **options)
    assert data.converted and data.lattice == 1 / 255
    return (data.images[0] * 255).round().permute(1, 2, 0).tolist()


def test_palettes_and_black_and_white_are_converted(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert pixels(tmp_path, palette) == [[[1, 2, 3], [40, 50, 60]]]
    assert pixels(tmp_path, grey(0, 255).convert("1")) == [[[0] * 3, [255] * 3]]
    cmyk = encoded(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "tiff")
    assert pixels(tmp_path, cmyk) == [[[255, 0, 0]]]


SIXTEEN = [0, 128, 129, 257, 32896, 65535]
EIGHT = [0, 0, 1, 1, 128, 255]


@pytest.mark.parametrize("form", ["png", "tiff", "ppm"])
def test_sixteen_bits_are_divided_and_rounded(tmp_path, form):
    deep = encoded(grey(*SIXTEEN, dtype=np.uint16), form)
    refused(ValueError, "has mode I", "set convert: true", **of_modes(tmp_path, deep))
    assert pixels(tmp_path, deep) == [[[value] * 3 for value in EIGHT]]


def png_of_sixteen_bits(extra=b"", kind=2, pixel=b"\x12\x34\x56\x78\x9a\xbc"):
    def chunk(name, content):
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, kind, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(b"\0" + pixel))
    return b"\x89PNG\r\n\x1a\n" + header + extra + rows + chunk(b"IEND", b"")


def test_sixteen_bits_of_each_colour_are_not_shortened_without_a_word(tmp_path):
    deep = png_of_sixteen_bits()
    parts = ["has mode RGB of 16 bits: convert to RGB, or set convert: true"]
    refused(ValueError, *parts, **of_modes(tmp_path, deep))
    assert pixels(tmp_path, deep) == [[[0x12, 0x56, 0x9A]]]


def test_what_is_transparent_is_put_on_white(tmp_path):
    clear = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    clear.putpixel((1, 0), (255, 0, 0, 0))
    clear.putpixel((2, 0), (255, 0, 0, 51))
    red = [255, 0, 0]
    white = [255, 255, 255]
    assert pixels(tmp_path, clear) == [[red, white, [255, 204, 204]]]
    keyed = grey(0, 7)
    assert pixels(tmp_path, encoded(keyed, transparency=7)) == [[[0] * 3, white]]
    indexed = Image.new("P", (1, 1))
    indexed.putpalette([1, 2, 3])
    assert pixels(tmp_path, encoded(indexed, transparency=0)) == [[white]]


def test_of_an_animation_the_first_frame_counts(tmp_path):
    frames = [colour(10), colour(200)]
    content = encoded(frames[0], "gif", save_all=True, append_images=frames[1:])
    assert pixels(tmp_path, content)[0][0] == [10, 0, 255]


@pytest.mark.parametrize(
    "image, mode",
    [
        (encoded(grey(0.5, dtype=np.float32), "tiff"), "F"),
        (encoded(Image.new("LAB", (1, 1)), "tiff"), "LAB"),
        # a grey of 16 bits that is transparent
        (
            encoded(grey(5, dtype=np.uint16), transparency=5),
            "I;16 with transparency",
        ),
    ],
)
def test_what_cannot_be_converted_has_one_way_out(tmp_path, image, mode):
    call = of_modes(tmp_path, image)
    for convert in (False, True):
        with pytest.raises(ValueError, match=f"has mode {mode}: convert to RGB$"):
            load(**call, convert=convert)


def test_numbers_of_32_bits_are_not_taken_for_16(tmp_path):
    deep = encoded(grey(0, 65536, dtype=np.int32), "tiff")
    refused(ValueError, "from 0 to 65536", **of_modes(tmp_path, deep), convert=True)


def test_converted_images_are_scaled(tmp_path):
    call = of_modes(tmp_path, colour(1, mode="RGBA"), colour(1, mode="P"))
    data = load(f"{call['name']}@4", convert=True)
    assert data.images.shape == (2, 3, 4, 4) and data.converted


# --- classes


@BOTH
@pytest.mark.parametrize("odd", ["test/bee/a.png", "train/bee/a.png"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_classes_are_those_of_both_splits(tmp_path, kind, odd, split):
    path = source(tree(tmp_path / "pets", LAYOUT | {odd: 1}), kind)
    data = load(str(path), split=split)
    assert data.classes == ["bee", "cat", "dog"]
    expected = {"train": [1, 1, 2], "test": [1, 2, 2]}[split]
    assert data.labels.tolist() == [0] * odd.startswith(split) + expected


@BOTH
def test_classes_in_an_order_of_ones_own(tmp_path, kind):
    path = source(tree(tmp_path / "pets", LAYOUT), kind)
    data = load(str(path), classes=["dog", "eel", "cat"])
    assert data.classes == ["dog", "eel", "cat"] and data.labels.tolist() == [2, 0, 0]
    assert data.indices == [0, 1, 2] and reds(data) == [40, 50, 60]
    refused(ValueError, "pets", "`classes` lacks: add dog", name=str(path), classes=["cat"])
    refused(ValueError, "must be distinct", name=str(path), classes=["cat", "dog", "cat"])


def test_a_class_that_only_the_other_split_has_must_be_named_too(tmp_path):
    path = tree(tmp_path / "pets", LAYOUT | {"train/eel/a.png": 1})
    refused(ValueError, "lacks: add eel", name=str(path), classes=["cat", "dog"])


def test_classes_of_digits_in_another_order():
    names = [str(digit) for digit in reversed(range(10))]
    data = load("digits", classes=names)
    assert data.classes == names
    assert torch.equal(data.labels, 9 - load("digits").labels)


# --- torchvision


def idx(array):
    """An array as the files of MNIST hold it."""
    return struct.pack(f">{array.ndim + 1}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def mnist(folder, name="MNIST"):
    """A set of 4 train and 3 test images of 2 x 3 pixels: image n is all n, its class 9 - n."""
    files = {}
    for kind, size in {"train": 4, "t10k": 3}.items():
        numbers = np.arange(size, dtype=np.uint8)
        images = np.tile(numbers[:, None, None], (1, 2, 3))
        images[:, 0, 2] = 255
        files[f"{kind}-images-idx3-ubyte"] = idx(images)
        files[f"{kind}-labels-idx1-ubyte"] = idx(9 - numbers)
    return tree(folder / f"data/{name.lower()}/{name}/raw", files)


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
@pytest.mark.parametrize("split, size", [("train", 4), ("test", 3)])
def test_grey_sets_of_torchvision(tmp_path, offline, name, split, size):
    mnist(tmp_path, name)
    data = load(f"torchvision:{name}", tmp_path, split=split)
    assert data.name == f"torchvision:{name}" and data.lattice == 1 / 255
    assert data.classes == getattr(torchvision.datasets, name).classes and not data.converted
    assert data.indices == list(range(size))
    assert data.labels.tolist() == [9 - n for n in range(size)]
    expected = torch.arange(size).float().reshape(-1, 1, 1, 1).repeat(1, 1, 2, 3)
    expected[:, 0, 0, 2] = 255
    assert torch.equal(data.images, expected / 255)


def test_chosen_and_converted_images_of_torchvision(tmp_path, offline):
    mnist(tmp_path)
    data = load("torchvision:MNIST", tmp_path, split="train", every=2, images=2)
    assert data.indices == [0, 2] and data.labels.tolist() == [9, 7] and reds(data) == [0, 2]
    data = load("torchvision:MNIST", tmp_path, convert=True)
    assert data.images.shape == (3, 3, 2, 3) and data.converted
    assert load("torchvision:MNIST@8", tmp_path).images.shape == (3, 3, 8, 8)
    names = ["ten", *reversed(torchvision.datasets.MNIST.classes)]
    data = load("torchvision:MNIST", tmp_path, classes=names)
    assert data.labels.tolist() == [1, 2, 3]


def test_a_set_of_torchvision_without_names_of_classes(tmp_path, offline, monkeypatch):
    folder = tmp_path / "data/svhn"
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    labels = np.array([[1], [10], [3], [9]])  # 10 stands for 0
    scipy.io.savemat(folder / "test_32x32.mat", {"X": images, "y": labels})
    monkeypatch.setattr(torchvision.datasets.svhn, "check_integrity", lambda *args: True)
    data = load("torchvision:SVHN", tmp_path)
    assert data.classes == [str(digit) for digit in range(10)]
    assert data.labels.tolist() == [1, 0, 3, 9]
    expected = torch.from_numpy(images.transpose(3, 2, 0, 1)).float() / 255
    assert torch.equal(data.images, expected)


def test_a_set_of_torchvision_with_images_of_several_sizes(tmp_path, offline):
    folder = tmp_path / "data/gtsrb/gtsrb"
    files = {
        "GTSRB/Final_Test/Images/0.ppm": colour(10, (6, 5)),
        "GTSRB/Final_Test/Images/1.ppm": colour(20, (7, 8)),
        "GT-final_test.csv": b"Filename;ClassId\n0.ppm;3\n1.ppm;1\n",
    }
    tree(folder, files)
    refused(
        ValueError,
        "(image 1) is 7 x 8",
        "(image 0) is 6 x 5",
        "'torchvision:GTSRB@224'",
        name="torchvision:GTSRB",
        folder=tmp_path,
    )
    data = load("torchvision:GTSRB@4", tmp_path)
    assert data.images.shape == (2, 3, 4, 4) and reds(data) == [10, 20]
    assert data.labels.tolist() == [3, 1] and data.classes == ["0", "1", "2", "3"]


@pytest.mark.parametrize("name", ["MNIST", "CIFAR100", "SVHN", "STL10", "GTSRB", "USPS"])
def test_a_download_that_fails_says_how_to_fill_which_folder(tmp_path, offline, name):
    root = tmp_path / "data" / name.lower()
    refused(
        FileNotFoundError,
        f"the test split of torchvision:{name} is not in {root}",
        f"run torchvision.datasets.{name}({str(root)!r}, ",
        "download=True), and copy that folder",
        name=f"torchvision:{name}",
        folder=tmp_path,
    )


def test_what_is_there_is_not_downloaded_again(tmp_path, monkeypatch):
    asked = []

    class MNIST(torchvision.datasets.MNIST):
        def __init__(self, root, train=True, target_transform=None, download=False):
            asked.append(download)
            super().__init__(root, train, download=download)

        def download(self):
            mnist(tmp_path)

    monkeypatch.setattr(torchvision.datasets, "MNIST", MNIST)
    assert len(load("torchvision:MNIST", tmp_path)) == 3
    assert asked == [False, True]
    asked.clear()
    assert len(load("torchvision:MNIST", tmp_path)) == 3
    assert asked == [False]


def test_a_damaged_set_of_torchvision_is_named(tmp_path, offline):
    file = mnist(tmp_path) / "t10k-images-idx3-ubyte"
    whole = file.read_bytes()
    call = {"name": "torchvision:MNIST", "folder": tmp_path}
    root = tmp_path / "data/mnist"
    file.write_bytes(whole[:-1])
    refused(FileNotFoundError, f"{root} or not whole", "input of size 17", **call)
    file.write_bytes(bytes(4) + whole[4:])
    refused(ValueError, f"cannot be read from {root} (Assert", "remove what is broken", **call)


@pytest.mark.parametrize(
    "name, hint",
    [
        ("cifar100", "did you mean 'torchvision:CIFAR100'?"),
        ("MINST", "did you mean 'torchvision:MNIST'?"),
        ("MNIST@", "the size of 'torchvision:MNIST@'"),
        ("SUN397", "with a train and a test split"),
        ("FakeData", "with a train and a test split"),
        ("", "choose one of torchvision:CIFAR10, "),
    ],
)
def test_an_unknown_set_of_torchvision_is_named(name, hint):
    refused(ValueError, f"torchvision:{name}", hint, name=f"torchvision:{name}")
    with pytest.raises(ValueError):
        maker_of(f"torchvision:{name}")


def test_a_set_of_torchvision_that_is_no_classification_is_named(tmp_path, offline):
    parts = ["torchvision:EMNIST cannot be read", "Unknown value 'test'", "package.module:function"]
    refused(ValueError, *parts, name="torchvision:EMNIST", folder=tmp_path)


@pytest.mark.parametrize(
    "item, reason",
    [
        ((torch.zeros(3), 1), "has no images but Tensor"),
        ((colour(1), "cat"), "has no whole numbers as labels"),
        ((colour(1), (1, 2)), "has no whole numbers as labels"),
    ],
)
def test_items_of_torchvision_that_are_not_images_and_numbers(monkeypatch, item, reason):
    class Odd(list):
        def __init__(self, root, split="train", target_transform=None):
            super().__init__([item, item])

    monkeypatch.setattr(torchvision.datasets, "STL10", Odd)
    refused(ValueError, "torchvision:STL10", reason, "function", name="torchvision:STL10")


# --- arrays

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
LABELS = np.array([3, 1, 1, 3])


def written(path, **arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(contiguous, path)
    return str(path)


FORMATS = pytest.mark.parametrize("ending", [".npz", ".safetensors"])


@FORMATS
@pytest.mark.parametrize(
    "images, expected",
    [
        (IMAGES, IMAGES.transpose(0, 3, 1, 2)),
        (IMAGES.transpose(0, 3, 1, 2), IMAGES.transpose(0, 3, 1, 2)),
        (IMAGES[..., 0], IMAGES[:, None, ..., 0]),
        (IMAGES[..., :1], IMAGES[:, None, ..., 0]),
    ],
)
def test_arrays_of_bytes(tmp_path, ending, images, expected):
    name = written(tmp_path / f"pets{ending}", images=images, labels=LABELS)
    data = load(name)
    assert data.name == f"pets{ending}" and data.lattice == 1 / 255 and not data.converted
    assert torch.equal(data.images, torch.from_numpy(expected.copy()).float() / 255)
    assert data.classes == ["1", "3"] and data.labels.tolist() == [1, 0, 0, 1]
    assert data.indices == [0, 1, 2, 3]
    data = load(name, every=2)
    assert data.indices == [0, 2] and data.labels.tolist() == [1, 0]
    assert torch.equal(data.images, torch.from_numpy(expected[::2].copy()).float() / 255)


@FORMATS
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 3, 5, 6), (4, 5, 6, 3)])
def test_arrays_of_real_numbers_have_no_lattice(tmp_path, ending, shape):
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    data = load(written(tmp_path / f"pets{ending}", images=images, labels=LABELS))
    expected = torch.from_numpy(images)
    if len(shape) == 3:
        expected = expected[:, None]
    if shape[-1] == 3:
        expected = expected.permute(0, 3, 1, 2)
    assert data.lattice is None and torch.equal(data.images, expected)
    name = written(tmp_path / f"large{ending}", images=images * 255, labels=LABELS)
    refused(ValueError, "float32 in [0, 1]", name=name)


@FORMATS
@pytest.mark.parametrize("keys", ["{split}_images {split}_labels", "x_{split} y_{split}"])
def test_splits_of_arrays(tmp_path, ending, keys):
    arrays = {}
    sizes = {"train": 3, "test": 2}
    for split, size in sizes.items():
        images, labels = keys.format(split=split).split()
        arrays[images] = IMAGES[:size]
        # Keras has them so; the union of both splits is 0, 7, 10, sorted as numbers
        arrays[labels] = np.array([[10], [7], [0]] if split == "train" else [[7], [0]], np.uint8)
    name = written(tmp_path / f"pets{ending}", **arrays)
    for split, labels in {"train": [2, 1, 0], "test": [1, 0]}.items():
        data = load(name, split=split)
        assert data.classes == ["0", "7", "10"] and data.labels.tolist() == labels


@FORMATS
def test_names_of_the_labels_of_arrays(tmp_path, ending):
    name = written(tmp_path / f"pets{ending}", images=IMAGES, labels=LABELS)
    data = load(name, classes=["ant", "bee", "cat", "dog", "eel"])
    assert data.classes == ["ant", "bee", "cat", "dog", "eel"]
    assert data.labels.tolist() == [3, 1, 1, 3]
    parts = ["has label 3", "the labels 0 to 3", "found 3 names"]
    refused(ValueError, *parts, name=name, classes=["ant", "bee", "cat"])
    refused(ValueError, "must be distinct", name=name, classes=["ant", "bee", "cat", "bee"])
    name = written(tmp_path / f"odd{ending}", images=IMAGES, labels=LABELS - 2)
    refused(ValueError, "has label -1", name=name, classes=["ant", "bee"])


@FORMATS
@pytest.mark.parametrize(
    "changes, parts",
    [
        (
            {"images": np.zeros((4, 3, 5, 3), np.uint8)},
            ["images has shape (4, 3, 5, 3)", "both the second and the last", "(N, H, W)"],
        ),
        ({"images": IMAGES[..., :2]}, ["images has shape (4, 5, 6, 2)", "C = 1 or 3"]),
        ({"images": IMAGES[:, 0, :, 0]}, ["images has shape (4, 6)"]),
        ({"images": IMAGES.astype(np.int64)}, ["dtype int64", "uint8 (0 to 255) or float32"]),
        ({"images": IMAGES / 255}, ["dtype float64", "uint8 (0 to 255) or float32"]),
        ({"images": IMAGES[:3]}, ["3 images and 4 labels"]),
        ({"labels": LABELS / 1.0}, ["labels must be (N,) whole numbers", "float64"]),
        ({"labels": np.eye(4, dtype=np.int64)}, ["whole numbers", "shape (4, 4)"]),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, ["has no images"]),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, ending, changes, parts):
    arrays = {"images": IMAGES, "labels": LABELS} | changes
    refused(ValueError, *parts, name=written(tmp_path / f"pets{ending}", **arrays))


@FORMATS
def test_a_split_that_a_file_of_arrays_lacks_is_named(tmp_path, ending):
    name = written(tmp_path / f"pets{ending}", images=IMAGES, labels=LABELS)
    parts = [name, "no train split", "train_images and train_labels or x_train and y_train"]
    refused(FileNotFoundError, *parts, name=name, split="train")
    name = written(tmp_path / f"other{ending}", images=IMAGES)
    refused(FileNotFoundError, name, "no test split", "images and labels", name=name)


@FORMATS
def test_a_missing_damaged_or_scaled_file_of_arrays_is_named(tmp_path, ending):
    path = tmp_path / f"pets{ending}"
    refused(FileNotFoundError, path, "missing", name=str(path))
    name = written(path, images=IMAGES, labels=LABELS)
    refused(ValueError, f"{name}@224", "arrays cannot take", name=f"{name}@224")
    whole = path.read_bytes()
    for length in [0, 1, 5, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(ValueError, path, "truncated", name=name)
    path.write_bytes(b"no array at all")
    refused(ValueError, path, "no file of arrays", name=name)


def test_arrays_that_would_run_code_are_not_read(tmp_path):
    name = str(tmp_path / "pets.npz")
    np.savez(name, images=IMAGES, labels=np.array([{}, {}, {}, {}], dtype=object))
    refused(ValueError, name, "allow_pickle", name=name)


@FORMATS
def test_limits_hold_for_an_image_of_an_array_not_for_the_file(tmp_path, ending):
    limits = Limits(megabytes=1, megapixels=1)
    images = np.zeros((3, 1000, 1000), np.uint8)
    name = written(tmp_path / f"pets{ending}", images=images, labels=LABELS[:3])
    assert len(load(name, limits=limits)) == 3
    images = np.zeros((1, 1000, 1001), np.uint8)
    name = written(tmp_path / f"large{ending}", images=images, labels=LABELS[:1])
    refused(ValueError, "1001 x 1000", "raise limits.megapixels", name=name, limits=limits)


def test_a_listed_file_of_arrays_must_have_its_sum(tmp_path, monkeypatch):
    name = written(tmp_path / "pets.npz", images=IMAGES, labels=LABELS)
    sums = tmp_path / "checksums.txt"
    monkeypatch.setattr(archives, "CHECKSUMS", sums)
    sums.write_text(f"{'0' * 64}  pets.npz\n")
    refused(ValueError, name, "has sha256", name=name)


# --- names

PLACES = [
    ("digits", None),
    ("cifar10", "data/cifar10"),
    ("torchvision:MNIST", "data/mnist"),
    ("torchvision:CIFAR10", "data/cifar10"),
    ("torchvision:GTSRB@32", "data/gtsrb"),
    ("./pets", "pets"),
    ("data/pets@224", "data/pets"),
    ("pets.zip", "pets.zip"),
    ("pets.tgz@32", "pets.tgz"),
    ("pets.tar.bz2", "pets.tar.bz2"),
    ("pets.npz", "pets.npz"),
    ("pets.safetensors", "pets.safetensors"),
    ("/data/pets", "/data/pets"),
]


@pytest.mark.parametrize("name, place", PLACES)
def test_places_of_data_sets(name, place):
    expected = None if place is None else Path("folder") / place
    assert place_of(name, "folder") == expected


def test_makers_of_data_sets():
    for name, _ in PLACES:
        made = name in ("digits", "cifar10")
        assert (maker_of(name) is not None) == made
    with pytest.raises(ValueError, match="'torchvision:MNIST'"):
        maker_of("MNIST")
    assert place_of("ancer.datasets.named:digits", "folder") is None
