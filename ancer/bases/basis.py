"""What a basis is: an orthonormal change of coordinates, one for a classifier.

Smoothing f(Q^T .) with scales theta of the coefficients Qx is smoothing f with N(0, Q^T
diag(theta^2) Q): the theorem of ellipsoids holds as it stands, with ||Q(x' - x) / theta||_2 < gap.
As Q is orthonormal, radius, volume and proxy radius mean what they mean in pixels. It must be one Q
for all images: one that depended on the image would be another classifier for each.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

TOLERANCE = 1e-9  # up to which a basis must be orthonormal


class Basis(ABC):
    """An orthonormal basis of images of one shape.

    name: as in params.yaml. shape: of the images, (C, H, W) or any other; coefficients have the
    same shape. key: what tells it from every other basis.

    Example:
        >>> from ancer.bases import basis_named
        >>> basis = basis_named("dct4+colours", (3, 8, 8))
        >>> x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
        >>> torch.allclose(basis.back(basis.to(x)), x)
        True
    """

    name: str
    shape: tuple[int, ...]

    @abstractmethod
    def to(self, x: Tensor) -> Tensor:
        """Coefficients of images (..., *shape): like x, in its numbers."""

    @abstractmethod
    def back(self, y: Tensor) -> Tensor:
        """The images of coefficients (..., *shape): the inverse and transpose of `to`."""

    @property
    def key(self) -> str:
        """Name and shape; of a basis that was fitted or is yours, a hash of it too."""
        return f"{self.name} {'x'.join(map(str, self.shape))}"

    @property
    def is_pixels(self) -> bool:
        """Whether coefficients are the pixels themselves."""
        return False

    def __eq__(self, other):
        return isinstance(other, Basis) and other.key == self.key

    def __hash__(self):
        return hash(self.key)

    def __repr__(self):
        return f"<basis {self.key}>"


class Pixels(Basis):
    """The identity, for images of any shape: theta is a scale of each pixel."""

    name = "pixels"
    shape = ()

    def to(self, x):
        return x

    def back(self, y):
        return y

    @property
    def key(self):
        return self.name

    @property
    def is_pixels(self):
        return True


PIXELS = Pixels()


def check_basis(basis: object) -> None:
    """Raise ValueError for what is no basis, such as the name of one."""
    if not isinstance(basis, Basis):
        raise ValueError(
            f"basis must be a Basis, found {basis!r}: ancer.bases.basis_named(name, image.shape)"
        )


def check_shape(basis: Basis, shape: Sequence[int]) -> None:
    """Raise ValueError unless the basis is one of images of this shape."""
    if not basis.is_pixels and tuple(shape) != tuple(basis.shape):
        raise ValueError(
            f"basis {basis.name} is for images of shape {tuple(basis.shape)}, found "
            f"{tuple(shape)}: make it for theirs"
        )


def probes(shape: Sequence[int]) -> Tensor:
    """Random images of a shape, always the same: (8, *shape) in float64."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn((8, *shape), generator=generator, dtype=torch.float64)


def check_orthonormal(basis: Basis) -> None:
    """Raise ValueError unless `to` is linear and keeps lengths, and `back` is its inverse.

    On random images, in float64, to 1e-9: a map that is not orthonormal passes with probability 0,
    unless it was made to.
    """
    x = probes(basis.shape)
    y = basis.to(x)
    if not isinstance(y, Tensor) or y.shape != x.shape or y.dtype != x.dtype:
        found = f"{tuple(y.shape)}, {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"basis {basis.name}: coefficients must be like the images, {tuple(x.shape)} in "
            f"float64, found {found}"
        )
    size = x.abs().max().item()
    lengths = x.flatten(1).norm(dim=1)
    errors = {
        "change lengths": y.flatten(1).norm(dim=1) - lengths,
        "are not linear": basis.to(2 * x - x.flip(0)) - (2 * y - y.flip(0)),
        "are not inverted by `back`": basis.back(y) - x,
        "do not invert `back`": basis.to(basis.back(x)) - x,
    }
    for problem, error in errors.items():
        off = error.abs().max().item()
        if not off <= TOLERANCE * size * len(lengths):
            raise ValueError(
                f"basis {basis.name}: coefficients {problem} (by {off:.2g}): give an orthonormal "
                "one, in float64"
            )
