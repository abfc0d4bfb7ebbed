"""Confidence bounds on a Bernoulli mean from counts."""

import numpy as np
from scipy.special import betaincinv


def clopper_pearson(count, n: int, alpha: float) -> np.ndarray:
    """One-sided lower confidence bound on p from `count` successes in n draws, n fixed beforehand.

    count: in [0, n], any shape (a planned count need not be an integer); alpha: in (0, 1).
    Guarantee: P(bound > p) <= alpha (Clopper and Pearson 1934). Lowered by 1e-12, far more than the
    rounding of the inverse beta function, so that floating point cannot break it.
    """
    count = np.asarray(count, dtype=np.float64)
    if n < 1:
        raise ValueError(f"n must be >= 1, found {n}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), found {alpha}")
    if not ((count >= 0) & (count <= n)).all():
        raise ValueError(f"counts must lie in [0, {n}], found {count.min()} to {count.max()}")
    bound = betaincinv(np.maximum(count, 1e-300), n - count + 1, alpha)
    return np.where(count > 0, np.maximum(bound - 1e-12, 0.0), 0.0)
