"""The optimize stage: theta of each image, by each method that has a function for it."""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ancer.bases.basis import Basis
from ancer.classifier import Classifier
from ancer.noise.law import Noise
from ancer.workspace.experiment import Experiment
from ancer.workspace.fingerprints import key_of
from ancer.workspace.imports import code_of
from ancer.workspace.methods import Method
from ancer.workspace.notebooks import chunked
from ancer.workspace.stages._runner import Runner, runner
from ancer.workspace.store.theta import ThetaStore
from ancer.workspace.store.timing import save_seconds


def choose_theta(experiment: Experiment) -> None:
    """theta of all test images, each method after its start, written to data/theta.

    What a killed run had finished is found again under a key of all that affects it, and nothing
    that was computed with other parameters, other code or on another kind of machine is ever used.
    `cluster` in params.yaml says who computes; that alone changes no theta.
    """
    parameters = experiment.parameters
    methods = experiment.chosen_methods
    data = experiment.data
    digest_of = data.digest_of
    chunks = list(map(dict, chunked(list(digest_of.items()), parameters.tasks.optimize)))
    bases = experiment.bases(methods)
    counts = {name: experiment.methods.images(name, len(data)) for name in methods}
    with runner(experiment) as run:
        provenance = {
            "checkpoint": run.network.sha256,
            "noise": experiment.noise,
            "evaluate": parameters.evaluate.model_dump(),
            "methods": {
                name: _description(method, bases[name]) for name, method in methods.items()
            },
            "code": code_of(experiment.kind),
            "seed": parameters.seed,
            **run.setting["machine"],
        }
        for part in ("model", "probe"):  # of a network whose code alone was changed
            provenance[part] = run.setting["evaluation"][part]
        if any(method.fit for method in methods.values()):
            provenance["fitted to"] = experiment.training_data().sha256
        path = experiment.target("theta")
        with ThetaStore(path, key=key_of(**provenance), counts=counts) as store:
            missing = list(itertools.filterfalse(store.has, chunks))
            fitted = _fitted(experiment, bases, run) if missing else {}
            for proposal, _ in run(
                propose,
                _tasks(experiment, missing, counts, bases, fitted),
                what="optimize",
                total=sum(map(len, missing)),
                images=lambda proposal: len(proposal.indices),
            ):
                images = {index: digest_of[index] for index in proposal.indices}
                store.add(images, proposal.theta, seconds=proposal.seconds)
            seconds = store.finish(chunks, provenance=provenance)
            for name, (_, spent) in fitted.items():
                seconds[name] = spent
    folder = experiment.profile.results("timing")
    at = run.setting["machine"]
    save_seconds(folder, experiment.name, "optimize", seconds, counts, at)


def _fitted(
    experiment: Experiment, bases: Mapping[str, Basis], run: Runner
) -> dict[str, tuple[Tensor, float]]:
    """theta, (1, ...), of the methods that have one for all images, and the seconds that it took.

    Fitted to the first training images.
    """
    found = {}
    seed = experiment.parameters.seed
    for name, method in experiment.chosen_methods.items():
        if method.fit is not None:
            data = experiment.training_data()
            some = data.take(data.indices[: method.fit])
            law = experiment.law.in_basis(bases[name])
            task = (method, some.images, law, seed, some.indices)
            ((theta, seconds),) = run(fit, [task], what=f"fit {name}", total=1, images=lambda _: 1)
            found[name] = (theta, seconds)
    return found


def _tasks(
    experiment: Experiment,
    chunks: Sequence[Mapping[int, str]],
    counts: Mapping[str, int],
    bases: Mapping[str, Basis],
    fitted: Mapping[str, tuple[Tensor, float]],
) -> Iterator[tuple]:
    """The arguments of `propose` for each chunk of images; counts: of each method's images."""
    theta = {name: found for name, (found, _) in fitted.items()}
    for chunk in chunks:
        indices = list(chunk)
        x = experiment.data.take(indices).images
        first = experiment.data.position_of[indices[0]]
        todo = []
        for name, method in experiment.chosen_methods.items():
            todo.append((method, min(counts[name] - first, len(indices))))
        yield x, experiment.law, indices, todo, bases, theta, experiment.parameters.seed


def _description(method: Method, basis: Basis) -> dict:
    assert method.theta is not None
    described: dict[str, Any] = {
        "theta": f"{method.theta.__module__}.{method.theta.__qualname__}",
        "start": method.start,
        "options": dict(method.options),
        "code": code_of(method.theta),
    }
    for name in ("images", "fit"):
        if getattr(method, name) is not None:
            described[name] = getattr(method, name)
    if not basis.is_pixels:
        described["basis"] = basis.key
    return described


@dataclass(frozen=True)
class Proposal:
    """theta of some images and the seconds that it took, by method."""

    indices: Sequence[int]
    theta: dict[str, Tensor]
    seconds: dict[str, float]


def fit(
    classifier: Classifier, method: Method, x: Tensor, law: Noise, seed: int, indices: Sequence[int]
) -> Tensor:
    """One theta for all images by a method, fitted to images x (B, ...): (1, ...)."""
    return method.choose(classifier, x, law, seed, indices)


def propose(
    classifier: Classifier,
    x: Tensor,
    law: Noise,
    indices: Sequence[int],
    methods: Sequence[tuple[Method, int]],
    bases: Mapping[str, Basis],
    fitted: Mapping[str, Tensor],
    seed: int,
) -> Proposal:
    """theta of images x (B, ...), numbered `indices`, from the training noise `law`.

    methods: those with a function, each after its start, and for how many of the images, the first,
    each is wanted. bases: of each of them; fitted: theta of those that have one for all images.
    """
    theta: dict[str, Tensor] = {}
    seconds = {}
    for method, count in methods:
        if count <= 0:
            continue
        if method.name in fitted:
            theta[method.name] = fitted[method.name].expand(count, *x.shape[1:]).contiguous()
            continue
        began = time.perf_counter()
        start = law
        if method.start in theta:
            start = law.in_basis(bases[method.start]).with_theta(theta[method.start][:count])
        start = start.in_basis(bases[method.name])
        theta[method.name] = method.choose(classifier, x[:count], start, seed, indices[:count])
        seconds[method.name] = time.perf_counter() - began
    return Proposal(indices, theta, seconds)
