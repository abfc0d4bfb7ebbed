"""Certificates: a class and a region in which the smoothed classifier provably returns it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from ancer.confidence import clopper_pearson
from ancer.models import Classifier, as_classifier
from ancer.noise import Noise
from ancer.regions import Region
from ancer.smoothing import SmoothedClassifier, image_indices

ABSTAIN = -1


@dataclass(frozen=True)
class Certificate:
    """What `certify` proves of one image; radii are true lp norms in the units of the image.

    index: the image's number; prediction: its class or ABSTAIN; p_a_lower: lower bound on the probability of
    that class under the noise; gap: half-width of the region in multiples of theta (0 when abstaining);
    center, theta: the image and the noise scale as evaluated; norm: 1 or 2; count, n, alpha: votes for the
    class, draws and failure probability.
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

    @property
    def region(self) -> Region | None:
        """The certified region {y: ||(y - center) / theta||_p < gap}; None when abstaining."""
        if self.prediction == ABSTAIN:
            return None
        return Region(self.center.double(), self.theta.double() * self.gap, self.norm)

    @property
    def radius(self) -> float:
        """Radius of the largest lp ball in the region; 0 when abstaining."""
        return self.region.radius if self.region else 0.0

    @property
    def proxy_radius(self) -> float:
        """Radius of the lp ball that has the region's volume; 0 when abstaining."""
        return self.region.proxy_radius if self.region else 0.0

    @property
    def box_proxy_radius(self) -> float:
        """Geometric mean of min(semi-axis, 1): pixels live in [0, 1], so a longer axis certifies nothing more."""
        return self.region.box_proxy_radius if self.region else 0.0

    @property
    def log_volume(self) -> float:
        """Natural logarithm of the region's volume; -inf when abstaining."""
        return self.region.log_volume if self.region else float("-inf")


def certify(
    model: nn.Module | Classifier,
    x: Tensor,
    noise: Noise,
    *,
    n: int,
    alpha: float,
    seed: int,
    n0: int = 100,
    indices: Sequence[int] | None = None,
) -> list[Certificate]:
    """Certify the smoothed classifier around each image of x (B, ...), pixels in [0, 1].

    For each image, separately: with probability at least 1 - alpha over the draws, either the certificate
    abstains, or argmax g equals its prediction everywhere in its region (Cohen et al. 2019, theorem 1 and
    algorithm 1; theorem 1 and propositions of the ANCER paper for anisotropic theta). This holds for theta
    fixed before the draws; it says nothing between images whose theta differ.

    noise: theta one number, (B,) or (B, *x.shape[1:]). n0, n: draws that choose the class and draws that bound
    its probability (n fixed beforehand; Clopper-Pearson). indices: the images' numbers in their data set.
    Raises ValueError, before any work, on arguments outside their domain.
    """
    classifier = as_classifier(model)
    clopper_pearson(0, n, alpha)  # the domains of n and alpha, before any work
    if n0 < 1:
        raise ValueError(f"n0 must be >= 1, found {n0}")
    smoothed = SmoothedClassifier(classifier, noise)
    # 1. choose the class on draws of its own
    guess = smoothed.counts(x, n0, seed=seed, purpose="select", indices=indices).argmax(dim=1)
    # 2. count its votes on fresh draws and bound its probability from below
    counts = smoothed.counts(x, n, seed=seed, purpose="certify", indices=indices)
    counts = counts.gather(1, guess[:, None])[:, 0]
    p_a_lower = torch.from_numpy(clopper_pearson(counts.numpy(), n, alpha))
    # 3. the region is g's alone where p_A > 1/2
    gap = noise.gap(p_a_lower)
    theta = noise.theta_for(x)
    certified = (p_a_lower > 0.5) & (gap > 0)
    return [
        Certificate(
            index=index,
            prediction=int(guess[i]) if certified[i] else ABSTAIN,
            p_a_lower=float(p_a_lower[i]),
            gap=float(gap[i]) if certified[i] else 0.0,
            center=x[i].detach().cpu(),
            theta=theta[i].detach().cpu(),
            norm=noise.norm,
            count=int(counts[i]),
            n=n,
            alpha=alpha,
        )
        for i, index in enumerate(image_indices(x, indices))
    ]


def predict(
    model: nn.Module | Classifier,
    x: Tensor,
    noise: Noise,
    *,
    n: int,
    alpha: float,
    seed: int,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """The smoothed classifier's class for each image of x (B, ...), or ABSTAIN: int64 (B,).

    For each image, with probability at least 1 - alpha, the answer is ABSTAIN or argmax g(x) (Cohen et al. 2019,
    proposition 2: a two-sided binomial test of the two most frequent classes).
    """
    clopper_pearson(0, n, alpha)  # the domains of n and alpha, before any work
    counts = SmoothedClassifier(model, noise).counts(x, n, seed=seed, purpose="predict", indices=indices)
    top, classes = counts.topk(min(2, counts.shape[1]), dim=1)
    answers = [
        int(c[0]) if binomtest(int(t[0]), int(t.sum()), 0.5).pvalue <= alpha else ABSTAIN
        for t, c in zip(top, classes, strict=True)
    ]
    return torch.tensor(answers)
