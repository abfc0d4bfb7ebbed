"""Images as training sees them: shifted, cut to a part, mirrored, by chance."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def augmented(x: Tensor, stream: torch.Generator, *, crop: int, patch: int, flip: bool) -> Tensor:
    """Images x (B, C, H, W) shifted by up to `crop` pixels each way, cut and mirrored by chance.

    patch: side of the part that is left, 0 for all; flip: with probability 1/2. Without any of them
    any x as it is. See `Recipe`.
    """
    if crop:
        sides = x.shape[2:]
        x = _part(F.pad(x, [crop] * 4), stream, sides)
    if patch:
        x = _part(x, stream, (patch, patch))
    if flip:
        chance = torch.rand((len(x), 1, 1, 1), generator=stream, device=x.device)
        x = torch.where(chance < 0.5, x.flip(3), x)
    return x


def _part(x: Tensor, stream: torch.Generator, sides: Sequence[int]) -> Tensor:
    """A part of these sides (height, width) of each image x (B, C, H, W), anywhere in it."""
    rows = _some(x, stream, 2, sides[0])[:, :, None]
    columns = _some(x, stream, 3, sides[1])[:, None, :]
    image = torch.arange(len(x), device=x.device)[:, None, None]
    channels_last = x.permute(0, 2, 3, 1)
    return channels_last[image, rows, columns].permute(0, 3, 1, 2)


def _some(x: Tensor, stream: torch.Generator, dim: int, count: int) -> Tensor:
    """So many numbers in a row along a dimension of each image, (B, count)."""
    room = x.shape[dim] - count
    first = torch.randint(0, room + 1, (len(x), 1), generator=stream, device=x.device)
    return first + torch.arange(count, device=x.device)
