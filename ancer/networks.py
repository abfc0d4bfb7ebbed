"""Networks with the normalisation of their images inside."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


class DigitsCNN(nn.Module):
    """Three 3x3 convolutions for (B, 1, 8, 8) images in [0, 1]; returns logits (B, classes)."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, stride=2)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1, stride=2)
        self.head = nn.Linear(256, classes)

    def forward(self, x):
        x = (x - 0.3) / 0.38  # mean and standard deviation of the digits' pixels
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))
        return self.head(x.flatten(1))


class MLP(nn.Module):
    """Two hidden layers for points (B, features) in [0, 1]; returns logits (B, classes)."""

    def __init__(self, classes: int = 2, features: int = 2, width: int = 64):
        super().__init__()
        self.hidden = nn.ModuleList([nn.Linear(features, width), nn.Linear(width, width)])
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = 4 * (x - 0.5)
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self.head(x)


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut that pads channels with zeros (He et al. 2016, option A)."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.stride, self.more = 1 + (after > before), after - before
        self.conv1 = nn.Conv2d(before, after, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return F.relu(x + y)


class ResNet20(nn.Module):
    """The CIFAR form of a residual network for (B, 3, 32, 32) images (He et al. 2016); returns logits (B, classes)."""

    def __init__(self, classes: int = 10):
        super().__init__()
        widths = [16] * 4 + [32] * 3 + [64] * 3
        self.register_buffer("mean", torch.tensor([0.4914, 0.4822, 0.4465]).reshape(1, 3, 1, 1))  # of CIFAR-10's pixels
        self.register_buffer("std", torch.tensor([0.2470, 0.2435, 0.2616]).reshape(1, 3, 1, 1))
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(*[Block(a, b) for a, b in pairwise(widths)])
        self.head = nn.Linear(64, classes)

    def forward(self, x):
        x = (x - self.mean) / self.std
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.head(x.mean((2, 3)))


class RoundingReader(nn.Module):
    """An attack on noise in floating point: knows a black image by the rounding of x + theta * z alone.

    For float32 images on the lattice 1/255; logits (B, 2). Class 0 where a pixel below 2^-9 is not a multiple of
    2^-31: numbers round 0 keep finer digits than sums with a pixel of 2/255 or more ever have (Voracek and Hein,
    ICLR 2023, section 4). As a function on the reals it says class 0 almost everywhere, so it has no such boundary.
    """

    def forward(self, x):
        x = x.flatten(1)
        fine = (x.abs() < 2.0**-9) & ((x * 2.0**31).frac() != 0)
        votes = 2 * fine.any(dim=1).float() - 1
        return torch.stack([votes, -votes], dim=1)


ARCHITECTURES = {"digits_cnn": DigitsCNN, "mlp": MLP, "resnet20": ResNet20}


def build(arch: str, classes: int) -> nn.Module:
    """A fresh network of a known architecture, with torch's current random state."""
    if arch not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {arch!r}: choose one of {sorted(ARCHITECTURES)}")
    return ARCHITECTURES[arch](classes)
