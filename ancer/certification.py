"""Certificates: a class and a region in which the smoothed classifier provably returns it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from ancer.confidence import anytime_lower, clopper_pearson
from ancer.models import Classifier, Evaluation, as_classifier
from ancer.noise import Noise
from ancer.regions import Region
from ancer.smoothing import SmoothedClassifier, Stream, image_indices
from ancer.stopping import Rule, Running, draw_until

ABSTAIN = -1


@dataclass(frozen=True)
class Certificate:
    """What `certify` proves of one image; radii are true lp norms in the units of the image.

    index: the image's number; prediction: its class or ABSTAIN; p_a_lower: lower bound on the probability of
    that class under the noise; gap: half-width of the region in multiples of theta (0 when abstaining);
    center, theta: the image and the noise scale as evaluated; norm: 1 or 2; count, n, alpha: votes for the
    class, draws and failure probability; lattice: the step on which the noise was drawn, None for noise in
    floating point (not floating-point sound); evaluation: how the base classifier was evaluated.
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
    stop: Rule | Sequence[Rule] | None = None,
    exact: bool = False,
    lattice: float = 1 / 255,
    indices: Sequence[int] | None = None,
) -> list[Certificate]:
    """Certify the smoothed classifier around each image of x (B, ...), pixels in [0, 1].

    For each image, separately: with probability at least 1 - alpha over the draws, either the certificate
    abstains, or argmax g equals its prediction everywhere in its region (Cohen et al. 2019, theorem 1 and
    algorithm 1; theorem 1 and propositions of the ANCER paper for anisotropic theta). This holds for theta
    fixed before the draws; it says nothing between images whose theta differ.

    noise: theta one number, (B,) or (B, *x.shape[1:]). indices: the images' numbers in their data set.

    Without `stop`, as the paper's tables need it: n0 draws choose the class, n others, fixed beforehand, bound its
    probability (Clopper-Pearson).

    stop: a rule, or several of which any may stop: `Target`, `Improvement`, `Hopeless`, or a function of yours of
    `stopping.Running`. Then at most n draws, and no selection (n0 is not used): all classes run at alpha / 2 (see
    `anytime_lower`), and the first to pass 1/2 is certified with the best bound that it ever had. The guarantee is
    the same, whatever the rule looks at: the class with p_A > 1/2 is overestimated with probability at most
    alpha / 2, and a class of probability q <= 1/2 passes with at most 2 q alpha / 2, together at most alpha for any
    number of classes.

    exact: noise on the lattice (`lattice`, the step of x's pixels) on which no rounding tells a network the image.
    The claim is then: for every image on the lattice in the region, up to alpha, assuming uniform random bits, and
    for Gaussian noise normals within 1e-11 of the law in total variation, a coordinate, which the bound pays for.
    Uniform theta becomes the nearest on the lattice. Without it the certificate is *not floating-point sound*:
    rounding in x + theta * z can tell an adversarial network the image.

    Raises ValueError, before any work, on arguments outside their domain.
    """
    check_budget(n, n0, alpha)
    smoothed = SmoothedClassifier(model, noise, lattice=lattice if exact else None)
    drawing = {"seed": seed, "indices": indices}
    if stop is None:
        # 1. choose the class on draws of its own
        classes = smoothed.counts(x, n0, purpose="select", **drawing).argmax(dim=1)
        # 2. count its votes on fresh draws and bound its probability from below
        counts = smoothed.counts(x, n, purpose="certify", **drawing)
        counts = counts.gather(1, classes[:, None])[:, 0].numpy()
        drawn, lower = np.full(len(x), n), clopper_pearson(counts, n, alpha) - smoothed.slack(x)
    else:
        rules = list(stop) if isinstance(stop, Sequence) else [stop]
        if not rules or not all(callable(rule) and not isinstance(rule, type) for rule in rules):
            raise ValueError(f"stop must be a rule such as Improvement(0.05), or several, found {stop!r}")
        stream = Stream(smoothed, x, purpose="certify", **drawing)
        classes, counts, drawn, lower = _anytime(stream, rules, n, alpha)
    return certificates(smoothed, x, classes, counts, drawn, lower, alpha, indices)


