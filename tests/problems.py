"""Classifiers whose smoothed versions are known in closed form, and problems made of them."""

import math
from dataclasses import dataclass

import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from ancer.classifier import Classifier
from ancer.evaluation.identity import identity_of
from ancer.noise.law import Noise
from ancer.noise.sampled import LAWS

# the tensors of these tests are small: more threads only wait for one another
torch.set_num_threads(1)


class HalfSpace(nn.Module):
    """Class 0 where w . (x - 1/2) < m, class 1 elsewhere.

    Logits +-steepness/2 times that margin.
    """

    def __init__(self, w: Tensor, m: float, steepness: float = 1e4):
        super().__init__()
        self.w = nn.Parameter(w.clone())
        self.m, self.steepness = m, steepness

    def forward(self, x):
        margin = self.m - ((x - 0.5) * self.w).flatten(1).sum(1)
        return self.steepness / 2 * torch.stack([margin, -margin], dim=1)


class Slabs(nn.Module):
    """By the distance d of the first coordinate from 1/2.

    Class 0 where d < 0.3, 1 where d < 0.4, else 2. Under wide noise class 2 wins at every point,
    though it is never the class near the centre.
    """

    def __init__(self, steepness: float = 1e3):
        super().__init__()
        self.steepness = steepness

    def forward(self, x):
        d = (x.flatten(1)[:, :1] - 0.5).abs()
        return self.steepness * torch.cat([0.3 - d, 0.05 - (d - 0.35).abs(), d - 0.4], dim=1)

    @staticmethod
    def probabilities(law: str, theta: float) -> list[float]:
        """Exact probabilities of the three classes at the centre."""
        within = {
            d: 2 * norm.cdf(d / theta) - 1 if law == "gaussian" else min(d / theta, 1)
            for d in (0.3, 0.4)
        }
        return [within[0.3], within[0.4] - within[0.3], 1 - within[0.4]]


class Network(nn.Module):
    """A small network with everything a caller's module may have.

    Buffers, dropout, batch norm, in-place parts.
    """

    def __init__(self, classes: int = 4):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
        )
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        return self.head(self.layers(x).flatten(1))


def network(classes: int = 4) -> Network:
    """A Network with fixed weights for images (1, 4, 4), in train mode as a caller may leave it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Network(classes)
        module.head.weight.data.mul_(4)
        module.layers[2].running_mean.uniform_(-0.5, 0.5)
    return module.train()


class Recorder(nn.Module):
    """`module`, which shows a copy of its inputs to `see` first.

    (A function survives the copy of a module.)
    """

    def __init__(self, module: nn.Module, see):
        super().__init__()
        self.module, self.see = module, see

    def forward(self, x):
        self.see(x.clone())
        return self.module(x)


def counting(module: nn.Module, **numerics) -> Classifier:
    """A Classifier whose passes are those that count: without probe and check of its rows."""
    classifier = Classifier(module, **numerics)
    classifier._probe = lambda shape: ""
    classifier._checked = identity_of(classifier.module)
    return classifier


class Untouchable(nn.Module):
    """Fails the test when it is called: bad input must be refused before the work starts."""

    def forward(self, x):
        pytest.fail("the model was called")


class Outputs(nn.Module):
    """Returns whatever `function` makes of its inputs."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@dataclass(frozen=True)
class Problem:
    """A half-space classifier and a point x of class 0, with the exact smoothed classifier.

    law: "gaussian" or "uniform"; w: normal of the half-space, shaped like an image; x: the image;
    m: so that the margin at x is m; theta: a number, or scales that broadcast to the image.
    """

    name: str
    law: str
    w: Tensor
    x: Tensor
    m: float
    theta: float | Tensor

    @property
    def model(self) -> HalfSpace:
        return HalfSpace(self.w, self.m + ((self.x - 0.5) * self.w).sum().item())

    def noise(self, copies: int = 1) -> Noise:
        """The noise for a batch of `copies` of x."""
        theta = self.theta
        return LAWS[self.law](
            theta.expand(copies, *theta.shape) if isinstance(theta, Tensor) else theta
        )

    def batch(self, copies: int = 1) -> Tensor:
        return self.x.expand(copies, *self.x.shape)

    @property
    def axes_of_noise(self) -> Tensor:
        """theta as float64, one for each coordinate."""
        return torch.as_tensor(self.theta).float().double().expand(self.x.shape)

    @property
    def gap(self) -> float:
        """min ||(y - x) / theta||_p over the boundary: m over the dual norm of theta * w."""
        spread = (self.axes_of_noise * self.w.double()).abs().flatten()
        return self.m / (spread.norm() if self.law == "gaussian" else spread.max()).item()

    @property
    def p_a(self) -> float:
        """P(class 0), not by the library's gap but by the law of the noise.

        Gaussian: w . theta z ~ N(0, ||theta * w||^2). Uniform: with s the largest |theta_k w_k| and
        the others so small that they never reach past it,
        P(s u + rest < m) = E[(1 + (m - rest) / s) / 2] = (1 + m / s) / 2.
        """
        spread = (self.axes_of_noise * self.w.double()).abs().flatten()
        if self.law == "gaussian":
            return norm.cdf(self.m / math.sqrt((spread**2).sum().item()))
        s = spread.max().item()
        assert self.m + spread.sum().item() - s <= s, (
            "the closed form needs one dominant coordinate"
        )
        return (1 + self.m / s) / 2

    def class_of(self, y: Tensor) -> Tensor:
        """The smoothed class of points (..., *x.shape): smoothing a half-space leaves it as it is.

        No ties.
        """
        return (
            ((y - self.x.double()) * self.w.double()).flatten(-self.x.dim()).sum(-1) >= self.m
        ).long()


