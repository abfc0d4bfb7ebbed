"""When bounds are looked at, and what each look may cost: once, at planned looks, or always."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from ancer.confidence.bounds import anytime_lower, check_alpha, clopper_pearson

# Noise is drawn in blocks of this many draws, each block whole: a generator's stream depends on the
# size of the request, so a fixed size is what makes a draw independent of the batch size. A look
# comes after whole blocks, but for the last.
BLOCK = 100
LAST = 0.8  # the share of alpha that the last of several planned looks keeps
TOP = 0.9  # the share of alpha for the class; the rest is for the runner-up
CLASSES = ("one", "two")  # whose probabilities are bounded


class Bounds(NamedTuple):
    """A lower bound on the probability of a class, and an upper one on that of any other: (B,)."""

    lower: np.ndarray
    upper: np.ndarray


class Plan(ABC):
    """Draws after which bounds are looked at, all of which hold together.

    n: the most draws. Guarantee of each plan, for any rule that says after which look drawing
    ends, also if it looks at the bounds: with probability at least 1 - alpha no `lower` of all
    looks exceeds the mean of the draws; the same of `upper`, and of both in `bounds`.
    """

    n: int

    @abstractmethod
    def next(self, drawn: np.ndarray) -> np.ndarray:
        """Draws at the next look, after so many < n."""

    @abstractmethod
    def lower(
        self, count: np.ndarray, drawn: np.ndarray | int, alpha: np.ndarray | float
    ) -> np.ndarray:
        """Lower bounds at a look on means of which `count` of `drawn` draws are."""

    def upper(
        self, count: np.ndarray, drawn: np.ndarray | int, alpha: np.ndarray | float
    ) -> np.ndarray:
        """Upper bounds: `lower` of the failures."""
        return 1 - self.lower(np.subtract(drawn, count), drawn, alpha)

    def bounds(
        self,
        count: np.ndarray,
        rival: np.ndarray,
        drawn: np.ndarray | int,
        alpha: np.ndarray | float,
        classes: str,
    ) -> Bounds:
        """Bounds on a class with `count` votes, and on all others, of which the most is `rival`.

        classes: "two" spends .9 alpha on the class and .1 alpha on the runner-up. The class must
        not be chosen by these votes; the runner-up may be whichever has the most: its count is at
        least that of the class that is truly second, and the bound rises with the count. "one"
        spends alpha on the class (upper is then 1).
        """
        if classes == "one":
            return Bounds(self.lower(count, drawn, alpha), np.ones(np.shape(count)))
        check_alpha(alpha)  # as it was given, not a share of it
        lower = self.lower(count, drawn, TOP * np.asarray(alpha))
        return Bounds(lower, self.upper(rival, drawn, (1 - TOP) * np.asarray(alpha)))

    def attainable(
        self,
        count: np.ndarray,
        rival: np.ndarray,
        drawn: np.ndarray,
        alpha: np.ndarray | float,
        classes: str,
    ) -> Bounds:
        """`bounds` after n draws, were all that follow for the class."""
        most = np.add(count, np.subtract(self.n, drawn))
        return self.bounds(most, rival, np.full(np.shape(drawn), self.n), alpha, classes)


def exact_bounds(count: np.ndarray, rival: np.ndarray, n: np.ndarray) -> Bounds:
    """The probabilities of a class and of the runner-up, where n draws are all that there are.

    Less a twentieth of a vote each: an image on the lattice moves whole votes, so none is lost, and
    none on the border is claimed by rounding.
    """
    return Bounds((count - 0.05) / n, (rival + 0.05) / n)


class Looks(Plan):
    """Clopper-Pearson at looks that are planned beforehand, each at its share of alpha.

    The bounds of all looks hold together by the union bound. One look is the fixed n of Cohen et
    al. (2019); several double up to n (group-sequential), and the last keeps 80 % of alpha, so that
    whoever draws to the end loses next to nothing.
    """

    def __init__(self, draws: list[int], shares: list[float]):
        self.draws = np.array(draws)
        self.shares = np.array(shares)
        self.n = draws[-1]

    @classmethod
    def once(cls, n: int) -> "Looks":
        """At the end alone."""
        return cls([n], [1.0])

    @classmethod
    def doubling(cls, n: int) -> "Looks":
        """At n, and at n / 2, n / 4, ..., rounded up to whole blocks.

        Example:
            >>> Looks.doubling(1000).draws.tolist()
            [100, 200, 300, 500, 1000]
        """
        earlier: set[int] = set()
        draws = n / 2
        while draws > BLOCK / 2:
            earlier.add(int(-(-draws // BLOCK)) * BLOCK)
            draws /= 2
        looks = sorted(look for look in earlier if look < n)
        if not looks:
            return cls.once(n)
        shares = [(1 - LAST) / len(looks)] * len(looks)
        return cls([*looks, n], [*shares, LAST])

    def next(self, drawn):
        return self.draws[np.searchsorted(self.draws, drawn, side="right")]

    def lower(self, count, drawn, alpha):
        share = self.shares[np.searchsorted(self.draws, drawn)]
        return clopper_pearson(count, drawn, alpha * share)


class Always(Plan):
    """The confidence sequence that holds at every number of draws, looked at ever so often.

    After 100 draws and then each twentieth more. For rules that must not wait for the next
    doubling: for the same bound it needs up to twice the draws of planned looks.
    """

    def __init__(self, n: int):
        self.n = n

    def next(self, drawn):
        blocks = np.maximum(1, drawn // (20 * BLOCK))
        return np.minimum(drawn + BLOCK * blocks, self.n)

    def lower(self, count, drawn, alpha):
        return anytime_lower(count, drawn, alpha)
