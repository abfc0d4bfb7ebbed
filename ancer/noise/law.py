"""What a noise law owns: its sampling, its norm, its gap and its scale (section 3 of the paper)."""

import copy
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from ancer.bases.basis import PIXELS, Basis, check_basis, check_shape
from ancer.bases.lattice import divided, levels


class Noise(ABC):
    """Noise theta * z with a scale theta for each coordinate and z of a fixed, centred unit law.

    theta: scales in the units of x, > 0 and finite: one number for every image, shape (B,) for one
    number an image, or (B, *x.shape[1:]) for one number a coordinate (anisotropic); (1,
    *x.shape[1:]) where all images share them. Raises ValueError otherwise.
    basis: whose coordinates these are; the pixels themselves by default.
    """

    norm: int  # the p of the lp norm in which the law certifies
    basis: Basis  # in which theta's coordinates are
    lattice: float | None = None  # of the images, where the law is one of whole levels
    deterministic = False  # whether its draws are so few that all are counted: `ticks`

    def __init__(self, theta: float | Tensor, *, basis: Basis = PIXELS):
        self.theta = positive(theta)
        check_basis(basis)
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

    def ticks(self, theta: Tensor) -> Tensor:
        """How many equally likely draws there are of a deterministic law: (B, 1, ..., 1), whole.

        theta: in lattice steps, the images first.
        """
        raise TypeError(f"{type(self).__name__} has endlessly many draws")

    def relaxed(self, y: Tensor, theta: Tensor, z: Tensor) -> Tensor:
        """Noisy copies round coordinates y, differentiable in theta; they broadcast.

        For optimizers, which propose: near enough to `around`, without a lattice.
        """
        return y + theta * z

    def added(self, x: Tensor, theta: Tensor, z: Tensor) -> Tensor:
        """What the noise adds to images x (B, ...) in training; z: `unit` draws, overwritten."""
        return self.basis.back(z.mul_(theta))

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
        return divided(noise.add_(whole).to(dtype or y.dtype), levels(lattice))

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


def gap_of(law: Noise, p_a: np.ndarray, p_b: np.ndarray | None = None) -> np.ndarray:
    """`law.gap` of arrays, in float64."""
    others = None if p_b is None else torch.tensor(p_b, dtype=torch.float64)
    return law.gap(torch.tensor(p_a, dtype=torch.float64), others).numpy()


def check_noise(noise: object) -> None:
    """Raise TypeError unless it is a noise; a number is most likely a Gaussian's sigma."""
    if not isinstance(noise, Noise):
        fix = f"GaussianNoise({noise!r})" if isinstance(noise, float) else "GaussianNoise(sigma)"
        raise TypeError(f"noise must be a noise, such as {fix}, found {noise!r}")


def positive(scale: float | Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """`scale` as a floating tensor, of `dtype` if given; ValueError unless > 0 and finite there."""
    if scale is None or isinstance(scale, str):
        raise ValueError(f"noise scales must be numbers, found {scale!r}")
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
