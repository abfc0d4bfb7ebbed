"""Lattices on which noise is added without rounding: of pixels, and of a basis's coefficients."""

import math

import numpy as np
import torch
from torch import Tensor

from ancer.bases.basis import Basis

# of the lattice of coefficients on which noise is exact: images are rounded to it, see
# `rounding_cost`
STEP = 2.0**-16


def step_in(basis: Basis, lattice: float | None) -> float | None:
    """The step of the lattice on which noise is drawn: the pixels' own, or STEP in another basis.

    lattice: of the pixels; None for noise in floating point.
    """
    if lattice is None or basis.is_pixels:
        return lattice
    return STEP


def rounding_cost(step: float, coordinates: int, theta_min: np.ndarray) -> np.ndarray:
    """Of the gap, what rounding images to the lattice of a basis may cost: like theta_min.

    Coefficients of two images are rounded, and computed, so that their difference is off by at
    most one step in each coordinate; in pixels it is exact.
    """
    off = step * (1 + 1e-6)  # float64 computes them to 1e-12
    return off * math.sqrt(coordinates) / theta_min


def arithmetic(lattice: float | None) -> str:
    """How noise is added: "lattice <step>"; without one "not floating-point sound".

    Then rounding in x + theta * z can tell an adversarial network the image (see `certify`).
    """
    if lattice is None:
        return "not floating-point sound"
    return f"lattice {lattice:.17g}"


def levels(lattice: float) -> int:
    """The whole number of steps from 0 to 1; ValueError where there is none."""
    whole = 0
    if 0 < lattice <= 1:
        whole = round(1 / lattice)
    if whole < 1 or abs(lattice * whole - 1) > 1e-9:
        raise ValueError(
            f"lattice must be 1 / a whole number (8-bit images: 1/255), found {lattice!r}"
        )
    return whole


def nearest(x: Tensor, lattice: float) -> Tensor:
    """x with each pixel moved to the nearest level, as a file of the picture has it."""
    whole = levels(lattice)
    return divided((x.double() * whole).round().to(x.dtype), whole)


def divided(steps: Tensor, whole: int) -> Tensor:
    """steps / whole, each rounded once, on any device; `steps` is overwritten.

    By a number CUDA does not divide: it multiplies by the number's rounded inverse.
    """
    if steps.dtype in (torch.float32, torch.float64):
        return steps.div_(steps.new_full((), whole))
    return steps.div_(whole)  # a narrower one may not hold `whole`


def step_of(exact: bool, lattice: float | None) -> float | None:
    """The lattice of noise that is added exactly, of other noise None; ValueError without one."""
    if exact and lattice is None:
        raise ValueError(
            "exact=True needs the step of the images' lattice (8-bit images: 1/255), found "
            "lattice=None: give it, or exact=False"
        )
    return lattice if exact else None


def check_on_lattice(x: Tensor, lattice: float) -> None:
    """Raise ValueError unless every pixel of x is k / levels, k whole, as floating point has it."""
    whole = levels(lattice)
    off = x[nearest(x, lattice) != x]
    if off.numel():
        raise ValueError(
            f"pixel {off[0].item()!r} is not on the lattice 1/{whole}: give the images' own "
            "lattice, or exact=False (then the certificates are not floating-point sound)"
        )
