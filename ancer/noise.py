"""Noise laws: each owns its sampling, its norm, its gap and its scale (section 3 of the paper)."""

import copy
import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from ancer.bases.basis import PIXELS, Basis, check_shape
from ancer.bases.lattice import levels


class Noise(ABC):
    """Noise theta * z with a scale theta for each coordinate and z of a fixed, centred unit law.

    theta: scales in the units of x, > 0 and finite: one number for every image, shape (B,) for one
    number an image, or (B, *x.shape[1:]) for one number a coordinate (anisotropic); (1,
    *x.shape[1:]) where all images share them. Raises ValueError otherwise.
    basis: whose coordinates these are; the pixels themselves by default.
    """

    norm: int  # the p of the lp norm in which the law certifies
    basis: Basis  # in which theta's coordinates are

    def __init__(self, theta: float | Tensor, *, basis: Basis = PIXELS):
        self.theta = positive(theta)
        self.check_basis(basis)
        self.basis = basis

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
    def quantile(self, probability: Tensor) -> Tensor:
        """What the law's theorem compares: odd around 1/2, rising, differentiable; any shape.

        Half the difference of that of p_A and of p_B is the half-width of the certified region in
        multiples of theta.
        """

    @abstractmethod
    def probability(self, gap: Tensor) -> Tensor:
        """The bound on p_A whose gap it is, p_B being 1 - p_A: the inverse of `quantile`.

        1 where none is enough.
        """

    def gap(self, p_a: Tensor, p_b: Tensor | None = None) -> Tensor:
        """Half-width of the certified region in multiples of theta; <= 0 is to abstain.

        p_a: lower bound on the probability of the class; p_b: upper bound on that of any other, at
        most 1 - p_a, which it is by default. Both in [0, 1], broadcast. Differentiable.
        """
        of_one = self.quantile(p_a)
        if p_b is None:
            return of_one
        return torch.maximum(of_one, (of_one - self.quantile(p_b)) / 2)

    @abstractmethod
    def steps(self, theta: Tensor, z: Tensor) -> Tensor:
        """theta * z as whole numbers, in float64.

        z: `unit` draws in float64; theta in lattice steps, as by `snap`; they broadcast.
        """

    @abstractmethod
    def snap(self, theta: Tensor) -> Tensor:
        """The scales nearest to theta, in lattice steps, with which `steps` follows the law."""

    @abstractmethod
    def slack(self, theta: Tensor) -> float:
        """At most the total variation between `steps` for one image and the law.

        theta: of that image, in lattice steps, one number a coordinate.
        """

    def around(
        self,
        y: Tensor,
        theta: Tensor,
        z: Tensor,
        lattice: float | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Noisy copies y + theta * z; z: draws of `unit`. They broadcast.

        y: the images' coordinates in `basis`, as the copies' are.
        lattice: None for sums in floating point; rounding then depends on y, and a network can read
        it off (Voracek and Hein, ICLR 2023). Or the step of y's lattice, and z in float64: whole
        numbers are added, y's and the noise's rounded to it, and one map takes the sum to `dtype`,
        so that a copy depends on nothing but the sum. Without dtype that of y.
        """
        if lattice is None:
            return torch.addcmul(y, theta, z)
        whole = (y.double() / lattice).round() + 0.0  # of 0 and -0, both 0
        noise = self.steps(theta.double() / lattice, z)
        return noise.add_(whole).to(dtype or y.dtype).div_(levels(lattice))

    def theta_for(self, x: Tensor, lattice: float | None = None) -> Tensor:
        """theta as it is sampled round images x (B, ...): (B, 1, ..., 1) or like x.

        In x's dtype and device; on a lattice (its step) in float64, and the nearest that has a
        sampler there. Raises ValueError where theta or the basis does not fit the images.
        """
        check_shape(self.basis, x.shape[1:])
        if lattice is not None:
            return self.snap(self.theta_for(x).double() / lattice) * lattice
        theta = positive(self.theta, x.dtype).to(x.device)
        if theta.dim() == 0:
            theta = theta.expand(len(x))
        if theta.shape == (len(x),):
            return theta.reshape(-1, *[1] * (x.dim() - 1))
        if theta.dim() == x.dim() and len(theta) == 1:
            theta = theta.expand(len(x), *theta.shape[1:])
        if theta.dim() == x.dim() and len(theta) == len(x):
            if all(t in (1, s) for t, s in zip(theta.shape, x.shape, strict=True)):
                return theta
        raise ValueError(
            f"theta of shape {tuple(self.theta.shape)} does not fit images of shape "
            f"{tuple(x.shape)}: give one number, ({len(x)},), {tuple(x.shape)} or "
            f"{(1, *x.shape[1:])}"
        )

    def with_theta(self, theta: float | Tensor) -> "Noise":
        """The same law and basis with other scales, as the constructor takes them."""
        other = copy.copy(self)
        other.theta = positive(theta)
        return other

    def check_basis(self, basis: Basis) -> None:  # noqa: B027, a law may have no objection
        """Raise ValueError for a basis in which the law certifies nothing."""

    def in_basis(self, basis: Basis) -> "Noise":
        """The same noise with its coordinates in another basis.

        Raises ValueError unless theta is one number an image: anisotropic noise is another there;
        and as the constructor does.
        """
        if basis == self.basis:
            return self
        self.check_basis(basis)
        if self.theta.dim() > 1 and self.theta[0].numel() > 1:
            raise ValueError(
                f"noise of one theta a coordinate in basis {self.basis.name} cannot be had in "
                f"basis {basis.name}: choose theta in that basis"
            )
        other = self.with_theta(self.theta)
        other.basis = basis
        return other

    def __repr__(self):
        basis = "" if self.basis.is_pixels else f", basis={self.basis!r}"
        return f"{type(self).__name__}(theta={self.theta}{basis})"


class GaussianNoise(Noise):
    """N(0, diag(theta^2)), theta = sigma: certifies l2 ellipsoids (theorem 1; Cohen et al. 2019).

    In another basis Q, N(0, Q^T diag(theta^2) Q): ellipsoids whose axes are the basis.

    Example:
        >>> p_a = torch.tensor([0.5, 0.975], dtype=torch.float64)
        >>> GaussianNoise(0.25).gap(p_a)
        tensor([0.0000, 1.9600], dtype=torch.float64)
        >>> GaussianNoise(0.25).gap(p_a, p_b=torch.tensor(0.02))
        tensor([1.0269, 2.0069], dtype=torch.float64)
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

    def quantile(self, probability):
        return torch.special.ndtri(probability)

    def probability(self, gap):
        return torch.special.ndtr(gap)

    def steps(self, theta, z):
        # float64: float32 normals end at 5.77, which alone would cost 1e-3 in total variation
        # at n = 150,528
        return (theta * z).round_()

    def snap(self, theta):
        return theta

    def slack(self, theta):
        # assumed, not proved: a float64 normal of torch is within 1e-11 of the law in total
        # variation; and theta * z, rounded to float64, is another whole number with at most this
        return 1e-11 * theta.numel() + 2.0**-51 * theta.sum().item()


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

    def check_basis(self, basis):
        if not basis.is_pixels:
            raise ValueError(
                f"uniform noise certifies l1 in pixels only, found basis {basis.name}: the l1 ball "
                "in a rotated cross-polytope is tiny. Use GaussianNoise there"
            )

    @property
    def sigma(self):
        return self.theta / math.sqrt(3)

    def unit(self, shape, *, generator, dtype):
        z = torch.empty(shape, device=generator.device, dtype=dtype)
        return z.uniform_(-1, 1, generator=generator)

    def quantile(self, probability):
        return 2 * probability - 1

    def probability(self, gap):
        return ((1 + gap) / 2).clamp(max=1)

    def steps(self, theta, z):
        # uniform on [-m - 1/2, m + 1/2], rounded: uniform on the 2m + 1 whole numbers -m..m
        m = (theta - 0.5).round()  # theta / lattice may round to a neighbour of m + 1/2
        return ((z + 1) * (m + 0.5)).floor_().sub_(m)

    def snap(self, theta):
        return (theta - 0.5).round().clamp(min=0) + 0.5

    def slack(self, theta):
        # (z + 1) / 2 is uniform on the multiples of 2^-53: each whole number is off by at most
        # two of them
        return 2.0**-53 * (2 * theta).sum().item()


LAWS = {"gaussian": GaussianNoise, "uniform": UniformNoise}


def gap_of(law: Noise, p_a: np.ndarray, p_b: np.ndarray | None = None) -> np.ndarray:
    """`law.gap` of arrays, in float64."""
    others = None if p_b is None else torch.tensor(p_b, dtype=torch.float64)
    return law.gap(torch.tensor(p_a, dtype=torch.float64), others).numpy()


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
