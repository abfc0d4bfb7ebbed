"""Noise laws: each owns its sampling, its norm, its gap and its scale (section 3 of the paper)."""

import copy
import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor


class Noise(ABC):
    """Noise theta * z with a scale theta for each coordinate and z of a fixed, centred unit law.

    theta: scales in the units of x, > 0 and finite: one number for every image, shape (B,) for one
    number an image, or (B, *x.shape[1:]) for one number a coordinate (anisotropic). Raises
    ValueError otherwise.
    """

    norm: int  # the p of the lp norm in which the law certifies

    def __init__(self, theta: float | Tensor):
        self.theta = positive(theta)

    @classmethod
    @abstractmethod
    def from_sigma(cls, sigma: float | Tensor) -> "Noise":
        """The law whose coordinates have standard deviation sigma (> 0, units of x)."""

    @property
    @abstractmethod
    def sigma(self) -> Tensor:
        """Standard deviation of each coordinate, shaped like theta."""

    @abstractmethod
    def unit(
        self, shape: tuple[int, ...], *, generator: torch.Generator, dtype: torch.dtype
    ) -> Tensor:
        """Draws of the unit law z, on the generator's device."""

    @abstractmethod
    def gap(self, probability: Tensor) -> Tensor:
        """Half-width of the certified region in multiples of theta, from a lower bound on p_A.

        probability: in [0, 1], any shape; the gap is negative below 1/2 (abstain). Differentiable.
        """

    @abstractmethod
    def probability(self, gap: Tensor) -> Tensor:
        """The bound on p_A whose gap it is: the inverse of `gap`; 1 where none is enough."""

    @abstractmethod
    def steps(self, theta: Tensor, z: Tensor) -> Tensor:
        """theta * z as whole numbers, in place of z.

        z: `unit` draws in float64; theta in lattice steps, as by `snap`.
        """

    @abstractmethod
    def snap(self, theta: Tensor) -> Tensor:
        """The scales nearest to theta, in lattice steps, with which `steps` follows the law."""

    @abstractmethod
    def slack(self, theta: Tensor) -> float:
        """At most the total variation between `steps` for one image and the law.

        theta: of that image, in lattice steps, one number a coordinate.
        """

    def around(self, x: Tensor, theta: Tensor, z: Tensor, lattice: float | None = None) -> Tensor:
        """Noisy copies x + theta * z, in place of z, draws of `unit`; x and theta broadcast to it.

        lattice: None for sums in floating point; rounding then depends on x, and a network can read
        x off it (Voracek and Hein, ICLR 2023). Or the step of x's lattice, and z in float64: whole
        numbers are added, x's and the noise's rounded to it, and one map takes the sum to floating
        point, so that a copy depends on nothing but the sum.
        """
        if lattice is None:
            return z.mul_(theta).add_(x)
        pixels = (x.double() / lattice).round() + 0.0  # of 0 and -0, both 0
        noise = self.steps(theta.double() / lattice, z)
        return noise.add_(pixels).to(x.dtype).div_(levels(lattice))

    def theta_for(self, x: Tensor, lattice: float | None = None) -> Tensor:
        """theta as it is sampled round images x (B, ...): (B, 1, ..., 1) or like x.

        In x's dtype and device; on a lattice (its step) in float64, and the nearest that has a
        sampler there. Raises ValueError where theta does not fit the images.
        """
        if lattice is not None:
            return self.snap(self.theta_for(x).double() / lattice) * lattice
        theta = positive(self.theta, x.dtype).to(x.device)
        if theta.dim() == 0:
            theta = theta.expand(len(x))
        if theta.shape == (len(x),):
            return theta.reshape(-1, *[1] * (x.dim() - 1))
        if theta.dim() == x.dim() and len(theta) == len(x):
            if all(t in (1, s) for t, s in zip(theta.shape, x.shape, strict=True)):
                return theta
        raise ValueError(
            f"theta of shape {tuple(self.theta.shape)} does not fit images of shape "
            f"{tuple(x.shape)}: give one number, ({len(x)},) or {tuple(x.shape)}"
        )

    def with_theta(self, theta: float | Tensor) -> "Noise":
        """The same law with other scales, as the constructor takes them."""
        other = copy.copy(self)
        other.theta = positive(theta)
        return other

    def __repr__(self):
        return f"{type(self).__name__}(theta={self.theta})"


