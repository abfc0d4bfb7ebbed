"""Confidence bounds on a Bernoulli mean: for n fixed beforehand, and for any stopping rule."""

import numpy as np
from scipy.special import betainc, betaincinv, betaln, expit

# of the mixture Beta(SHAPE, 1): nearly as tight as Clopper-Pearson for 100 to a million draws
SHAPE = 0.5


def clopper_pearson(count, n, alpha) -> np.ndarray:
    """One-sided lower confidence bound on p from `count` successes in n draws, n fixed beforehand.

    count: in [0, n], any shape (a planned count need not be an integer); n >= 1 and alpha in (0, 1)
    broadcast. Guarantee: P(bound > p) <= alpha (Clopper and Pearson 1934). Lowered by 1e-12, far
    more than the rounding of the inverse beta function, so that floating point cannot break it.
    Raises ValueError outside these domains.

    Example:
        >>> clopper_pearson(990, 1000, 0.001).round(4).item()
        0.976
    """
    if np.min(n) < 1:
        raise ValueError(f"n must be >= 1, found {np.min(n)}")
    count = _counts(count, n, alpha)
    bound = betaincinv(np.maximum(count, 1e-300), n - count + 1, alpha)
    return np.where(count > 0, np.maximum(bound - 1e-12, 0.0), 0.0)


def log_e_value(count, n, log_odds) -> np.ndarray:
    """Logarithm of the evidence E against 'the mean is at most p' in `count` of n draws.

    E = integral of (v + (1 - v) / p)^count v^(n - count) over v ~ Beta(1/2, 1): the likelihood
    ratio of the means q = 1 - v (1 - p) in (p, 1) to p, mixed. It falls in p; for the true mean it
    is a martingale from 1 as n grows, so P(E >= 1 / alpha at some n) <= alpha (Ville; Howard,
    Ramdas et al. 2021; Waudby-Smith and Ramdas 2023).

    log_odds: of p, log(p / (1 - p)), so that p near 1 keeps its digits. All broadcast.
    """
    failures = np.asarray(n, dtype=np.float64) - count
    a = failures + SHAPE
    b = np.add(count, 1.0)
    q = expit(np.negative(log_odds))
    with np.errstate(divide="ignore"):  # it underflows only where E is far below 1
        log_tail = np.log(betainc(a, b, q))
    log_prior = np.log(SHAPE) + betaln(b, a)
    log_likelihood = count * np.logaddexp(0, -log_odds) + a * np.logaddexp(0, log_odds)
    return log_prior + log_tail + log_likelihood


def anytime_lower(count, n, alpha: float) -> np.ndarray:
    """One-sided lower confidence bound on p from `count` of n draws, valid at every n at once.

    count, n: whole numbers, 0 <= count <= n, broadcast; alpha: in (0, 1). Guarantee: P(bound > p
    after some number of draws) <= alpha, so drawing may stop for any reason, also one that looks at
    the bound. The p at which `log_e_value` reaches log(1 / alpha), from the rejected side.

    Example:
        >>> anytime_lower(990, 1000, 0.001).round(4).item()
        0.9712
    """
    count, n = np.broadcast_arrays(_counts(count, n, alpha), n)
    enough = np.log(1 / alpha) + 1e-6 + 1e-12 * n  # the margin exceeds all rounding
    # E <= 1 where p is the mean of the draws
    mean = np.log(np.maximum(count, 1e-17)) - np.log(np.maximum(n - count, 1e-17))
    high = np.clip(mean, -40, 40)
    low = np.full(n.shape, -40.0)
    rejected = log_e_value(count, n, low) >= enough
    for _ in range(50):
        middle = (low + high) / 2
        above = log_e_value(count, n, middle) >= enough
        low = np.where(above, middle, low)
        high = np.where(above, high, middle)
    return np.where(rejected & (count > 0), expit(low), 0.0)


def anytime_upper(count, n, alpha) -> np.ndarray:
    """One-sided upper bound on p, valid at every n at once: `anytime_lower` of the failures."""
    return 1 - anytime_lower(np.subtract(n, count), n, alpha)


def crossing_probability(needed, p: float) -> float:
    """Exact P(for some t, the successes in the first t draws are at least needed[t - 1]).

    needed: (T,) whole numbers; t + 1 or more where nothing is enough; p: the mean of the draws.
    What an adversary who may stop at any of these t can achieve; by dynamic programming over the
    count.
    """
    alive = np.ones(1)
    crossed = 0.0
    for t, enough in enumerate(needed, start=1):
        alive = np.append(alive * (1 - p), 0.0) + np.append(0.0, alive * p)
        if enough <= t:
            crossed += alive[enough:].sum()
            alive[enough:] = 0.0
    return float(crossed)


def check_alpha(alpha) -> None:
    """Raise ValueError unless alpha, or each of several, lies in (0, 1)."""
    if not np.all((np.asarray(alpha) > 0) & (np.asarray(alpha) < 1)):
        raise ValueError(f"alpha must lie in (0, 1), found {alpha}")


def _counts(count, n, alpha: float) -> np.ndarray:
    count = np.asarray(count, dtype=np.float64)
    check_alpha(alpha)
    if not ((count >= 0) & (count <= n)).all():
        raise ValueError(
            f"counts must lie in [0, {np.max(n)}], found {count.min()} to {count.max()}"
        )
    return count
