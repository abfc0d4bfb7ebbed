"""Blocks of a basis: coordinates that mix with one another and with no others."""

import math
from functools import lru_cache

import torch
from scipy.sparse import block_array, csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ancer.bases.basis import Basis

LARGEST = 4096  # coordinates of a basis that is looked at: its matrix is made
NOTHING = 1e-12  # an entry of the matrix that is rounding


@lru_cache(maxsize=4)
def blocks_of(basis: Basis) -> tuple[Tensor, Tensor, Tensor] | None:
    """The blocks of a basis: indices of their pixels and of their coefficients, (m, d) each, flat.

    And the matrix of each block, (m, d, d), a row for each coefficient. None where blocks differ in
    size or where there are more than LARGEST coordinates.
    """
    n = math.prod(basis.shape)
    if n > LARGEST:
        return None
    units = torch.eye(n, dtype=torch.float64).reshape(n, *basis.shape)
    matrix = basis.back(units).flatten(1)  # a row for each coefficient
    # a graph of coefficients and pixels: each part is a block
    mixes = csr_array((matrix.abs() > NOTHING).numpy())
    count, owner = connected_components(block_array([[None, mixes], [mixes.T, None]]))
    found = []
    for of_kind in torch.from_numpy(owner).reshape(2, n):
        if len(of_kind.bincount(minlength=count).unique()) > 1:
            return None
        found.append(of_kind.argsort(stable=True).reshape(count, n // count))
    coefficients, pixels = found
    return pixels, coefficients, matrix[coefficients[:, :, None], pixels[:, None, :]]
