"""Bases by name, as in params.yaml."""

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch

from ancer.bases.basis import PIXELS, Basis, check_orthonormal, check_shape
from ancer.bases.images import (
    Coloured,
    Nested,
    Separable,
    cosines,
    haar,
    in_blocks,
    square_haar,
)
from ancer.bases.own import rotation
from ancer.registry import find

FORMS = (
    "pixels, dct (of the whole image), dct8 (of blocks of 8x8, or any other that divides it), "
    "haar (all levels; haar2: two), square (Haar's, level by level) or rotation, each with "
    "+colours, and dct8 with +means; or your own, as 'package.module:object'"
)


def basis_named(name: str, shape: Sequence[int]) -> Basis:
    """The basis of a name for images of a shape, (C, H, W).

    - `pixels`: the identity, for images of any shape.
    - `dct8`: cosines of blocks of 8x8 pixels (any size that divides the image); `dct`: of the whole
      image. `dct8+means`: the plane of the blocks' means transformed again, by `dct`.
    - `haar`: Haar's transform of all rows and columns, all levels; `haar2`: two levels. `square`,
      `square2`: rows and columns level by level.
    - `rotation`: a random one.
    - `...+colours`: of light and two opponent colours, (1, 1, 1), (1, 0, -1) and (1, -2, 1)
      normalized, in place of red, green and blue.
    - `package.module:object`: a `Basis` of yours, or a function of the shape that returns one.

    Raises ValueError for another name, or a basis that does not fit the shape.

    Example:
        >>> basis_named("dct8+means+colours", (3, 32, 32))
        <basis dct8+means+colours 3x32x32>
    """
    return _basis_named(name, tuple(shape))


def parsed(name: str) -> tuple[str, int | None, list[str]]:
    """Kind, number and factors of a name of ours; ValueError where it is none."""
    first, *factors = str(name).split("+")
    form = re.fullmatch(r"(pixels|dct|haar|square|rotation)(\d*)", first)
    known = {"means", "colours"}
    if form is None or not set(factors) <= known or len(set(factors)) < len(factors):
        raise ValueError(f"unknown basis {name!r}: it is {FORMS}")
    kind = form[1]
    size = int(form[2]) if form[2] else None
    if kind in ("pixels", "rotation") and size is not None:
        raise ValueError(f"unknown basis {name!r}: {kind} takes no number")
    if "means" in factors and not (kind == "dct" and size):
        raise ValueError(f"basis {name!r}: only blocks of cosines have means, as in 'dct8+means'")
    return kind, size, factors


@lru_cache(maxsize=16)
def _basis_named(name: str, shape: tuple[int, ...]) -> Basis:
    if name == "pixels":
        return PIXELS
    if ":" in name:
        return _own(name, shape)
    kind, size, factors = parsed(name)
    if len(shape) != 3:
        raise ValueError(
            f"basis {name!r} is for images (C, H, W), found shape {shape}: use 'pixels', or one of "
            "your own"
        )
    basis = MAKERS[kind](name, shape, size)
    if "means" in factors:
        basis = _with_means(name, basis, shape, size)
    if "colours" in factors:
        if shape[0] != 3:
            raise ValueError(f"basis {name!r} is for images of 3 colours, found shape {shape}")
        basis = Coloured(name, basis)
    return basis


def _cosines(name: str, shape: tuple[int, ...], size: int | None) -> Basis:
    _, height, width = shape
    if size is None:
        return Separable(name, shape, cosines(height), cosines(width))
    if size < 1 or height % size or width % size:
        raise ValueError(f"basis {name!r}: blocks of {size} do not divide images of {shape}")
    block = cosines(size)
    return Separable(name, shape, in_blocks(block, height), in_blocks(block, width))


def _with_means(name: str, basis: Basis, shape: tuple[int, ...], size: Any) -> Basis:
    channels, height, width = shape
    means = _cosines(name, (channels, height // size, width // size), None)
    return Nested(name, basis, slice(None, None, size), slice(None, None, size), means)


def _haar(name: str, shape: tuple[int, ...], size: int | None) -> Basis:
    levels = _levels(name, shape, size)
    return Separable(name, shape, haar(shape[1], levels), haar(shape[2], levels))


def _square(name: str, shape: tuple[int, ...], size: int | None) -> Basis:
    return square_haar(name, shape, _levels(name, shape, size))


def _levels(name: str, shape: tuple[int, ...], size: int | None) -> int:
    """As many halvings as both sides take, or so many."""
    side = math.gcd(*shape[1:])
    most = (side & -side).bit_length() - 1
    levels = most if size is None else size
    if not 1 <= levels <= most:
        raise ValueError(
            f"basis {name!r}: the sides of images of {shape} can be halved {most} times, found "
            f"{levels} levels"
        )
    return levels


def _pixels(name: str, shape: tuple[int, ...], size: int | None) -> Basis:
    rows, columns = map(torch.eye, shape[1:])
    return Separable(name, shape, rows, columns)


def _rotation(name: str, shape: tuple[int, ...], size: int | None) -> Basis:
    return rotation(shape, name=name)


MAKERS: dict[str, Callable[[str, tuple[int, ...], int | None], Basis]] = {
    "pixels": _pixels,
    "dct": _cosines,
    "haar": _haar,
    "square": _square,
    "rotation": _rotation,
}


def _own(name: str, shape: tuple[int, ...]) -> Basis:
    found: Any = find(name, {}, "basis")
    basis = found if isinstance(found, Basis) else found(shape)
    if not isinstance(basis, Basis):
        raise ValueError(
            f"basis {name!r}: expected an ancer.bases.Basis, or a function of the shape that "
            f"returns one, found {type(basis).__name__}"
        )
    check_shape(basis, shape)
    check_orthonormal(basis)
    return basis
