"""Certificates: a class and a region in which the smoothed classifier provably returns it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ancer.bases.lattice import step_of
from ancer.certificates.certificate import Certificate
from ancer.certificates.many import Certificates
from ancer.classifier import Classifier, Evaluation
from ancer.confidence.budget import check_budget, check_whole
from ancer.confidence.looks import Always, Bounds, Looks, Plan, exact_bounds
from ancer.noise.law import Noise
from ancer.queries import Queries
from ancer.regions.region import ABSTAIN
from ancer.smoothing import SmoothedClassifier
from ancer.stopping import Rule, Running, Tally, as_rules, asked

LOOKS: Mapping[str, Callable[[int], Plan]] = {"planned": Looks.doubling, "always": Always}


@dataclass(frozen=True, eq=False)
class Counted:
    """Of each image a class, votes of all classes, draws, bounds under the law, and the gap.

    classes, draws, gap: (B,); votes: (B, K). It abstains where the gap is not > 0.
    """

    classes: np.ndarray
    votes: np.ndarray
    draws: np.ndarray
    bounds: Bounds
    gap: np.ndarray


def certify(
    model: nn.Module | Classifier,
    x: Tensor,
    noise: Noise,
    *,
    n: int = 100_000,
    alpha: float = 0.001,
    seed: int = 0,
    n0: int = 100,
    classes: str = "two",
    stop: Rule | Sequence[Rule] | None = None,
    looks: str = "planned",
    shared: bool = True,
    exact: bool = False,
    lattice: float = 1 / 255,
    indices: Sequence[int] | None = None,
) -> Certificates:
    """Certify the smoothed classifier around each image of x (B, ...), pixels in [0, 1].

    Args:
        model: a `Classifier`, or an nn.Module that returns logits.
        x: images (B, ...), float32.
        noise: theta one number, (B,) or (B, *x.shape[1:]), in its basis; fixed before the draws.
        n: draws, fixed beforehand, that bound the class's probability (Clopper-Pearson).
        alpha: failure probability.
        seed: of the random streams.
        n0: other draws, which choose the class.
        classes: "two" bounds the probability of the runner-up too, from the same draws (.9 and .1
            of alpha): where several others share what is left, p_B is far below 1 - p_A, and the
            region larger; a class may then be certified with less than half of the votes. "one"
            takes 1 - p_A, as the paper.
        stop: a rule, or several of which any may stop: `Target`, `Improvement`, `Hopeless`, `Grid`,
            or a function of yours of `stopping.Running`. They are asked at looks that double up to
            n; the certificate has the best of their bounds (`confidence.looks`).
        looks: "planned", or "always", which asks ever so often, by a confidence sequence, and needs
            more draws for the same bound.
        shared: all images see the same unit draws, made once for all. Of each image nothing
            changes; but whether several certificates err is then not independent. False: each image
            has its own, by its number.
        exact: noise on the lattice, on which no rounding tells a network the image.
        lattice: the step of x's pixels.
        indices: the images' numbers in their data set.

    Returns:
        A certificate an image, in their order.

    Guarantee:
        For each image, separately: with probability at least 1 - alpha over the draws, either the
        certificate abstains, or argmax g equals its prediction everywhere in its region (Cohen et
        al. 2019, theorem 1 and algorithm 1; theorem 1 and propositions of the ANCER paper for
        anisotropic theta). It says nothing between images whose theta differ.

        It holds for one certificate, not for the best of several: to certify many thetas, or one
        with many seeds, and to report what came out largest is to choose after seeing, and fails
        more often than alpha. `certify_best` chooses among several at alpha together.

        With exact: for every image on the lattice in the region, up to alpha, assuming uniform
        random bits, and for Gaussian noise normals within 1e-11 of the law in total variation, a
        coordinate, which the bound pays for. Uniform theta becomes the nearest on the lattice. In
        another basis than pixels the lattice is that of its coefficients, 2^-16, and the gap pays
        for rounding images to it, so that the claim is for every image in the region. Without exact
        the certificate is *not floating-point sound*: rounding in x + theta * z can tell an
        adversarial network the image.
        Under `SplittingNoise` nothing is left to chance: all of its draws are counted, their number
        is the certificate's n, and its alpha is 0. n, n0, alpha, classes, seed, stop, looks and
        shared then change nothing, and exact is so anyway.

    Raises:
        ValueError: before any work, on arguments outside their domain.

    Example:
        >>> f = nn.Linear(2, 2)
        >>> (certificate,) = certify(
        ...     f, torch.rand(1, 2), GaussianNoise(0.25), n=1000, alpha=0.001, seed=0
        ... )
        >>> certificate.radius == 0.25 * certificate.gap
        True
    """
    check_budget(n, n0, alpha, classes)
    rules = as_rules(stop)
    check_whole(seed=seed)
    plan = plan_of(n, bool(rules), looks)
    smoothed = SmoothedClassifier(model, noise, lattice=step_of(exact, lattice), shared=shared)
    queries = smoothed.queries(x, indices)
    if noise.deterministic:
        return certificates(queries, counted_all(queries), alpha=0.0)
    counted = _counted(queries, plan, rules, n0, alpha, classes, seed)
    return certificates(queries, counted, alpha)


def counted_all(queries: Queries) -> Counted:
    """All draws of a deterministic law, counted: the bounds are the probabilities themselves."""
    ticks = queries.ticks
    votes = queries.stream(seed=0, purpose="certify").counts(ticks)
    top, classes = votes.topk(min(2, votes.shape[1]), dim=1)
    count = top[:, 0].numpy()
    rival = top[:, 1:].sum(dim=1).numpy()
    draws = np.array(ticks)
    bounds = exact_bounds(count, rival, draws)
    return Counted(classes[:, 0].numpy(), votes.numpy(), draws, bounds, queries.gap(bounds))


def _counted(
    queries: Queries,
    plan: Plan,
    rules: Sequence[Rule],
    n0: int,
    alpha: float,
    classes: str,
    seed: int,
) -> Counted:
    # 1. choose the class on draws of its own
    chosen = queries.counts(n0, seed=seed, purpose="select").argmax(dim=1).numpy()
    # 2. count its votes and the runner-up's on fresh draws, and bound their probabilities
    tally = Tally(queries.stream(seed, "certify"), plan)
    lower = np.zeros(len(queries))
    upper = np.ones(len(queries))
    gap = np.full(len(queries), -np.inf)
    while len(tally.active):
        tally.draw()
        images = tally.active
        drawn = tally.drawn[images]
        count, rival = tally.votes(images, chosen[images])
        now = queries.of_law(plan.bounds(count, rival, drawn, alpha, classes), images)
        # the best so far, since all hold at once
        lower[images] = np.maximum(now.lower, lower[images])
        upper[images] = np.minimum(now.upper, upper[images])
        gap[images] = queries.gap(Bounds(lower[images], upper[images]), images)

        # 3. whether a rule stops here
        best = queries.of_law(plan.attainable(count, rival, drawn, alpha, classes), images)
        stopped = np.zeros(len(images), dtype=bool)
        for rule in rules:
            running = Running(  # its own copies: a rule only looks
                noise=queries.law.with_theta(queries.theta[images]),
                count=count.copy(),
                rival=rival.copy(),
                drawn=drawn.copy(),
                n=plan.n,
                gap=gap[images],
                attainable=queries.gap(best, images),
                theta_min=queries.theta_min[images],
                theta_gmean=queries.theta_gmean[images],
            )
            stopped |= asked(rule, running)
        tally.stop(stopped)
    return Counted(chosen, tally.all_votes(), tally.drawn, Bounds(lower, upper), gap)


def plan_of(n: int, early: bool, looks: str) -> Plan:
    """When `certify` looks at its bounds: once, or, where rules may stop it early, as looks says.

    Raises ValueError for unknown looks.
    """
    if looks not in LOOKS:
        raise ValueError(f"looks must be one of {', '.join(LOOKS)}, found {looks!r}")
    return LOOKS[looks](n) if early else Looks.once(n)


def certificates(queries: Queries, counted: Counted, alpha: float) -> Certificates:
    """One certificate an image; it abstains where the gap is not > 0."""
    certified = counted.gap > 0
    lower, upper = counted.bounds
    x = queries.x.cpu()
    theta = queries.theta.cpu()
    evaluation = queries.evaluation
    found = []
    for i, index in enumerate(queries.indices):
        certificate = Certificate(
            index=index,
            chosen=int(counted.classes[i]),
            prediction=int(counted.classes[i]) if certified[i] else ABSTAIN,
            p_a_lower=float(lower[i]),
            p_b_upper=float(min(upper[i], 1 - lower[i])),
            gap=float(counted.gap[i]) if certified[i] else 0.0,
            center=x[i].clone(),  # its own: nobody else can change it
            theta=theta[i].clone(),
            norm=queries.law.norm,
            votes={int(k): int(counted.votes[i, k]) for k in np.flatnonzero(counted.votes[i])},
            n=int(counted.draws[i]),
            alpha=alpha,
            lattice=queries.lattice,
            evaluation=evaluation,
            basis=queries.law.basis,
        )
        found.append(certificate)
    return Certificates(found)


def predict(
    model: nn.Module | Classifier,
    x: Tensor,
    noise: Noise,
    *,
    n: int = 100_000,
    alpha: float = 0.001,
    seed: int = 0,
    shared: bool = True,
    exact: bool = False,
    lattice: float = 1 / 255,
    evaluation: Evaluation | None = None,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """The smoothed classifier's class for each image, or ABSTAIN.

    Args:
        model, x, noise, seed, shared, exact, lattice, indices: as in `certify`.
        n: draws.
        alpha: failure probability, for each image.
        evaluation: of the certificates that the answers rely on: a certificate is for one model in
            one arithmetic, and another is refused. Both run with the same deterministic kernels and
            the same number of rows in every pass.

    Returns:
        int64 (B,).

    Guarantee:
        For each image, with probability at least 1 - alpha, the answer is ABSTAIN or argmax g(x)
        (Cohen et al. 2019, proposition 2: a two-sided binomial test of the two most frequent
        classes). With exact, 1 - alpha is less by at most n times the noise's slack. Under
        `SplittingNoise` all draws are counted: the answer is argmax g(x), or ABSTAIN where classes
        tie, with certainty.

    Raises:
        ValueError: before any work, on arguments outside their domain or another evaluation.

    Example:
        >>> x = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
        >>> predict(nn.Identity(), x, GaussianNoise(0.25), n=1000).tolist()
        [0, -1]
    """
    check_budget(n, 1, alpha, "two")
    check_whole(seed=seed)
    smoothed = SmoothedClassifier(model, noise, lattice=step_of(exact, lattice), shared=shared)
    queries = smoothed.queries(x, indices)
    if evaluation is not None and evaluation != queries.evaluation:
        raise ValueError(
            "the certificates are of another evaluation: "
            f"{_differences(queries.evaluation, evaluation)}: evaluate as they were"
        )
    if noise.deterministic:
        counted = counted_all(queries)
        return torch.from_numpy(np.where(counted.gap > 0, counted.classes, ABSTAIN))
    from scipy.stats import binomtest  # loads half a second

    counts = queries.counts(n, seed=seed, purpose="predict")
    top, classes = counts.topk(min(2, counts.shape[1]), dim=1)
    answers = torch.full((len(x),), ABSTAIN)
    for i, votes in enumerate(top):
        if binomtest(int(votes[0]), int(votes.sum()), 0.5).pvalue <= alpha:
            answers[i] = classes[i, 0]
    return answers


def _differences(ours: Evaluation, theirs: Evaluation) -> str:
    found = asdict(theirs)
    lines = []
    for name, value in asdict(ours).items():
        if found[name] != value:
            lines.append(f"{name} {found[name]!r}, here {value!r}")
    return "; ".join(lines)
