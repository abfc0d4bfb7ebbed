"""The coverage stage: which severities of what happens to pictures the regions hold for."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ancer._files import write_text
from ancer.bases.basis import Basis
from ancer.bases.lattice import nearest
from ancer.datasets.dataset import Dataset
from ancer.perturbations.coverage import covered_severity
from ancer.perturbations.families import FAMILIES, Family, families_for
from ancer.regions.region import Region
from ancer.registry import find
from ancer.smoothing import SmoothedClassifier
from ancer.workspace.experiment import Experiment
from ancer.workspace.notebooks import chunked
from ancer.workspace.stages.memory import answered_methods, answers_of, certificates
from ancer.workspace.tables.certified import ALONE, WITH_MEMORY

NOTHING = 1e-75  # semi-axes of no region: they cover no severity
NUMBERS = 2**22  # of the images that are perturbed at once


def families_of(experiment: Experiment) -> dict[str, Family]:
    """The families that `coverage.families` names, or all that suit the images.

    Raises ValueError for an unknown one.
    """
    suited = families_for(tuple(experiment.data.images.shape[1:]))
    chosen = experiment.parameters.coverage.families
    if chosen is None:
        return suited
    for name in chosen:
        find(name, FAMILIES, "family of perturbations")
    return {name: family for name, family in suited.items() if name in chosen}


def covered_severities(experiment: Experiment) -> pd.DataFrame:
    """One row for each method, kind of answer and image, written to results/coverage.

    correct: 0 or 1; and a column for each family: the severity that the region covers.
    """
    data = experiment.data
    families = families_of(experiment)
    nothing = dict.fromkeys(families, 0.0)
    # 1. the regions, of certificates and of answers
    rows: dict[tuple[str, str, int], dict[str, Any]] = {}
    axes: dict[tuple[str, str, int], Tensor] = {}
    for place, prediction, label, region in _regions(experiment):
        method, answer, index = place
        correct = int(prediction == label)
        about = {"method": method, "answer": answer, "idx": index, "correct": correct}
        rows[place] = about | nothing
        if region is not None:
            axes[place] = region.axes
    # 2. what they cover, some images at a time, all of one basis together
    shape = data.images.shape[1:]
    for basis, kinds in _by_basis(experiment, rows).items():
        for chunk in chunked(data.indices, max(1, NUMBERS // shape.numel())):
            x = data.take(chunk).images
            of_chunk = torch.full((len(kinds), *x.shape), NOTHING, dtype=torch.float64)
            found = {}
            for (k, kind), (i, index) in itertools.product(enumerate(kinds), enumerate(chunk)):
                place = (*kind, index)
                if place in axes:
                    found[place] = (k, i)
                    of_chunk[k, i] = axes[place]
            for name, family in families.items():
                covered = covered_severity(family, x, of_chunk, experiment.norm, basis)
                for place, at in found.items():
                    rows[place][name] = covered[at].item()
    table = pd.DataFrame(list(rows.values()))
    path = experiment.profile.results("coverage") / f"{experiment.name}.csv"
    write_text(path, table.to_csv(index=False))
    return table


def _by_basis(
    experiment: Experiment, places: Iterable[tuple[str, str, int]]
) -> dict[Basis, list[tuple[str, str]]]:
    """The kinds of (method, answer) of some places, by the basis of their regions."""
    kinds: dict[Basis, list[tuple[str, str]]] = {}
    for method, answer in dict.fromkeys(place[:2] for place in places):
        kinds.setdefault(experiment.basis(method), []).append((method, answer))
    return kinds


def _regions(
    experiment: Experiment,
) -> Iterator[tuple[tuple[str, str, int], int, int, Region | None]]:
    """(method, answer, image), prediction, label and region of all certificates and answers."""
    for name in experiment.certified_methods:
        for found, label in certificates(experiment, name):
            yield (name, ALONE, found.index), found.prediction, label, found.region
    for name in answered_methods(experiment):
        for answer, found, label in answers_of(experiment, name):
            yield (name, WITH_MEMORY, found.index), answer.prediction, label, answer.region


def observed_accuracy(experiment: Experiment) -> pd.DataFrame:
    """How often the smoothed classifier is right on perturbed images, by few draws.

    One row for each method that has a theta of its own, family and shown severity, written to
    results/coverage; the classifier is smoothed with the theta of the unperturbed image. Of the
    first `coverage.images` images. No certificate: beside it, what holds without a proof.
    """
    section = experiment.parameters.coverage
    data = experiment.data.take(experiment.data.indices[: section.images])
    smoothed = {}
    for method, noise in experiment.noises(data).items():
        smoothed[method] = SmoothedClassifier(experiment.classifier, noise)
    lines = []
    for name, family in families_of(experiment).items():
        for severity in family.shown:
            moved = family(data.images, severity)
            if experiment.law.lattice is not None:
                moved = nearest(moved, experiment.law.lattice)
            for method in smoothed:
                votes = smoothed[method].counts(
                    moved,
                    section.n,
                    seed=experiment.parameters.seed,
                    purpose="predict",
                    indices=data.indices,
                )
                right = votes.argmax(dim=1) == data.labels
                line = {
                    "method": method,
                    "family": name,
                    "severity": severity,
                    "images": len(data),
                    "accuracy": right.double().mean().item(),
                }
                lines.append(line)
    found = pd.DataFrame(lines)
    path = experiment.profile.results("coverage") / f"{experiment.name}-observed.csv"
    write_text(path, found.to_csv(index=False))
    return found


def noise_budget(experiment: Experiment) -> pd.DataFrame:
    """T7: how much noise each method's classifier bears, and how it does under it.

    Of the first `coverage.images` images: the mean of theta^2 over coordinates and images (one
    pixel's variance, in any basis), the geometric mean of theta, and the share of `coverage.n`
    noisy copies that the network classifies correctly.
    """
    section = experiment.parameters.coverage
    data = experiment.data.take(experiment.data.indices[: section.images])
    seed = experiment.parameters.seed
    lines = []
    for name, noise in experiment.noises(data).items():
        smoothed = SmoothedClassifier(experiment.classifier, noise)
        votes = smoothed.counts(
            data.images, section.n, seed=seed, purpose="predict", indices=data.indices
        )
        right = votes.gather(1, data.labels[:, None]).double() / section.n
        theta = noise.theta_for(data.images).double().expand_as(data.images)
        line = {
            "experiment": experiment.name,
            "method": experiment.methods[name].label,
            "images": len(data),
            "mean theta^2": theta.square().mean().item(),
            "geometric mean of theta": theta.log().mean().exp().item(),
            "accuracy under noise": right.mean().item(),
        }
        lines.append(line)
    return pd.DataFrame(lines)


def strongest(
    experiment: Experiment, covered: pd.DataFrame
) -> tuple[Dataset, dict[str, dict[str, tuple[float, Tensor]]]]:
    """F9: an image, and by method and family the strongest covered severity and its picture.

    A typical image: of those that the last of `coverage.methods` has right, or of all, the one
    whose covered severities, ranked family by family, are nearest to the middle.
    """
    alone = covered[covered["answer"] == ALONE].set_index(["method", "idx"])
    chosen = experiment.parameters.coverage.methods
    methods = [name for name in chosen if name in covered["method"].values]
    last = alone.loc[methods[-1]]
    right = last[last["correct"] == 1]
    families = families_of(experiment)
    ranks = (right if len(right) else last)[list(families)].rank(pct=True).mean(axis=1)
    index = (ranks - 0.5).abs().idxmin()
    one = experiment.data.take([index])
    pictures: dict[str, dict[str, tuple[float, Tensor]]] = {}
    for method in methods:
        pictures[method] = {}
        for name, family in families.items():
            severity = alone.loc[(method, index), name]
            shown = family(one.images, severity) if severity > 0 else one.images
            pictures[method][name] = (severity, shown)
    return one, pictures
