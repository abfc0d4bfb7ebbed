"""Images from their bytes to tensors; what their modes are taken for."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ancer.datasets.limits import Limits

if TYPE_CHECKING:
    from PIL.Image import Image

# those that begin with bytes of their own, and run no other program
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
AS_THEY_ARE = ("L", "RGB")
SCALED = (*AS_THEY_ARE, "CMYK")  # as torchvision reads ImageNet
SIXTEEN = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # "I" is of 32 bits, and has 16 in some formats
CONVERTED = (*SCALED, *SIXTEEN, "1", "P", "LA", "PA", "RGBA", "YCbCr")


def is_image(head: bytes) -> bool:
    """Whether a file that begins with these bytes is an image of one of FORMATS."""
    from PIL import Image as images

    images.init()
    prefix = head.ljust(16, b"\0")
    for name in FORMATS:
        _, accepts = images.OPEN[name]
        assert accepts is not None  # of all of FORMATS
        if accepts(prefix):
            return True
    return False


@dataclass(frozen=True)
class Decoder:
    """What images are taken for: see `loading.load`."""

    size: int | None
    convert: bool
    limits: Limits

    def decoded(self, file: Path, content: bytes) -> Tensor:
        """An image file as uint8, (1, H, W) for grey and (3, H, W) for RGB."""
        from PIL import Image as images

        with _naming_broken(file):
            image = images.open(BytesIO(content), formats=FORMATS)
        self.limits.check_pixels(file, *image.size)
        deep = ";16" in str(image.tile)  # which Pillow shortens to 8 bits without a word
        with _naming_broken(file):
            image.load()
        return self.taken(file, image, deep)

    def taken(self, file: Path, image: "Image", deep: bool = False) -> Tensor:
        """A decoded image, likewise; deep: its file has 16 bits."""
        from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

        self._check_mode(file, image, deep)
        if self.convert:
            image = _composed(_eight_bits(file, image))
        if self.size or self.convert:
            image = image.convert("RGB")
        if self.size:
            image = center_crop(resize(image, round(self.size * 256 / 224)), [self.size, self.size])
        return pil_to_tensor(image)

    def _check_mode(self, file: Path, image: "Image", deep: bool) -> None:
        transparent = image.has_transparency_data
        allowed = SCALED if self.size else AS_THEY_ARE
        if image.mode in allowed and not transparent and not deep:
            return
        convertible = image.mode in CONVERTED
        if transparent and image.mode in SIXTEEN:  # Pillow cannot tell where
            convertible = False
        if self.convert and convertible:
            return
        depth = " of 16 bits" if deep and image.mode not in SIXTEEN else ""
        alpha = " with transparency" if transparent else ""
        way = ", or set convert: true" if convertible else ""
        raise ValueError(f"{file} has mode {image.mode}{depth}{alpha}: convert to RGB{way}")

    def stacked(self, name: str, images: Iterable[tuple[Path, Tensor]]) -> Tensor:
        """Images (M, C, H, W), float32 on the lattice 1/255, of a data set `name`.

        Raises ValueError that names the first one whose size or mode is another.
        """
        pixels: list[Tensor] = []
        first = Path()
        for file, image in images:
            if not pixels:
                first = file
            elif image.shape != pixels[0].shape:
                raise ValueError(_difference(name, file, image, first, pixels[0]))
            pixels.append(image)
        return torch.stack(pixels).float().div_(255)


def _difference(name: str, file: Path, image: Tensor, first: Path, other: Tensor) -> str:
    if image.shape[1:] != other.shape[1:]:
        return (
            f"{file} is {_width_height(image)}, {first} is {_width_height(other)}: "
            f"give all images one size, or name the data set '{name}@224' to scale and crop them"
        )
    modes = {1: "grey", 3: "RGB"}
    return (
        f"{file} is {modes[len(image)]}, {first} is {modes[len(other)]}: "
        "give all images one mode, or set convert: true to take all as RGB"
    )


def _width_height(image: Tensor) -> str:
    _, height, width = image.shape
    return f"{width} x {height}"


def _eight_bits(file: Path, image: "Image") -> "Image":
    """A 16-bit grey image divided by 257, rounded: 65535 becomes 255."""
    from PIL import Image as images

    if image.mode not in SIXTEEN:
        return image
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(
            f"{file} has values from {values.min()} to {values.max()}, outside 16 bits: "
            "convert to RGB"
        )
    return images.fromarray(((values + 128) // 257).astype(np.uint8))


def _composed(image: "Image") -> "Image":
    """An image with transparency, put on white."""
    from PIL import Image as images

    if not image.has_transparency_data:
        return image
    white = images.new("RGBA", image.size, "white")
    return images.alpha_composite(white, image.convert("RGBA"))


@contextmanager
def _naming_broken(file: Path) -> Iterator[None]:
    """Turn an error of the decoder into one that names the file."""
    from PIL import Image as images

    try:
        yield
    except (OSError, SyntaxError, ValueError, images.DecompressionBombError) as error:
        raise ValueError(f"{file} is no image or a broken one ({error}): replace it") from error