def _problems() -> list[Problem]:
    stream = torch.Generator().manual_seed(0)
    image = torch.randint(4, 13, (1, 4, 4), generator=stream) / 16
    normal = torch.randn(1, 4, 4, generator=stream)
    scales = 2.0 ** torch.randint(-4, 0, (1, 4, 4), generator=stream)
    pixel = torch.zeros(1, 4, 4)
    pixel[0, 1, 2] = -1
    plane, point, flat = (
        torch.tensor([0.6, -0.8]),
        torch.tensor([0.5, 0.25]),
        torch.tensor([0.0, 1.0]),
    )
    return [
        Problem("plane", "gaussian", plane, point, 0.25, 0.25),
        Problem("plane, stretched", "gaussian", plane, point, 0.25, torch.tensor([0.5, 0.125])),
        Problem("coordinate", "gaussian", flat, point, 0.125, torch.tensor([2.0, 0.125])),
        Problem("image", "gaussian", normal, image, 1.0, 0.25),
        Problem("image, stretched", "gaussian", normal, image, 1.0, scales),
        Problem("image, rows stretched", "gaussian", normal, image, 1.0, scales[:, :, :1]),
        Problem("coordinate", "uniform", flat, point, 0.25, 0.5),
        Problem("coordinate, stretched", "uniform", flat, point, 0.25, torch.tensor([2.0, 0.375])),
        Problem("plane, stretched", "uniform", plane, point, 0.25, torch.tensor([0.125, 0.75])),
        Problem("image", "uniform", pixel, image, 0.375, 0.5),
        Problem("image, stretched", "uniform", pixel, image, 0.25, scales),
    ]


PROBLEMS = [pytest.param(p, id=f"{p.law}: {p.name}") for p in _problems()]

# what a batch of images must not be, and what the message names
BAD_IMAGES = {
    "no batch": (torch.full((4,), 0.5), r"\(4,\)"),
    "no image": (torch.full((0, 1, 4, 4), 0.5), r"\(0, 1, 4, 4\)"),
    "no pixel": (torch.full((2, 0), 0.5), r"\(2, 0\)"),
    "8-bit": (torch.full((2, 1, 4, 4), 128, dtype=torch.uint8), "uint8"),
    "integer": (torch.ones(2, 1, 4, 4, dtype=torch.int64), "int64"),
    "half": (torch.full((2, 1, 4, 4), 0.5).half(), "float16"),
    "numpy": (torch.full((2, 1, 4, 4), 0.5).numpy(), "ndarray"),
    "above 1": (torch.full((2, 1, 4, 4), 1.25), "1.25"),
    "below 0": (torch.full((2, 1, 4, 4), -0.125), "-0.125"),
    "normalised": (torch.linspace(-2, 2, 32).reshape(2, 1, 4, 4), "-2 to 2"),
    "NaN": (torch.full((2, 1, 4, 4), float("nan")), "nan"),
    "one NaN": (torch.full((2, 1, 4, 4), 0.5).index_fill(3, torch.tensor(2), float("nan")), "nan"),
    "infinite": (torch.full((2, 1, 4, 4), float("inf")), "inf"),
}

# scales that do not fit images (2, 1, 4, 4)
BAD_SHAPES = [
    (1,),
    (3,),
    (2, 2),
    (1, 4, 4),
    (2, 4, 4),
    (1, 1, 4),
    (2, 1, 4),
    (2, 1, 4, 5),
    (2, 3, 4, 4),
]
