"""Random splits of every pixel's range: l1 certificates without chance.

A. Levine and S. Feizi, "Improved, Deterministic Smoothing for l1 Certified Robustness" (ICML 2021),
for scales of the pixels' own.
"""

import torch
from torch import Tensor

from ancer.bases.lattice import divided, levels
from ancer.noise.sampled import UniformNoise


class SplittingNoise(UniformNoise):
    """Each pixel's range is cut into intervals, and the network sees in which one the pixel lies.

    An interval is 2 * theta_i wide, theta_i = lambda_i; where it starts is uniform. Two images are
    cut apart at pixel i with probability |x_i - y_i| / (2 theta_i), so that whatever the joint law
    of the cuts, the probability of any class differs by at most ||(x - y) / theta||_1 / 2: the
    region is that of uniform noise, a generalized cross-polytope, with the same gap p_A - p_B.

    Args:
        theta: as of `Noise`; the nearest M lattice / (2 c) are taken (`snap`).
        lattice: the step of the pixels, 1/255 for 8-bit images.
        more: `basis`, which must be the pixels.

    Guarantee:
        On images whose pixels are k * lattice, k whole, the cuts can be counted: a clock has M
        ticks, M = 2 max(theta) / lattice, and pixel i is cut by c_i = M lattice / (2 theta_i), a
        whole number, so that every step between two levels is cut at exactly c_i of the M ticks. M
        forward passes give p_A and p_B themselves: certificates have alpha = 0 and hold with
        certainty, for all images on the lattice in their region. No rounding is involved, as a copy
        depends on nothing but whole numbers.

    Raises:
        ValueError: outside these domains, and for another basis than pixels.

    Example:
        >>> noise = SplittingNoise(0.25, lattice=1 / 16)
        >>> noise.ticks(torch.tensor([[4.0]]))
        tensor([[8.]], dtype=torch.float64)
    """

    deterministic = True

    def __init__(self, theta: float | Tensor, *, lattice: float | None = 1 / 255, **more):
        super().__init__(theta, **more)
        if lattice is None:
            raise ValueError(
                "random splits are counted on images whose pixels have levels, and these have none "
                "(floating-point data): use UniformNoise"
            )
        levels(lattice)  # refuses what is none
        self.lattice = lattice

    @classmethod
    def from_sigma(cls, sigma, *, lattice=1 / 255):
        return cls(UniformNoise.from_sigma(sigma).theta, lattice=lattice)

    def phases(self, shape: tuple[int, ...]) -> Tensor:
        """By how much of a turn the clock of each pixel of an image is ahead: `shape`, in [0, 1).

        Any that are fixed are sound: they are part of the classifier, like its weights, which are
        trained under them. These are spread evenly (the additive recurrence of the generalized
        golden section), so that at each tick pixels are cut that lie all over the image.
        """
        long = [k for k, size in enumerate(shape) if size > 1]
        golden = 2.0
        for _ in range(64):  # the root of g^(d + 1) = g + 1
            golden = (1 + golden) ** (1 / (len(long) + 1))
        turns = torch.zeros(shape, dtype=torch.float64)
        for power, k in enumerate(reversed(long), start=1):
            along = torch.arange(shape[k]).reshape(-1, *[1] * (len(shape) - k - 1))
            turns += along * golden**-power
        return turns % 1

    def ticks(self, theta):
        largest = theta.double().flatten(1).amax(dim=1)
        return (2 * largest).round().clamp(min=1).reshape(-1, *[1] * (theta.dim() - 1))

    def cuts(self, theta: Tensor) -> Tensor:
        """c: how many of the ticks cut a step between two levels; theta in lattice steps."""
        ticks = self.ticks(theta)
        return (ticks / (2 * theta.double())).round().clamp(min=1).minimum(ticks)

    def snap(self, theta):
        return self.ticks(theta) / (2 * self.cuts(theta))

    def slack(self, theta):
        return 0.0  # all draws are counted

    def around(self, y, theta, z, lattice=None, dtype=None):
        """The middle of each pixel's interval, inside [0, 1]; on `self.lattice` always.

        z in [-1, 1): the clock of a pixel stands at tick (z + 1) / 2 of M.
        """
        whole = levels(self.lattice)
        theta = theta.double() / self.lattice
        ticks = self.ticks(theta)
        cuts = self.cuts(theta)
        tick = ((z.double() + 1) / 2 * ticks).floor_().minimum(ticks - 1)
        # 1. the interval that holds level k ends at multiples of M, tick and a half past, over c
        level = (y.double() / self.lattice).round()
        start = ((level * cuts - tick - 1) / ticks).floor_().mul_(ticks).add_(tick).add_(0.5)
        # 2. its middle
        low = (start / cuts).clamp_(min=0)
        high = ((start + ticks) / cuts).clamp_(max=whole)
        return divided(((low + high) / 2).to(dtype or y.dtype), whole)

    def relaxed(self, y, theta, z):
        theta = theta.to(y.dtype)
        turn = (self._on_the_clock(z) + 1) / 2
        # where the pixel lies in its interval stays as it is when theta moves
        place = (y / (2 * theta.detach()) - turn) % 1
        middle = y + theta * (1 - 2 * place)
        return ((middle - theta).clamp(min=0) + (middle + theta).clamp(max=1)) / 2

    def added(self, x, theta, z):
        return self.around(x, theta, self._on_the_clock(z)) - x

    def _on_the_clock(self, z: Tensor) -> Tensor:
        """The first of each row's draws z (rows, ...), and what the other pixels see with it."""
        rows = z.flatten(1)[:, :1].reshape(-1, *[1] * (z.dim() - 1))
        return (((rows + 1) / 2 + self.phases(z.shape[1:]).to(z)) % 1) * 2 - 1

    def __repr__(self):
        return f"SplittingNoise(theta={self.theta}, lattice={self.lattice:g})"