def _anytime(stream: Stream, rules: Sequence[Rule], n: int, alpha: float) -> tuple[np.ndarray, ...]:
    """Class, its votes, draws and bound for each image, stopped by the first rule that says so."""
    (theta_min, theta_gmean), slack = scales(stream.theta), stream.smoothed.slack(stream.x)
    classes, votes = np.full(len(theta_min), ABSTAIN), np.zeros(len(theta_min), dtype=np.int64)
    lower = np.zeros(len(theta_min))  # of the class that passed 1/2: the best so far, since all hold at once

    def stop(images: np.ndarray, counts: Tensor | None, drawn: np.ndarray) -> np.ndarray:
        if counts is None:
            return np.zeros(len(images), dtype=bool)
        leader = np.where(classes[images] == ABSTAIN, counts.argmax(dim=1).numpy(), classes[images])
        count = counts.numpy()[np.arange(len(images)), leader]
        bound = np.maximum(anytime_lower(count, drawn, alpha / 2) - slack[images], lower[images])
        passed = bound > 0.5
        classes[images[passed]], lower[images[passed]], votes[images] = leader[passed], bound[passed], count
        attainable = anytime_lower(count + n - drawn, n, alpha / 2) - slack[images]
        running = Running(
            stream.smoothed.noise, count, drawn, n, bound, attainable, theta_min[images], theta_gmean[images]
        )
        return np.any([rule(running) for rule in rules], axis=0)

    _, drawn = draw_until(stream, n, stop)
    return classes, votes, drawn, lower


def check_budget(n: int, n0: int, alpha: float) -> None:
    """Raise ValueError unless n >= 1, n0 >= 1 and 0 < alpha < 1."""
    clopper_pearson(0, n, alpha)
    if n0 < 1:
        raise ValueError(f"n0 must be >= 1, found {n0}")


def scales(theta: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Smallest theta and geometric mean of each image's (B, ...), in float64: (B,), (B,)."""
    theta = theta.flatten(1).double().cpu()
    return theta.amin(dim=1).numpy(), theta.log().mean(dim=1).exp().numpy()


def certificates(smoothed, x, classes, counts, drawn, lower, alpha, indices) -> list[Certificate]:
    """One certificate an image from the class, its votes and the bound on its probability; abstains up to 1/2."""
    p_a_lower = torch.from_numpy(np.maximum(lower, 0.0))
    gap, theta = smoothed.noise.gap(p_a_lower), smoothed.noise.theta_for(x, smoothed.lattice)
    certified = (p_a_lower > 0.5) & (gap > 0)  # the region is g's alone where p_A > 1/2
    return [
        Certificate(
            index=index,
            prediction=int(classes[i]) if certified[i] else ABSTAIN,
            p_a_lower=float(p_a_lower[i]),
            gap=float(gap[i]) if certified[i] else 0.0,
            center=x[i].detach().cpu(),
            theta=theta[i].detach().cpu(),
            norm=smoothed.noise.norm,
            count=int(counts[i]),
            n=int(drawn[i]),
            alpha=alpha,
            lattice=smoothed.lattice,
            evaluation=smoothed.classifier.evaluation,
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
    exact: bool = False,
    lattice: float = 1 / 255,
    evaluation: Evaluation | None = None,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """The smoothed classifier's class for each image of x (B, ...), or ABSTAIN: int64 (B,).

    For each image, with probability at least 1 - alpha, the answer is ABSTAIN or argmax g(x) (Cohen et al. 2019,
    proposition 2: a two-sided binomial test of the two most frequent classes).

    exact, lattice: as in `certify`; 1 - alpha is then less by at most n times the noise's slack. evaluation: of the
    certificates that the answers rely on: a certificate is for one model in one arithmetic, and another is refused
    (ValueError). Both run with the same deterministic kernels and the same number of rows in every pass.
    """
    clopper_pearson(0, n, alpha)  # the domains of n and alpha, before any work
    classifier = as_classifier(model)
    if evaluation is not None and evaluation != classifier.evaluation:
        ours, theirs = asdict(classifier.evaluation), asdict(evaluation)
        different = [f"{k} {theirs[k]!r}, here {ours[k]!r}" for k in ours if ours[k] != theirs[k]]
        raise ValueError(f"the certificates are of another evaluation: {'; '.join(different)}: evaluate as they were")
    smoothed = SmoothedClassifier(classifier, noise, lattice=lattice if exact else None)
    counts = smoothed.counts(x, n, seed=seed, purpose="predict", indices=indices)
    top, classes = counts.topk(min(2, counts.shape[1]), dim=1)
    answers = [
        int(c[0]) if binomtest(int(t[0]), int(t.sum()), 0.5).pvalue <= alpha else ABSTAIN
        for t, c in zip(top, classes, strict=True)
    ]
    return torch.tensor(answers)
