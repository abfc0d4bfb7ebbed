"""Fixed bases of pictures: cosines (whole or in blocks), Haar's, and opponent colours."""

import math

import torch
from torch import Tensor

from ancer.bases.basis import Basis

# rows: light, red against blue, green against both
OPPONENT = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]], dtype=torch.float64)
OPPONENT /= OPPONENT.norm(dim=1, keepdim=True)


class Separable(Basis):
    """One orthonormal matrix for the rows' direction and one for the columns', in every channel.

    rows: (H, H); columns: (W, W); shape: (C, H, W).
    """

    def __init__(self, name: str, shape: tuple[int, ...], rows: Tensor, columns: Tensor):
        self.name = name
        self.shape = shape
        self.rows = rows
        self.columns = columns

    def to(self, x):
        return _both(x, self.rows, self.columns)

    def back(self, y):
        return _both(y, self.rows.mT, self.columns.mT)


def _both(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ x @ columns^T of each channel, as two products of matrices."""
    across = x @ columns.mT.to(x)
    return (across.mT @ rows.mT.to(x)).mT


class Nested(Basis):
    """A basis whose coefficients in some rows and columns are transformed again by another one.

    rows, columns: of those coefficients, an image of the inner basis in every channel.
    """

    def __init__(self, name: str, outer: Basis, rows: slice, columns: slice, inner: Basis):
        self.name = name
        self.shape = outer.shape
        self.outer = outer
        self.at = (..., rows, columns)
        self.inner = inner

    def to(self, x):
        y = self.outer.to(x).clone()
        y[self.at] = self.inner.to(y[self.at])
        return y

    def back(self, y):
        y = y.clone()
        y[self.at] = self.inner.back(y[self.at])
        return self.outer.back(y)


class Coloured(Basis):
    """A basis of each channel, of light and two opponent colours in place of red, green, blue."""

    def __init__(self, name: str, basis: Basis, colours: Tensor = OPPONENT):
        self.name = name
        self.shape = basis.shape
        self.basis = basis
        self.colours = colours

    def to(self, x):
        return _mixed(self.basis.to(x), self.colours)

    def back(self, y):
        return self.basis.back(_mixed(y, self.colours.mT))


def _mixed(x: Tensor, colours: Tensor) -> Tensor:
    return torch.einsum("dc,...chw->...dhw", colours.to(x), x)


def cosines(n: int) -> Tensor:
    """The orthonormal discrete cosine transform (DCT-II) of n numbers: (n, n), slow ones first."""
    k = torch.arange(n, dtype=torch.float64)
    matrix = (math.pi / n * torch.outer(k, k + 0.5)).cos() * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def in_blocks(matrix: Tensor, n: int) -> Tensor:
    """A matrix of b numbers for each b of n: (n, n)."""
    return torch.block_diag(*[matrix] * (n // len(matrix)))


def haar(n: int, levels: int) -> Tensor:
    """Haar's transform of n numbers (a multiple of 2^levels): means of the last level first."""
    half = n // 2
    sums = torch.eye(half, dtype=torch.float64).repeat_interleave(2, dim=1) / math.sqrt(2)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(half)
    matrix = torch.cat([sums, sums * signs])
    if levels == 1:
        return matrix
    # the means once more
    deeper = torch.eye(n, dtype=torch.float64)
    deeper[:half, :half] = haar(half, levels - 1)
    return deeper @ matrix


def square_haar(name: str, shape: tuple[int, ...], levels: int) -> Basis:
    """Haar's transform of rows and columns level by level: all details of a level are square."""
    channels, height, width = shape
    outer = Separable(name, shape, haar(height, 1), haar(width, 1))
    if levels == 1:
        return outer
    half = (channels, height // 2, width // 2)
    inner = square_haar(name, half, levels - 1)
    return Nested(name, outer, slice(half[1]), slice(half[2]), inner)
