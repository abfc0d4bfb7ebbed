"""Bases of matrices: fitted to images, drawn at random, or one's own."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ancer.bases.basis import Basis, check_orthonormal, probes


class Dense(Basis):
    """An orthonormal matrix (n, n), whose rows are the basis; n = prod(shape).

    Raises ValueError unless it is one, to 1e-9.
    """

    def __init__(self, matrix: Tensor, shape: Sequence[int], *, name: str = "own"):
        n = math.prod(shape)
        if matrix.shape != (n, n):
            raise ValueError(
                f"basis {name}: images of shape {tuple(shape)} need a matrix of {(n, n)}, found "
                f"{tuple(matrix.shape)}"
            )
        self.name = name
        self.shape = tuple(shape)
        self.matrix = matrix.detach().double().clone()
        check_orthonormal(self)

    def to(self, x):
        return self._times(x, self.matrix.mT)

    def back(self, y):
        return self._times(y, self.matrix)

    def _times(self, x: Tensor, matrix: Tensor) -> Tensor:
        flat = x.flatten(x.dim() - len(self.shape))
        return (flat @ matrix.to(x)).reshape(x.shape)

    @cached_property
    def key(self):
        return f"{super().key} {_digest(self.matrix)}"


class Own(Basis):
    """A basis of one's own: anything with functions `to` and `back`, for images of one shape.

    Both keep numbers (float32 or float64), device and shape (..., *shape). Raises ValueError unless
    `to` is orthonormal and `back` its inverse, on random images in float64, to 1e-9.
    """

    def __init__(self, functions: Any, shape: Sequence[int], *, name: str = "own"):
        self.name = name
        self.shape = tuple(shape)
        self.functions = functions
        check_orthonormal(self)

    def to(self, x):
        return self.functions.to(x)

    def back(self, y):
        return self.functions.back(y)

    @cached_property
    def key(self):
        return f"{super().key} {_digest(self.to(probes(self.shape)))}"


def _digest(numbers: Tensor) -> str:
    """Of numbers up to 1, the same where they differ by rounding in float64."""
    whole = (numbers.cpu().contiguous() * 2**26).round().long()
    return hashlib.sha256(whole.numpy().tobytes()).hexdigest()[:16]


def pca(images: Tensor, *, name: str = "pca") -> Dense:
    """The principal axes of (training) images (B, ...), the widest first.

    The same basis in every process of a machine. Where images do not vary at all (a border that is
    black in all of them), any axes would be principal: it has the pixels there, the first first.
    """
    if not isinstance(images, Tensor) or len(images) < 2:
        found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"principal axes need a tensor of two images or more, found {found}")
    flat = images.flatten(1).double()
    n = flat.shape[1]
    with _one_thread():
        covariance = (flat - flat.mean(dim=0)).T.cov()
        # axes of equal variance are set apart by far less than what an image has
        apart = 1e-9 * covariance.trace() / n
        order = torch.linspace(1, 0, n, dtype=torch.float64, device=flat.device)
        covariance += torch.diag(apart * order)
        _, columns = torch.linalg.eigh(covariance)
    axes = columns.flip(1).mT
    # of an axis and its opposite, that whose largest entry is positive
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return Dense(axes * largest.sign(), images.shape[1:], name=name)


def rotation(shape: Sequence[int], *, seed: int = 0, name: str = "rotation") -> Dense:
    """A random rotation of images of a shape: what a basis that knows nothing of images gives."""
    n = math.prod(shape)
    generator = torch.Generator().manual_seed(seed)
    normals = torch.randn(n, n, generator=generator, dtype=torch.float64)
    with _one_thread():
        return Dense(torch.linalg.qr(normals).Q, shape, name=name)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of matrices in one order, whatever the process's number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
