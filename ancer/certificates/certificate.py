"""What is proved of one image: a class, and the region in which the smoothed classifier has it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ancer.bases.basis import PIXELS, Basis
from ancer.bases.lattice import arithmetic
from ancer.classifier import Evaluation
from ancer.regions.region import ABSTAIN, Region, described, size, sizes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Certificate:
    """What `certify` proves of one image; radii are true lp norms in the units of the image.

    Args:
        index: the image's number.
        chosen: the class of most selection draws.
        prediction: the same, or ABSTAIN.
        p_a_lower: lower bound on the probability of that class under the noise.
        p_b_upper: upper bound on that of any other.
        gap: half-width of the region in multiples of theta (0 when abstaining).
        center, theta: the image and the noise scale as evaluated, of the coordinates in `basis`.
        norm: 1 or 2.
        votes, n, alpha: votes by class, where there are any, draws and failure probability.
        lattice: the step on which the noise was drawn, None for noise in floating point (not
            floating-point sound).
        evaluation: how the base classifier was evaluated.
        basis: of the noise.

    Example:
        >>> (c,) = certify(nn.Identity(), torch.tensor([[0.9, 0.1]]), GaussianNoise(0.25), n=1000)
        >>> print(c)
        image 0: class 0, l2 radius 0.47..., n = 1,000, alpha = 0.001
        >>> c.region.contains(c.center + 0.1).item()
        True
    """

    index: int
    chosen: int
    prediction: int
    p_a_lower: float
    p_b_upper: float
    gap: float
    center: Tensor
    theta: Tensor
    norm: int
    votes: Mapping[int, int]
    n: int
    alpha: float
    lattice: float | None = None
    evaluation: Evaluation | None = None
    basis: Basis = PIXELS

    @property
    def count(self) -> int:
        """Votes for the class."""
        return self.votes.get(self.chosen, 0)

    @property
    def rival(self) -> int:
        """Votes for the runner-up, the most of any other class."""
        others = dict(self.votes)
        others.pop(self.chosen, None)
        return max(others.values(), default=0)

    @property
    def arithmetic(self) -> str:
        """How noise was added: "lattice <step>", or "not floating-point sound"."""
        return arithmetic(self.lattice)

    def __str__(self) -> str:
        said = described(self.prediction, self.region, self.arithmetic)
        drawn = f"p_A >= {_down(self.p_a_lower)}, n = {self.n:,}, alpha = {self.alpha:g}"
        return f"image {self.index}: {said}, {drawn}"

    __repr__ = __str__

    @property
    def numbers(self) -> dict[str, Any]:
        """All numbers of it by name, votes as text ("3:9811 5:150"): those of a table's row."""
        votes = [f"{name}:{count}" for name, count in sorted(self.votes.items())]
        theta = self.theta.double()
        return {
            "p_a_lower": self.p_a_lower,
            "p_b_upper": self.p_b_upper,
            "chosen": self.chosen,
            "count": self.count,
            "rival": self.rival,
            "votes": " ".join(votes),
            "gap": self.gap,
            **sizes(self.region),
            "theta_min": theta.min().item(),
            "theta_gmean": theta.log().mean().exp().item(),
            "theta_max": theta.max().item(),
            "theta_rms": theta.square().mean().sqrt().item(),
            "n": self.n,
        }

    @property
    def region(self) -> Region | None:
        """The certified region {y: ||Q(y - center) / theta||_p < gap}; None when abstaining.

        Q: the basis.
        """
        if self.prediction == ABSTAIN:
            return None
        axes = self.theta.double() * self.gap
        return Region(self.center.double(), axes, self.norm, self.basis)

    @property
    def radius(self) -> float:
        """Radius of the largest lp ball in the region; 0 when abstaining."""
        return size(self.region, "radius")

    @property
    def proxy_radius(self) -> float:
        """Radius of the lp ball that has the region's volume; 0 when abstaining."""
        return size(self.region, "proxy_radius")

    @property
    def in_box_proxy_radius(self) -> float:
        """Radius of the lp ball of the region's volume inside [0, 1]^n; 0 when abstaining.

        NaN where it is not computed (see `Region.in_box_log_volume`).
        """
        return size(self.region, "in_box_proxy_radius")

    @property
    def log_volume(self) -> float:
        """Natural logarithm of the region's volume; -inf when abstaining."""
        return size(self.region, "log_volume")

    def plot(self) -> "Figure":
        """The image, and theta of each pixel beside it (mean over channels), on a log scale.

        Needs matplotlib. Raises ValueError for what is no picture (C, H, W) with C = 1 or 3, and in
        another basis than pixels.
        """
        import matplotlib.pyplot as plt
        from matplotlib.colors import LogNorm

        shape = tuple(self.center.shape)
        if len(shape) != 3 or shape[0] not in (1, 3) or not self.basis.is_pixels:
            raise ValueError(
                "a plot is of pictures (1 or 3, H, W) with theta of their pixels, "
                f"found shape {shape} in basis {self.basis.name}"
            )
        figure, (left, right) = plt.subplots(1, 2, figsize=(6, 3), layout="constrained")
        image = self.center.permute(1, 2, 0)
        left.imshow(image.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
        theta = self.theta.expand(shape).mean(dim=0)
        shown = right.imshow(theta.numpy(), norm=LogNorm())
        figure.colorbar(shown, ax=right, label="theta (units of the image)")
        for ax in (left, right):
            ax.set_axis_off()
        figure.suptitle(described(self.prediction, self.region, self.arithmetic), fontsize=9)
        return figure


def _down(probability: float) -> str:
    """To four digits, never above it."""
    return f"{math.floor(1e4 * probability) / 1e4:g}"
