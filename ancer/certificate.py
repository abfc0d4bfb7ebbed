"""What is proved of one image: a class, and the region in which the smoothed classifier has it."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ancer.bases.basis import PIXELS, Basis
from ancer.bases.lattice import arithmetic
from ancer.classifier import Evaluation
from ancer.regions.region import ABSTAIN, Region, described


@dataclass(frozen=True)
class Certificate:
    """What `certify` proves of one image; radii are true lp norms in the units of the image.

    index: the image's number; chosen: the class of most selection draws; prediction: the same, or
    ABSTAIN; p_a_lower: lower bound on the probability of that class under the noise; p_b_upper:
    upper bound on that of any other; gap: half-width of the region in multiples of theta (0 when
    abstaining); center, theta: the image and the noise scale as evaluated, of the coordinates in
    `basis`; norm: 1 or 2; votes, n, alpha: votes by class, where there are any, draws and failure
    probability; lattice: the step on which the noise was drawn, None for noise in floating point
    (not floating-point sound); evaluation: how the base classifier was evaluated.
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
        others = (votes for label, votes in self.votes.items() if label != self.chosen)
        return max(others, default=0)

    @property
    def arithmetic(self) -> str:
        """How noise was added: "lattice <step>", or "not floating-point sound"."""
        return arithmetic(self.lattice)

    def __str__(self) -> str:
        said = described(self.prediction, self.region, self.arithmetic)
        return f"image {self.index}: {said}, alpha {self.alpha:g}"

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
        return self.region.radius if self.region else 0.0

    @property
    def proxy_radius(self) -> float:
        """Radius of the lp ball that has the region's volume; 0 when abstaining."""
        return self.region.proxy_radius if self.region else 0.0

    @property
    def in_box_proxy_radius(self) -> float:
        """Radius of the lp ball of the region's volume inside [0, 1]^n; 0 when abstaining.

        NaN where it is not computed (see `Region.in_box_log_volume`).
        """
        return self.region.in_box_proxy_radius if self.region else 0.0

    @property
    def log_volume(self) -> float:
        """Natural logarithm of the region's volume; -inf when abstaining."""
        return self.region.log_volume if self.region else float("-inf")
