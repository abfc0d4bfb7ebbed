"""The train stage: a base classifier under noise, or a checkpoint of others."""

from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from ancer.datasets.dataset import Dataset
from ancer.evaluation.arithmetic import device, machine
from ancer.models import checkpoints
from ancer.models.libraries import LIBRARIES
from ancer.models.networks import architecture, build, with_provenance
from ancer.models.published import load_published
from ancer.models.weights import load_weights
from ancer.noise.law import Noise
from ancer.optimization.jitter import jitter
from ancer.smoothing import SmoothedClassifier
from ancer.training.loop import train
from ancer.workspace.experiment import Experiment, Profile
from ancer.workspace.fingerprints import key_of
from ancer.workspace.imports import code_of
from ancer.workspace.notebooks import report_epochs
from ancer.workspace.parameters.models import PublishedRecipe, TrainingRecipe, WeightsRecipe
from ancer.workspace.parameters.options import named

# of an experiment; what the data set's options do shows in its images
NOT_OF_TRAINING = {"dataset", "classes", "convert", "methods", "method_options"}
COPIES = 100  # of each test image, under noise


def train_network(experiment: Experiment) -> tuple[nn.Module, list[float]]:
    """The experiment's network, and the mean loss of each epoch.

    The state after each epoch is kept under a key of all that affects it: a training that was
    killed goes on from there. The checkpoint holds that key, so a stage that is repeated because
    something else changed does not train again. A checkpoint of others has no losses.
    """
    recipe = experiment.recipe
    if not isinstance(recipe, TrainingRecipe):
        return _read(experiment, recipe), []
    data = experiment.training_data()
    seed = _seed(experiment)
    kinds = (architecture(experiment.section.arch), experiment.kind)
    code = code_of(train, build, jitter, *kinds)
    key = key_of(code=code, training_data=data.sha256, **_provenance(experiment))
    kept = _kept(experiment, key)
    if kept is not None:
        return kept
    torch.manual_seed(seed)
    network = build(experiment.section.arch, len(data.classes)).to(device())
    noise = noise_of(experiment, data.images)
    losses: list[float] = []
    for step, settings in enumerate(recipe.recipes(experiment.section.options)):
        train(
            network,
            data.images,
            data.labels,
            noise,
            settings,
            seed=seed,
            resume=experiment.target("checkpoint").with_suffix(f".{key}.{step}.state"),
            progress=report_epochs(settings.epochs, losses),
        )
    return with_provenance(network, {"key": key, "losses": losses}), losses


def _seed(experiment: Experiment) -> int:
    """Of the network's random streams: its recipe's, or the profile's."""
    own = getattr(experiment.recipe, "seed", None)
    return experiment.parameters.seed if own is None else own


def noise_of(experiment: Experiment, images: Tensor) -> Noise:
    """What the network is trained under: the experiment's noise, and the recipe's shifts."""
    under = experiment.recipe.under
    if under is None:
        return experiment.law
    noise = experiment.law.in_basis(experiment.basis_named(under.basis))
    theta = jitter(None, images[:1], noise, light=under.light, colour=under.colour)
    return noise.with_theta(theta)


def check_under(profile: Profile) -> None:
    """Raise ValueError where an experiment's noise or images cannot have its recipe's shifts."""
    for name, experiment in profile.experiments.items():
        recipe = experiment.recipe
        if isinstance(recipe, TrainingRecipe) and recipe.under is not None:
            with named(f"train.{experiment.section.training}.under, for {name}"):
                noise_of(experiment, experiment.some_data(1).images)


def _kept(experiment: Experiment, key: str) -> tuple[nn.Module, list[float]] | None:
    """The network of the checkpoint that is there, and its losses, where it is of this key."""
    path = experiment.target("checkpoint")
    try:
        network = checkpoints.load(path, arch=experiment.section.arch)
    except (FileNotFoundError, ValueError):
        return None
    provenance: Any = network.provenance
    if provenance.get("key") != key:
        return None
    return network.to(device()), provenance["losses"]


def accuracy_under_noise(experiment: Experiment, network: nn.Module) -> dict[str, float]:
    """Of the test images: the share of noisy copies classified correctly, and of majorities."""
    data: Dataset = experiment.data
    smoothed = SmoothedClassifier(experiment.evaluated(network), experiment.law)
    seed = experiment.parameters.seed
    votes = smoothed.counts(data.images, COPIES, seed=seed, purpose="predict", indices=data.indices)
    correct = votes.gather(1, data.labels[:, None]).double() / COPIES
    majority = votes.argmax(dim=1) == data.labels
    return {
        "under noise": correct.mean().item(),
        "smoothed": majority.double().mean().item(),
    }


def save_network(experiment: Experiment, network: nn.Module, accuracy: dict[str, float]) -> None:
    """Write the checkpoint: weights and where they come from (no code inside)."""
    published = getattr(network, "provenance", {})
    checkpoints.save(
        experiment.target("checkpoint"),
        network,
        arch=experiment.section.arch,
        classes=len(experiment.data.classes),
        provenance={**_provenance(experiment), **published, "accuracy": accuracy},
    )


def _read(experiment: Experiment, recipe: PublishedRecipe | WeightsRecipe) -> nn.Module:
    path = experiment.profile.folder / experiment.section.options["file"]
    arch = experiment.section.arch
    classes = len(experiment.data.classes)
    if isinstance(recipe, PublishedRecipe):
        network = load_published(path, source=recipe.source, arch=arch, classes=classes)
    else:
        normalize = recipe.model_dump()["normalize"]
        network = load_weights(path, arch=arch, classes=classes, normalize=normalize)
    return network.to(device())


def _library(arch: str) -> dict[str, str]:
    """The library that makes a network, with its version; nothing where it is none of these."""
    library = arch.partition(":")[0]
    return {"library": f"{library} {version(library)}"} if library in LIBRARIES else {}


def _provenance(experiment: Experiment) -> dict:
    return {
        **experiment.section.model_dump(exclude=NOT_OF_TRAINING),
        **_library(experiment.section.arch),
        "name": experiment.name,
        "recipe": experiment.recipe.model_dump(exclude={"seed"}),
        "seed": _seed(experiment),
        **machine(device()),
    }
