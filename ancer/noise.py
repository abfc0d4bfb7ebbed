"""Noise laws: each owns its sampling, its norm, its gap and its scale (section 3 of the paper)."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Noise(ABC):
    """Noise theta * z with a scale theta for each coordinate and z of a fixed, centred unit law.

    theta: scales in the units of x, > 0 and finite: one number for every image, shape (B,) for one number
    an image, or (B, *x.shape[1:]) for one number a coordinate (anisotropic). Raises ValueError otherwise.
    """

    norm: int  # the p of the lp norm in which the law certifies

    def __init__(self, theta: float | Tensor):
        self.theta = _positive(theta)

    @classmethod
    @abstractmethod
    def from_sigma(cls, sigma: float | Tensor) -> "Noise":
        """The law whose coordinates have standard deviation sigma (> 0, units of x)."""

    @property
    @abstractmethod
    def sigma(self) -> Tensor:
        """Standard deviation of each coordinate, shaped like theta."""

    @abstractmethod
    def unit(self, shape: tuple[int, ...], *, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """Draws of the unit law z, on the generator's device."""

    @abstractmethod
    def gap(self, p: Tensor) -> Tensor:
        """Half-width of the certified region in multiples of theta, from a lower bound p on p_A.

        p: in [0, 1], any shape; negative where p < 1/2 (abstain). Differentiable.
        """

    def theta_for(self, x: Tensor) -> Tensor:
        """theta in x's dtype and device, shaped (B, 1, ..., 1) or like x: broadcasts against x (B, ...)."""
        theta = _positive(self.theta, x.dtype).to(x.device)
        if theta.dim() == 0:
            theta = theta.expand(len(x))
        if theta.shape == (len(x),):
            return theta.reshape(-1, *[1] * (x.dim() - 1))
        if theta.dim() == x.dim() and len(theta) == len(x):
            if all(t in (1, s) for t, s in zip(theta.shape, x.shape, strict=True)):
                return theta
        raise ValueError(
            f"theta of shape {tuple(self.theta.shape)} does not fit images of shape {tuple(x.shape)}: "
            f"give one number, ({len(x)},) or {tuple(x.shape)}"
        )

    def __repr__(self):
        return f"{type(self).__name__}(theta={self.theta})"


class GaussianNoise(Noise):
    """N(0, diag(theta^2)), theta = sigma: certifies l2 ellipsoids (theorem 1; Cohen et al. 2019)."""

    norm = 2

    @classmethod
    def from_sigma(cls, sigma):
        return cls(sigma)

    @property
    def sigma(self):
        return self.theta

    def unit(self, shape, *, generator, dtype):
        return torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)

    def gap(self, p):
        return torch.special.ndtri(p)


class UniformNoise(Noise):
    """Uniform on prod [-theta_i, theta_i], theta = lambda: certifies l1 generalized cross-polytopes.

    The only home of the conversion lambda = sqrt(3) * sigma (Yang et al. 2020, 'RS4A', train with it).
    """

    norm = 1

    @classmethod
    def from_sigma(cls, sigma):
        return cls(_positive(sigma) * math.sqrt(3))

    @property
    def sigma(self):
        return self.theta / math.sqrt(3)

    def unit(self, shape, *, generator, dtype):
        return torch.rand(shape, generator=generator, device=generator.device, dtype=dtype).mul_(2).sub_(1)

    def gap(self, p):
        return 2 * p - 1


def _positive(scale: float | Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """`scale` as a floating tensor, of `dtype` if given; ValueError unless it is there > 0 and finite."""
    given = torch.as_tensor(scale).detach()
    given = given if given.is_floating_point() else given.double()
    scale = given if dtype is None else given.to(dtype)
    bad = given[~(torch.isfinite(scale) & (scale > 0))]
    if given.numel() == 0 or bad.numel():
        value = bad.flatten()[0].item() if bad.numel() else "nothing"
        raise ValueError(f"noise scales must be finite and > 0 in {scale.dtype}, found {value}: check sigma or theta")
    return scale


LAWS = {"gaussian": GaussianNoise, "uniform": UniformNoise}
