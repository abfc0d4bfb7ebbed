"""The scale of a theta by votes, without gradients."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ancer.optimization._common import of_class_and_rival
from ancer.queries import Queries, gap_of_votes

WIDTH = 0.2  # of the kernel over log scale that smooths the votes
AROUND = 5  # scales round the best that get all draws


def leading_class(queries: Queries, *, draws: int, seed: int) -> Tensor:
    """The class that most of `draws` noisy copies get: (B, 1)."""
    return queries.counts(draws, seed=seed, purpose="search").argmax(dim=1, keepdim=True)


def gaps_of(
    candidates: Sequence[Queries], anchor: Tensor, *, n: int, alpha: float, draws: int, seed: int
) -> Tensor:
    """The gap of the class `anchor` (B, 1), as n draws at alpha would bound it: (S, B).

    Of the same images at each of S candidates for theta; by `draws` votes on common draws.
    """
    found = []
    for queries in candidates:
        count, rival = _shares_at(queries, anchor, draws, seed).numpy() * n
        found.append(torch.from_numpy(gap_of_votes(queries.law, count, rival, n, alpha, "two")))
    return torch.stack(found)


def radii_by_scale(
    queries: Queries,
    anchor: Tensor,
    scales: Tensor,
    *,
    n: int,
    alpha: float,
    draws: int,
    seed: int,
) -> Tensor:
    """scale * gap of the class `anchor` (B, 1), as n draws at alpha would bound it: (S, B).

    At each scale * theta; scales: (S,) ascending. Votes on common draws, a quarter of `draws` at
    every scale and all at the five round each image's best; where there are no more than five, all
    at once. They are smoothed (Jeffreys' half vote, and a Gaussian kernel over log scale, width
    0.2), so that luck at one large scale is not mistaken for radius.
    """

    def radii(shares: Tensor) -> Tensor:
        count, rival = shares.numpy() * n
        gap = gap_of_votes(queries.law, count, rival, n, alpha, "two")
        return kernel @ (scales[:, None] * torch.from_numpy(gap))

    log_scales = scales.log()
    squares = (log_scales[:, None] - log_scales) ** 2
    kernel = torch.softmax(-squares / (2 * WIDTH**2), dim=1)

    # 1. every scale
    few = len(scales) <= AROUND
    first_draws = draws if few else math.ceil(draws / 4)
    shares = torch.zeros(2, len(scales), len(queries), dtype=torch.float64)
    for k, scale in enumerate(scales):
        shares[:, k] = _shares(queries, anchor, scale.expand(len(queries)), first_draws, seed)
    if few:
        return radii(shares)

    # 2. those round each image's best, with all draws
    lowest = (radii(shares).argmax(dim=0) - AROUND // 2).clamp(0, len(scales) - AROUND)
    images = torch.arange(len(queries))
    for k in range(AROUND):
        at = lowest + k
        shares[:, at, images] = _shares(queries, anchor, scales[at], draws, seed)
    return radii(shares)


def _shares(queries: Queries, anchor: Tensor, scale: Tensor, draws: int, seed: int) -> Tensor:
    """Shares of votes at scale (B,) * theta for anchor and for the runner-up: (2, B)."""
    theta = queries.theta * queries.per_image(scale.to(queries.theta))
    return _shares_at(queries.scaled(theta), anchor, draws, seed)


def _shares_at(queries: Queries, anchor: Tensor, draws: int, seed: int) -> Tensor:
    """Shares of votes for anchor and for the runner-up: (2, B). Half a vote is added to each."""
    votes = queries.counts(draws, seed=seed, purpose="search")
    return torch.stack(of_class_and_rival(votes, anchor)).add(0.5).double() / (draws + 1)
