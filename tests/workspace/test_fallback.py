"""The class that a network falls back to where there is nothing but noise."""

import pytest
import torch
from torch import nn

from ancer import Classifier, GaussianNoise, UniformNoise
from ancer.workspace.stages.certify import DIAMETERS, fallback_class

SHAPE = (2, 3, 3)
LAWS = [(GaussianNoise(0.25), None), (UniformNoise(0.4), None), (UniformNoise(0.4), 1 / 16)]


class Brightness(nn.Module):
    """Class 1 where the image is bright, else class 0, of three."""

    def __init__(self, bias):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, x):
        bright = x.flatten(1).mean(dim=1, keepdim=True)
        zero = torch.zeros_like(bright)
        return torch.cat([zero, bright, zero - 1e9], dim=1) + self.bias


@pytest.mark.parametrize("law, lattice", LAWS)
def test_of_a_constant_network_it_is_its_class(law, lattice):
    network = nn.Sequential(nn.Flatten(), nn.Linear(18, 4))
    nn.init.zeros_(network[1].weight)
    nn.init.zeros_(network[1].bias)
    with torch.no_grad():
        network[1].bias[2] = 1.0
    found = fallback_class(Classifier(network), law, SHAPE, lattice, seed=0)
    assert found == {"class": 2, "share": 1.0}


@pytest.mark.parametrize("law, lattice", LAWS)
def test_pure_noise_is_bright_as_often_as_not(law, lattice):
    """1,000 draws: six standard deviations, which a seed fails with probability 2e-9.

    A bias as large as an image moves the votes by at most 1 / (2 c) at c diameters of the box.
    """
    found = fallback_class(Classifier(Brightness([0.0, 0.0, 0.0])), law, SHAPE, lattice, seed=0)
    spread = 6 * 0.5 / 1000**0.5
    assert found["class"] in (0, 1) and 0.5 <= found["share"] < 0.5 + spread
    moved = sum(1 / (2 * c) for c in DIAMETERS) / len(DIAMETERS)
    biased = fallback_class(Classifier(Brightness([1.0, 0.0, 0.0])), law, SHAPE, lattice, seed=0)
    assert biased["share"] < 0.5 + moved + spread


class Overflowing(nn.Module):
    def forward(self, x):
        return torch.exp(x.flatten(1).abs()) @ torch.ones(18, 3)


def test_a_network_without_finite_outputs_so_far_out_has_none():
    found = fallback_class(Classifier(Overflowing()), GaussianNoise(0.25), SHAPE, None, seed=0)
    assert found == {"class": -1, "share": 0.0}
