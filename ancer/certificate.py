"""What is proved of one image: a class, and the region in which the smoothed classifier has it."""

from dataclasses import dataclass

from torch import Tensor

from ancer.bases.basis import PIXELS, Basis
from ancer.bases.lattice import arithmetic
from ancer.classifier import Evaluation
from ancer.regions.region import ABSTAIN, Region, described


@dataclass(frozen=True)
class Certificate:
    """What `certify` proves of one image; radii are true lp norms in the units of the image.

    index: the image's number; prediction: its class or ABSTAIN; p_a_lower: lower bound on the
    probability of that class under the noise; gap: half-width of the region in multiples of theta
    (0 when abstaining); center, theta: the image and the noise scale as evaluated, of the
    coordinates in `basis`; norm: 1 or 2;
    count, n, alpha: votes for the class, draws and failure probability; lattice: the step on which
    the noise was drawn, None for noise in floating point (not floating-point sound); evaluation:
    how the base classifier was evaluated.
    """

    index: int
    prediction: int
    p_a_lower: float
    gap: float
    center: Tensor
    theta: Tensor
    norm: int
    count: int
    n: int
    alpha: float
    lattice: float | None = None
    evaluation: Evaluation | None = None
    basis: Basis = PIXELS

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
