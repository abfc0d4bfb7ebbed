"""What happens to pictures: families of perturbations.

A family maps an image x and a severity s to x(s), with x(0) = x and all pixels kept in [0, 1].
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F


@dataclass(frozen=True)
class Family:
    """Perturbations of one kind.

    label: what it does, in words; unit: of the severity. severities: > 0, ascending; tried in turn.
    shown: three of them, for tables. apply: (images (B, C, H, W) in [0, 1], severity) -> images.
    colour: needs three channels. linear: x(s) = x + s (x(1) - x), up to the last severity.
    """

    label: str
    unit: str
    severities: tuple[float, ...]
    shown: tuple[float, float, float]
    apply: Callable[[Tensor, float], Tensor]
    colour: bool = False
    linear: bool = False

    @property
    def heading(self) -> str:
        """What it does, and the unit of its severity."""
        return f"{self.label} ({self.unit})"

    def __call__(self, images: Tensor, severity: float) -> Tensor:
        """The images at a severity, like them and in [0, 1]."""
        return self.apply(images, severity).clamp(0, 1)


def families_for(shape: tuple[int, ...]) -> dict[str, Family]:
    """Those that make sense for images of a shape (C, H, W): with colour where there is colour."""
    if len(shape) != 3:
        return {}
    return {name: f for name, f in FAMILIES.items() if shape[0] == 3 or not f.colour}


def _brighter(x: Tensor, s: float) -> Tensor:
    return x + s


def _darker(x: Tensor, s: float) -> Tensor:
    return x - s


def _less_contrast(x: Tensor, s: float) -> Tensor:
    return F.adjust_contrast(x, 1 - s)


def _less_colour(x: Tensor, s: float) -> Tensor:
    return F.adjust_saturation(x, 1 - s)


def _cast(x: Tensor, s: float) -> Tensor:
    """Warmer: red up, blue down."""
    return x + s * torch.tensor([1.0, 0.0, -1.0], dtype=x.dtype, device=x.device)[:, None, None]


def _hue(x: Tensor, s: float) -> Tensor:
    return F.adjust_hue(x, s)


def _blur(x: Tensor, s: float) -> Tensor:
    # three standard deviations each way, within what reflection at the border allows
    reach = min(math.ceil(3 * s), min(x.shape[-2:]) - 1)
    return F.gaussian_blur(x, [2 * reach + 1] * 2, [s, s])


def _jpeg(x: Tensor, s: float) -> Tensor:
    """By Pillow: torchvision's own coding is to be removed."""
    coded = []
    for image in (255 * x).round().to(torch.uint8).cpu():
        file = io.BytesIO()
        F.to_pil_image(image).save(file, format="JPEG", quality=round(100 - s))
        coded.append(F.pil_to_tensor(Image.open(file)))
    return (torch.stack(coded) / 255).to(x)


def _noise(x: Tensor, s: float) -> Tensor:
    """One pattern for all images: the family is a line, and no result depends on the batch."""
    generator = torch.Generator().manual_seed(0)
    pattern = torch.randn(x.shape[1:], generator=generator).to(x)
    return x + s * pattern


def _rotated(x: Tensor, s: float) -> Tensor:
    return _moved(x, angle=s, right=0.0)


def _shifted(x: Tensor, s: float) -> Tensor:
    return _moved(x, angle=0.0, right=s)


def _moved(x: Tensor, *, angle: float, right: float) -> Tensor:
    """Turned by degrees and moved by pixels; what comes in repeats the border."""
    margin = max(x.shape[-2:]) // 2
    padded = F.pad(x, [margin] * 4, padding_mode="edge")
    turned = F.affine(
        padded,
        angle=angle,
        translate=[right, 0.0],
        scale=1.0,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    return F.center_crop(turned, list(x.shape[-2:]))


def _grid(first: float, last: float, count: int = 32) -> tuple[float, ...]:
    """Severities evenly spaced in their logarithm, to three digits."""
    return tuple(float(f"{s:.3g}") for s in np.geomspace(first, last, count))


FAMILIES = {
    "brighter": Family("brighter", "of white", _grid(0.002, 0.5), (0.01, 0.05, 0.2), _brighter),
    "darker": Family("darker", "of white", _grid(0.002, 0.5), (0.01, 0.05, 0.2), _darker),
    "contrast": Family(
        "less contrast", "share", _grid(0.01, 1), (0.05, 0.1, 0.3), _less_contrast, linear=True
    ),
    "saturation": Family(
        "less colour",
        "share",
        _grid(0.01, 1),
        (0.1, 0.3, 1.0),
        _less_colour,
        colour=True,
        linear=True,
    ),
    "cast": Family(
        "warmer cast", "of white", _grid(0.002, 0.5), (0.01, 0.05, 0.2), _cast, colour=True
    ),
    "hue": Family("hue", "turns", _grid(0.002, 0.5), (0.01, 0.05, 0.2), _hue, colour=True),
    "blur": Family("Gaussian blur", "sigma, pixels", _grid(0.2, 2), (0.3, 0.5, 0.8), _blur),
    "jpeg": Family("JPEG", "100 - quality", tuple(range(2, 98, 3)), (8, 32, 62), _jpeg),
    "noise": Family("Gaussian noise", "sigma", _grid(0.001, 0.3), (0.005, 0.02, 0.1), _noise),
    "rotation": Family("rotation", "degrees", _grid(0.1, 20), (0.5, 2.0, 10.0), _rotated),
    "shift": Family("shift", "pixels", _grid(0.01, 2), (0.05, 0.2, 1.0), _shifted),
}
