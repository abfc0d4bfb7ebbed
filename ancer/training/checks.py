"""Labels and parts of images that a network cannot be trained on, with the fix in words."""

import torch
from torch import Tensor

from ancer.noise.law import Noise


def check_labels(labels: Tensor, count: int) -> None:
    """Raise ValueError unless labels are so many class numbers, (count,) in int64."""
    if not isinstance(labels, Tensor):
        raise ValueError(
            f"labels must be a tensor of {count} int64 class numbers, found "
            f"{type(labels).__name__}: torch.tensor(labels)"
        )
    if labels.shape != (count,) or labels.dtype != torch.int64 or labels.min() < 0:
        raise ValueError(
            f"labels must be {count} int64 class numbers >= 0, found {tuple(labels.shape)} "
            f"{labels.dtype} from {labels.min().item():g}"
        )


def within(outputs: Tensor, labels: Tensor) -> Tensor:
    """labels of outputs (B, K); IndexError for one that is none, as a CPU's losses raise it.

    A GPU's end the process.
    """
    if labels.is_cuda and labels.max() >= outputs.shape[1]:
        raise IndexError(f"Target {labels.max().item()} is out of bounds.")
    return labels


def check_patch(side: int, images: Tensor, noise: Noise) -> None:
    """Raise ValueError unless images (M, C, H, W) and noise have parts of side x side pixels."""
    if side > min(images.shape[2:]):
        raise ValueError(
            f"patch must be at most the side of the images {tuple(images.shape[2:])}, found {side}"
        )
    if noise.theta.dim():
        raise ValueError("parts of images have noise of one sigma: patch needs theta as a number")
