"""The laws that are sampled: Gaussian noise for l2, uniform for l1 (section 3 of the paper)."""

import math

import torch

from ancer.noise.law import Noise, positive


class GaussianNoise(Noise):
    """N(0, diag(theta^2)), theta = sigma: certifies l2 ellipsoids (theorem 1; Cohen et al. 2019).

    In another basis Q, N(0, Q^T diag(theta^2) Q): ellipsoids whose axes are the basis.

    Args:
        theta: > 0, one number for all coordinates, one an image (B,), or one a coordinate, (1, ...)
            or (B, ...).
        basis: of the coordinates.

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

    Args:
        theta: as of `GaussianNoise`.
        basis: the pixels; another is refused.

    Raises:
        ValueError: for another basis than pixels.

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
