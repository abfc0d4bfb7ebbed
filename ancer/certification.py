"""Certificates: a class and a region in which the smoothed classifier provably returns it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from ancer.certificate import Certificate
from ancer.classifier import Classifier, Evaluation
from ancer.confidence import anytime_lower, clopper_pearson
from ancer.noise import Noise, gap_of
from ancer.regions.region import ABSTAIN
from ancer.smoothing import Queries, SmoothedClassifier
from ancer.stopping import Rule, Running, Tally


@dataclass(frozen=True, eq=False)
class Bounds:
    """Of each image a class, votes for it, draws, and a lower bound on its probability: (B,)."""

    classes: np.ndarray
    counts: np.ndarray
    draws: np.ndarray
    lower: np.ndarray

    def abstains(self) -> np.ndarray:
        """Whether nothing is certified: the region is g's alone where p_A > 1/2."""
        return ~(self.lower > 0.5)


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

    For each image, separately: with probability at least 1 - alpha over the draws, either the
    certificate abstains, or argmax g equals its prediction everywhere in its region (Cohen et al.
    2019, theorem 1 and algorithm 1; theorem 1 and propositions of the ANCER paper for anisotropic
    theta). This holds for theta fixed before the draws; it says nothing between images whose theta
    differ.

    It holds for one certificate, not for the best of several: to certify many thetas, or one with
    many seeds, and to report what came out largest is to choose after seeing, and fails more often
    than alpha. `certify_best` chooses among several at alpha together.

    noise: theta one number, (B,) or (B, *x.shape[1:]), of the coordinates in its basis. indices:
    the images' numbers in their data set.

    Without `stop`, as the paper's tables need it: n0 draws choose the class, n others, fixed
    beforehand, bound its probability (Clopper-Pearson).

    stop: a rule, or several of which any may stop: `Target`, `Improvement`, `Hopeless`, or a
    function of yours of `stopping.Running`. Then at most n draws, and no selection (n0 is not
    used): all classes run at alpha / 2 (see `anytime_lower`), and the first to pass 1/2 is
    certified with the best bound that it ever had. The guarantee is the same, whatever the rule
    looks at: the class with p_A > 1/2 is overestimated with probability at most alpha / 2, and a
    class of probability q <= 1/2 passes with at most 2 q alpha / 2, together at most alpha for any
    number of classes.

    exact: noise on the lattice (`lattice`, the step of x's pixels) on which no rounding tells a
    network the image. The claim is then: for every image on the lattice in the region, up to alpha,
    assuming uniform random bits, and for Gaussian noise normals within 1e-11 of the law in total
    variation, a coordinate, which the bound pays for. Uniform theta becomes the nearest on the
    lattice. In another basis than pixels the lattice is that of its coefficients, 2^-16, and the
    gap pays for rounding images to it, so that the claim is for every image in the region. Without
    it the certificate is *not floating-point sound*: rounding in x + theta * z can tell an
    adversarial network the image.

    Raises ValueError, before any work, on arguments outside their domain.

    Example:
        >>> f = nn.Linear(2, 2)
        >>> (certificate,) = certify(
        ...     f, torch.rand(1, 2), GaussianNoise(0.25), n=1000, alpha=0.001, seed=0
        ... )
        >>> certificate.radius == 0.25 * certificate.gap
        True
    """
    check_budget(n, n0, alpha)
    rules = _rules(stop)
    smoothed = SmoothedClassifier(model, noise, lattice=lattice if exact else None)
    queries = smoothed.queries(x, indices)
    if rules:
        bounds = _until_stopped(queries, rules, n, alpha, seed)
    else:
        bounds = _fixed_budget(queries, n0, n, alpha, seed)
    return certificates(queries, bounds, alpha)


def _fixed_budget(queries: Queries, n0: int, n: int, alpha: float, seed: int) -> Bounds:
    # 1. choose the class on draws of its own
    classes = queries.counts(n0, seed=seed, purpose="select").argmax(dim=1)
    # 2. count its votes on fresh draws and bound its probability from below
    votes = queries.counts(n, seed=seed, purpose="certify")
    counts = votes.gather(1, classes[:, None])[:, 0].numpy()
    lower = queries.lower(clopper_pearson(counts, n, alpha))
    return Bounds(classes.numpy(), counts, np.full(len(queries), n), lower)


def _until_stopped(
    queries: Queries, rules: Sequence[Rule], n: int, alpha: float, seed: int
) -> Bounds:
    tally = Tally(queries.stream(seed, "certify"), n)
    classes = np.full(len(queries), ABSTAIN)
    counts = np.zeros(len(queries), dtype=np.int64)
    # of the class that passed 1/2: the best so far, since all hold at once
    lower = np.zeros(len(queries))
    while len(tally.active):
        tally.draw()
        images = tally.active
        drawn = tally.drawn[images]

        # 1. the class that has passed 1/2, or else the leader, its votes and its bound
        passed_before = classes[images] != ABSTAIN
        leader = np.where(passed_before, classes[images], tally.leaders(images))
        count = tally.votes(images, leader)
        now = queries.lower(anytime_lower(count, drawn, alpha / 2), images)
        bound = np.maximum(now, lower[images])
        passed = bound > 0.5
        classes[images[passed]] = leader[passed]
        lower[images[passed]] = bound[passed]
        counts[images] = count

        # 2. whether a rule stops here
        attainable = queries.lower(anytime_lower(count + n - drawn, n, alpha / 2), images)
        stopped = np.zeros(len(images), dtype=bool)
        for rule in rules:
            running = Running(  # its own copies: a rule only looks
                noise=queries.law.with_theta(queries.theta[images]),
                count=count.copy(),
                drawn=drawn.copy(),
                n=n,
                lower=bound.copy(),
                attainable=attainable.copy(),
                theta_min=queries.theta_min[images],
                theta_gmean=queries.theta_gmean[images],
            )
            stopped |= rule(running)
        tally.stop(stopped)
    return Bounds(classes, counts, tally.drawn, lower)


def _rules(stop: Rule | Sequence[Rule] | None) -> list[Rule]:
    if stop is None:
        return []
    rules = list(stop) if isinstance(stop, Sequence) else [stop]
    if not rules or not all(callable(rule) and not isinstance(rule, type) for rule in rules):
        raise ValueError(
            f"stop must be a rule such as Improvement(0.05), or several, found {stop!r}"
        )
    return rules


def check_budget(n: int, n0: int, alpha: float) -> None:
    """Raise ValueError unless n >= 1, n0 >= 1 and 0 < alpha < 1."""
    clopper_pearson(0, n, alpha)
    if n0 < 1:
        raise ValueError(f"n0 must be >= 1, found {n0}")


def certificates(queries: Queries, bounds: Bounds, alpha: float) -> list[Certificate]:
    """One certificate an image; it abstains where the bound is not above 1/2."""
    p_a_lower = np.maximum(bounds.lower, 0.0)
    gaps = gap_of(queries.law, p_a_lower)
    certified = ~bounds.abstains() & (gaps > 0)
    x = queries.x.cpu()
    theta = queries.theta.cpu()
    evaluation = queries.evaluation
    found = []
    for i, index in enumerate(queries.indices):
        certificate = Certificate(
            index=index,
            prediction=int(bounds.classes[i]) if certified[i] else ABSTAIN,
            p_a_lower=float(p_a_lower[i]),
            gap=float(gaps[i]) if certified[i] else 0.0,
            center=x[i].clone(),  # its own: nobody else can change it
            theta=theta[i].clone(),
            norm=queries.law.norm,
            count=int(bounds.counts[i]),
            n=int(bounds.draws[i]),
            alpha=alpha,
            lattice=queries.lattice,
            evaluation=evaluation,
            basis=queries.law.basis,
        )
        found.append(certificate)
    return found


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

    For each image, with probability at least 1 - alpha, the answer is ABSTAIN or argmax g(x) (Cohen
    et al. 2019, proposition 2: a two-sided binomial test of the two most frequent classes).

    exact, lattice: as in `certify`; 1 - alpha is then less by at most n times the noise's slack.
    evaluation: of the certificates that the answers rely on: a certificate is for one model in one
    arithmetic, and another is refused (ValueError). Both run with the same deterministic kernels
    and the same number of rows in every pass.

    Raises ValueError, before any work, on arguments outside their domain.
    """
    clopper_pearson(0, n, alpha)  # the domains of n and alpha
    smoothed = SmoothedClassifier(model, noise, lattice=lattice if exact else None)
    queries = smoothed.queries(x, indices)
    if evaluation is not None and evaluation != queries.evaluation:
        raise ValueError(
            "the certificates are of another evaluation: "
            f"{_differences(queries.evaluation, evaluation)}: evaluate as they were"
        )
    counts = queries.counts(n, seed=seed, purpose="predict")
    top, classes = counts.topk(min(2, counts.shape[1]), dim=1)
    answers = torch.full((len(x),), ABSTAIN)
    for i, votes in enumerate(top):
        test = binomtest(int(votes[0]), int(votes.sum()), 0.5)
        if test.pvalue <= alpha:
            answers[i] = classes[i, 0]
    return answers


def _differences(ours: Evaluation, theirs: Evaluation) -> str:
    found = asdict(theirs)
    lines = []
    for name, value in asdict(ours).items():
        if found[name] != value:
            lines.append(f"{name} {found[name]!r}, here {value!r}")
    return "; ".join(lines)
