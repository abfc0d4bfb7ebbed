"""Coefficients of a basis as pictures: by colour, and the slow frequencies at the top left."""

from torch import Tensor

from ancer.bases.basis import Basis
from ancer.bases.named import parsed
from ancer.workspace.methods import PCA

CHANNELS = ("light", "red - blue", "green")


def by_band(basis: Basis, y: Tensor) -> list[tuple[str, Tensor]]:
    """What stands beside "theta" of a picture, and the picture (1 or 3, H, W), of y (C, H, W).

    Of pixels y itself. Elsewhere a picture for each colour, and coefficients of blocks gathered by
    frequency: each tile is one frequency, and shows all blocks.
    """
    if basis.is_pixels or y.dim() != 3:
        return [("", y)]
    if ":" in basis.name or basis.name == PCA:
        return [(", coefficients", y.mean(dim=0, keepdim=True))]
    kind, size, factors = parsed(basis.name)
    if kind == "dct" and size is not None:
        y = _gathered(y, size)
    if "colours" in factors:
        return [(f", {name}, slow to fast", y[k : k + 1]) for k, name in enumerate(CHANNELS)]
    return [(", slow to fast", y)]


def _gathered(y: Tensor, size: int) -> Tensor:
    """(C, H, W) with the coefficient (u, v) of all blocks of size x size as one tile."""
    channels, height, width = y.shape
    tiles = y.reshape(channels, height // size, size, width // size, size)
    return tiles.permute(0, 2, 1, 4, 3).reshape(channels, height, width)
