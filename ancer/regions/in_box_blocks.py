"""Volume inside [0, 1]^n of ellipsoids in a basis that mixes pixels in blocks only.

As `in_box`, with T the sum over blocks of independent numbers. Tilted by exp(-s T), the pixels of a
block have a normal law, cut off at the box: the mass of the box under it is what a block
contributes to K(s), estimated by drawing one pixel after the other within its bounds (Genz 1992),
always from the same uniform numbers. All in logarithms: long axes underflow otherwise.
"""

import math

import numpy as np
import torch
from scipy.linalg.lapack import dpstrf
from scipy.optimize import minimize_scalar
from scipy.special import log_ndtr, ndtri_exp
from torch import Tensor

from ancer.regions.volume import log_unit_volume

WIDEST = 64  # coordinates of a block, beyond which the estimate is too low to be told
DRAWS = 256
LEAST = 1e-3  # no smaller tilt is searched for
STEP = 0.05  # of ln s between values of K whose second difference is taken


def log_volume_in_blocks(center: Tensor, axes: Tensor, matrices: Tensor) -> float:
    """ln of the volume of {y in [0, 1]^n: ||Q(y - center) / axes||_2 < 1}, by saddlepoint.

    center, axes: (m, d), the pixels and the semi-axes of each block; matrices: (m, d, d), the rows
    of Q. Rather low where axes are long, by the logarithm of an unbiased mean; never above the
    volume of the whole region or of the box.
    """
    x = center.double().numpy()
    a = axes.double().numpy()
    n = x.size
    half = a[:, :, None] * matrices.numpy()  # its rows span the region
    covariance = half.transpose(0, 2, 1) @ half
    # the pixel that varies most first: the box binds it most, and later ones follow it
    factors = np.zeros_like(covariance)
    ordered = np.zeros_like(x)
    for k, block in enumerate(covariance):
        factor, order, _, _ = dpstrf(block, lower=1)
        factors[k] = np.tril(factor)
        ordered[k] = x[k, order - 1]
    stream = torch.Generator().manual_seed(0)
    uniform = torch.rand(DRAWS, x.shape[1], generator=stream, dtype=torch.float64).numpy()
    whole = log_unit_volume(n, 2) + np.log(a).sum()

    def cumulant(log_s: float) -> float:
        """K(s)."""
        scale = 1 / math.sqrt(2 * math.exp(log_s))
        masses = _log_masses(ordered, factors * scale, uniform)
        return n / 2 * (math.log(math.pi) - log_s) + np.log(a).sum() + masses.sum()

    # 1. the tilt s with -K'(s) = 1, where K(s) + s is least
    found = minimize_scalar(
        lambda log_s: cumulant(log_s) + math.exp(log_s),
        bounds=(math.log(LEAST), math.log(n)),
        method="bounded",
        options={"xatol": 1e-3},
    )
    s = math.exp(found.x)
    # 2. s^2 K''(s), of its differences in ln s: with t = ln s, K_tt = s^2 K'' + s K' there
    before = cumulant(found.x - STEP)
    after = cumulant(found.x + STEP)
    second = (after - 2 * cumulant(found.x) + before) / STEP**2
    spread = math.sqrt(max(second + s, 0.0))
    tail = spread**2 / 2 + float(log_ndtr(-spread))
    return float(min(found.fun + tail, whole, 0.0))


def _log_masses(x: np.ndarray, factors: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """ln of P(N(x, L L^T) in [0, 1]^d) of each block: (m,); L, (m, d, d), lower triangular."""
    blocks, d = x.shape
    drawn = np.zeros((blocks, len(uniform), d))
    total = np.zeros((blocks, len(uniform)))
    for i in range(d):
        # 1. the bounds of the i-th standard normal, given those before it
        spread = factors[:, i, i, None]
        at = x[:, i, None] + np.einsum("bj,buj->bu", factors[:, i, :i], drawn[:, :, :i])
        low = -at / spread
        high = (1 - at) / spread
        # 2. the mass between them, on the side where both are in the lower tail
        flip = low > 0
        log_first = log_ndtr(np.where(flip, -high, low))
        log_second = log_ndtr(np.where(flip, -low, high))
        ratio = np.exp(np.minimum(log_first - log_second, -1e-16))
        mass = log_second + np.log1p(-ratio)
        total += mass
        # 3. a draw between them
        log_u = np.logaddexp(log_first, np.log(uniform[:, i]) + mass)
        z = ndtri_exp(np.minimum(log_u, -1e-300))
        drawn[:, :, i] = np.where(flip, -z, z).clip(low, high)
    return np.logaddexp.reduce(total, axis=1) - math.log(len(uniform))
