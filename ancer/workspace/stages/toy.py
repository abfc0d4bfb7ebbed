"""The toy stage: a small network on the half-moons, for each law."""

import torch
from torch import nn

from ancer.datasets.loading import load
from ancer.models import checkpoints
from ancer.models.networks import build
from ancer.noise.law import Noise
from ancer.training.loop import Recipe, train
from ancer.workspace.experiment import Profile


def train_moons(profile: Profile, law: type[Noise]) -> nn.Module:
    """The network for one law, trained under its noise; kept in data/toy for the explorer."""
    section = profile.parameters.toy
    seed = profile.parameters.seed
    data = load("moons", split="train")
    recipe = Recipe(epochs=section.epochs, batch_size=section.batch_size, lr=section.lr)
    torch.manual_seed(seed)
    network = build("mlp", 2)
    train(network, data.images, data.labels, law.from_sigma(section.sigma), recipe, seed=seed)
    checkpoints.save(
        profile.target("toy", f"l{law.norm}"),
        network,
        arch="mlp",
        classes=2,
        provenance=section.model_dump(),
    )
    return network
