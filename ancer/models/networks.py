"""Networks with the normalisation of their images inside."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from ancer.models.libraries import LIBRARIES
from ancer.registry import find

Statistics = tuple[float, ...]  # one number a channel

# mean and standard deviation of the pixels
CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _register_statistics(module: nn.Module, mean: Statistics, std: Statistics) -> None:
    module.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
    module.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))


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
    """Two 3x3 convolutions, and a shortcut that pads channels with zeros (He et al., option A)."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.stride = 2 if after > before else 1
        self.more = after - before
        self.conv1 = nn.Conv2d(before, after, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return F.relu(x + y)


class ResNet20(nn.Module):
    """The CIFAR form of a residual network (He et al. 2016) for (B, 3, 32, 32) images.

    Returns logits (B, classes).
    """

    def __init__(self, classes: int = 10):
        super().__init__()
        widths = [16] * 4 + [32] * 3 + [64] * 3
        _register_statistics(self, *CIFAR10)
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(*[Block(a, b) for a, b in pairwise(widths)])
        self.head = nn.Linear(64, classes)

    def forward(self, x):
        x = (x - self.mean) / self.std
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.head(x.mean((2, 3)))


class Normalized(nn.Module):
    """A network for normalised images that takes (B, 3, H, W) images in [0, 1].

    (x - mean) / std goes to `net`. mean, std: one number a channel, kept as buffers (1, 3, 1, 1)
    beside the weights.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, net: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        _register_statistics(self, mean, std)
        self.net = net

    def forward(self, x):
        return self.net((x - self.mean) / self.std)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut of 1x1 convolutions (He et al. 2016, option B)."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample = nn.Sequential()  # nothing, where the shapes agree
        if before != after:
            self.downsample.append(nn.Conv2d(before, after, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(after))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class WideBlock(nn.Module):
    """Two 3x3 convolutions, each after normalisation and ReLU; no dropout.

    Zagoruyko and Komodakis, BMVC 2016.
    """

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.shortcut = None
        if before != after:
            self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x):
        y = F.relu(self.bn1(x))
        if self.shortcut is not None:
            x = self.shortcut(y)
        return x + self.conv2(F.relu(self.bn2(self.conv1(y))))


def _stages(
    block: Callable[[int, int, int], nn.Module], name: str, blocks: int, widths: list[int]
) -> dict[str, nn.Module]:
    """Stages name1, name2, ... of so many blocks each, from width to width.

    All but the first halve the image.
    """
    stages: dict[str, nn.Module] = {}
    for number, (before, after) in enumerate(pairwise(widths), start=1):
        stride = 1 if number == 1 else 2
        layers = [block(before, after, stride)]
        for _ in range(blocks - 1):
            layers.append(block(after, after, 1))
        stages[f"{name}{number}"] = nn.Sequential(*layers)
    return stages


def _resnet(stem: dict[str, nn.Module], blocks: int, widths: list[int], classes: int) -> Normalized:
    layers = OrderedDict(
        **stem,
        **_stages(BasicBlock, "layer", blocks, widths),
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(widths[-1], classes),
    )
    return Normalized(nn.Sequential(layers), *CIFAR10)


def _stem(width: int) -> dict[str, nn.Module]:
    return {
        "conv1": nn.Conv2d(3, width, 3, padding=1, bias=False),
        "bn1": nn.BatchNorm2d(width),
        "relu": nn.ReLU(),
    }


def resnet18(classes: int = 10) -> Normalized:
    """ResNet-18 with a 3x3 stem for (B, 3, 32, 32) images (kuangliu/pytorch-cifar)."""
    return _resnet(_stem(64), 2, [64, 64, 128, 256, 512], classes)


def resnet18_ancer(classes: int = 10) -> Normalized:
    """ANCER's ResNet-18 for (B, 3, 32, 32) images: ImageNet's stem without normalisation.

    Its first stage works on 8x8 pixels, so it takes a fifteenth of the arithmetic of `resnet18`.
    """
    stem = {
        "conv1": nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        "relu": nn.ReLU(),
        "maxpool": nn.MaxPool2d(3, stride=2, padding=1),
    }
    return _resnet(stem, 2, [64, 64, 128, 256, 512], classes)


def resnet110(classes: int = 10) -> Normalized:
    """ResNet-110 for (B, 3, 32, 32) images, of Cohen et al. (ICML 2019)."""
    return _resnet(_stem(16), 18, [16, 16, 32, 64], classes)


def wrn40_2(classes: int = 10) -> Normalized:
    """WideResNet-40-2 for (B, 3, 32, 32) images, of RS4A (Yang et al., ICML 2020)."""
    layers = OrderedDict(
        conv1=nn.Conv2d(3, 16, 3, padding=1, bias=False),
        **_stages(WideBlock, "block", 6, [16, 32, 64, 128]),
        bn1=nn.BatchNorm2d(128),
        relu=nn.ReLU(),
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(128, classes),
    )
    return Normalized(nn.Sequential(layers), *CIFAR10)


def resnet50(classes: int = 1000) -> Normalized:
    """torchvision's ResNet-50 for (B, 3, 224, 224) images."""
    from torchvision.models import resnet50  # slow to import

    return Normalized(resnet50(num_classes=classes), *IMAGENET)


class RoundingReader(nn.Module):
    """An attack on noise in floating point: knows a black image by the rounding of x + theta * z.

    For float32 images on the lattice 1/255; logits (B, 2). Class 0 where a pixel below 2^-9 is not
    a multiple of 2^-31: numbers round 0 keep finer digits than sums with a pixel of 2/255 or more
    ever have (Voracek and Hein, ICLR 2023, section 4). As a function on the reals it says class 0
    almost everywhere, so it has no such boundary.
    """

    def forward(self, x):
        x = x.flatten(1)
        fine = (x.abs() < 2.0**-9) & ((x * 2.0**31).frac() != 0)
        votes = 2 * fine.any(dim=1).float() - 1
        return torch.stack([votes, -votes], dim=1)


# each makes a network that returns logits (B, classes) from the number of classes
Architecture = Callable[[int], nn.Module]
ARCHITECTURES: dict[str, Architecture] = {
    "digits_cnn": DigitsCNN,
    "mlp": MLP,
    "resnet20": ResNet20,
    "resnet18": resnet18,
    "resnet18_ancer": resnet18_ancer,
    "resnet110": resnet110,
    "wrn40_2": wrn40_2,
    "resnet50": resnet50,
}


def with_provenance(module: nn.Module, provenance: dict) -> nn.Module:
    """The module in eval mode, with where its weights come from as its attribute `provenance`."""
    module.provenance = provenance  # type: ignore[assignment]
    return module.eval()


def architecture(arch: str) -> Architecture:
    """The function of an architecture, which makes a network for a number of classes.

    arch: a key of ARCHITECTURES; "torchvision:<name>" or "timm:<name>", which take the pixels as
    they are (see `models.libraries`); or "package.module:function". Raises ValueError for an
    unknown name, and where timm is needed and not installed.

    Example:
        >>> architecture("torchvision:resnet18")(10)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    library, _, name = str(arch).partition(":")
    if library in LIBRARIES:
        return LIBRARIES[library](name)
    return find(arch, ARCHITECTURES, "architecture")


def build(arch: str, classes: int) -> nn.Module:
    """A fresh network of a known `architecture`, with torch's current random state."""
    return architecture(arch)(classes)
