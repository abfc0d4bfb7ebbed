"""What a certificate may spend: draws and failure probability, checked before any work."""

import math
from numbers import Integral, Real

from ancer.confidence.bounds import clopper_pearson
from ancer.confidence.looks import CLASSES, TOP


def check_whole(**numbers: object) -> None:
    """Raise ValueError that names one that is no whole number, such as "200" or 10.5.

    Example:
        >>> check_whole(batch_size=10.5)
        Traceback (most recent call last):
        ...
        ValueError: batch_size must be a whole number, found 10.5
    """
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ValueError(f"{name} must be a whole number, found {value!r}")


def check_real(**numbers: object) -> None:
    """Raise ValueError that names one that is no number."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise ValueError(f"{name} must be a number, found {value!r}")


def check_budget(n: int, n0: int, alpha: float, classes: str) -> None:
    """Raise ValueError unless n >= 1, n0 >= 1, 0 < alpha < 1, and classes is one or two."""
    check_whole(n=n, n0=n0)
    check_real(alpha=alpha)
    clopper_pearson(0, n, alpha)
    if n0 < 1:
        raise ValueError(f"n0 must be >= 1, found {n0}")
    if classes not in CLASSES:
        raise ValueError(f"classes must be one of {', '.join(CLASSES)}, found {classes!r}")


def check_enough(n: int, alpha: float, classes: str) -> None:
    """Raise ValueError where n draws at alpha certify nothing, even if all votes agree."""
    level = alpha * (TOP if classes == "two" else 1)
    if level ** (1 / n) <= 0.5:
        least = math.floor(math.log(level) / math.log(0.5)) + 1
        raise ValueError(
            f"n = {n} draws can never certify at alpha = {alpha:g}, even if all agree: n must be "
            f"at least {least}"
        )