class GaussianNoise(Noise):
    """N(0, diag(theta^2)), theta = sigma: certifies l2 ellipsoids (theorem 1; Cohen et al. 2019).

    Example:
        >>> GaussianNoise(0.25).gap(torch.tensor([0.5, 0.975], dtype=torch.float64))
        tensor([0.0000, 1.9600], dtype=torch.float64)
    """

    norm = 2

    @classmethod
    def from_sigma(cls, sigma):
        return cls(sigma)

    @property
    def sigma(self):
        return self.theta

    def unit(self, shape, *, generator, dtype):
        return torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)

    def gap(self, probability):
        return torch.special.ndtri(probability)

    def probability(self, gap):
        return torch.special.ndtr(gap)

    def steps(self, theta, z):
        # float64: float32 normals end at 5.77, which alone would cost 1e-3 in total variation
        # at n = 150,528
        return z.mul_(theta).round_()

    def snap(self, theta):
        return theta

    def slack(self, theta):
        # assumed, not proved: a float64 normal of torch is within 1e-11 of the law in total
        # variation
        return 1e-11 * theta.numel()


class UniformNoise(Noise):
    """Uniform on prod [-theta_i, theta_i], theta = lambda: certifies l1 cross-polytopes.

    The only home of the conversion lambda = sqrt(3) * sigma (Yang et al. 2020, 'RS4A', train with
    it).

    Example:
        >>> UniformNoise.from_sigma(1.0).theta
        tensor(1.7321)
    """

    norm = 1

    @classmethod
    def from_sigma(cls, sigma):
        return cls(positive(sigma) * math.sqrt(3))

    @property
    def sigma(self):
        return self.theta / math.sqrt(3)

    def unit(self, shape, *, generator, dtype):
        z = torch.empty(shape, device=generator.device, dtype=dtype)
        return z.uniform_(-1, 1, generator=generator)

    def gap(self, probability):
        return 2 * probability - 1

    def probability(self, gap):
        return ((1 + gap) / 2).clamp(max=1)

    def steps(self, theta, z):
        # uniform on [-m - 1/2, m + 1/2], rounded: uniform on the 2m + 1 whole numbers -m..m
        m = (theta - 0.5).round()  # theta / lattice may round to a neighbour of m + 1/2
        return z.add_(1).mul_(m + 0.5).floor_().sub_(m)

    def snap(self, theta):
        return (theta - 0.5).round().clamp(min=0) + 0.5

    def slack(self, theta):
        # (z + 1) / 2 is uniform on the multiples of 2^-53: each whole number is off by at most
        # two of them
        return 2.0**-53 * (2 * theta).sum().item()


LAWS = {"gaussian": GaussianNoise, "uniform": UniformNoise}


def gap_of(law: Noise, probability: np.ndarray) -> np.ndarray:
    """`law.gap` of an array, in float64."""
    return law.gap(torch.tensor(probability, dtype=torch.float64)).numpy()


def probability_of(law: Noise, gap: np.ndarray) -> np.ndarray:
    """`law.probability` of an array, in float64."""
    return law.probability(torch.tensor(gap, dtype=torch.float64)).numpy()


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


def check_on_lattice(x: Tensor, lattice: float) -> None:
    """Raise ValueError unless every pixel of x is k / levels, k whole, as floating point has it."""
    whole = levels(lattice)
    nearest = (x.double() * whole).round().to(x.dtype).div(whole)
    off = x[nearest != x]
    if off.numel():
        raise ValueError(
            f"pixel {off[0].item()!r} is not on the lattice 1/{whole}: give the images' own "
            "lattice, or exact=False (then the certificates are not floating-point sound)"
        )


def positive(scale: float | Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """`scale` as a floating tensor, of `dtype` if given; ValueError unless > 0 and finite there."""
    given = torch.as_tensor(scale).detach()
    if not given.is_floating_point():
        given = given.double()
    scale = given if dtype is None else given.to(dtype)
    bad = given[~(torch.isfinite(scale) & (scale > 0))]
    if given.numel() == 0 or bad.numel():
        value = bad.flatten()[0].item() if bad.numel() else "nothing"
        raise ValueError(
            f"noise scales must be finite and > 0 in {scale.dtype}, found {value}: "
            "check sigma or theta"
        )
    return scale
