"""The ablations stage: an optimizer with one setting changed at a time."""

import time
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ancer._files import sha256_of
from ancer.bases.basis import PIXELS
from ancer.certification import certify
from ancer.datasets.dataset import Dataset
from ancer.evaluation.arithmetic import device, machine
from ancer.noise.law import Noise
from ancer.workspace.experiment import Experiment, Profile
from ancer.workspace.fingerprints import key_of
from ancer.workspace.imports import code_of
from ancer.workspace.notebooks import chunked, progress
from ancer.workspace.parameters.options import theta_function
from ancer.workspace.store.columns import row
from ancer.workspace.store.rows import RowStore
from ancer.workspace.store.timing import save_seconds

CHUNK = 10  # images of one step, which a kill can cost


def ablate(profile: Profile) -> dict[str, pd.DataFrame]:
    """Rows of each experiment that `ablations` names; a setting is a method of theirs.

    All on the same draws; a killed run goes on where it stopped.
    """
    names = profile.parameters.ablations.experiments
    return {name: _ablate(profile.experiments[name]) for name in names}


def _ablate(experiment: Experiment) -> pd.DataFrame:
    section = experiment.parameters.ablations
    data = experiment.some_data(section.images)
    starts = experiment.noises(data)
    settings = {_label(setting): setting for setting in section.settings}
    provenance = _provenance(experiment)
    with RowStore(experiment.target("ablations"), key=key_of(**provenance)) as store:
        for label, setting in settings.items():
            missing = store.missing(label, data.digest_of, experiment.parameters.seed)
            chunks = chunked(missing, CHUNK)
            for chunk in progress(chunks, f"{experiment.name}: {label}", len(missing)):
                rows, seconds = _rows(experiment, data, starts, chunk, label, setting)
                store.append(rows, seconds=seconds)
        images = dict.fromkeys(settings, data.digest_of)
        seeds = [experiment.parameters.seed]
        rows, spent = store.finish(images=images, seeds=seeds, provenance=provenance)
    counts = dict.fromkeys(settings, len(data))
    folder = experiment.profile.results("timing")
    at = machine(device())
    save_seconds(folder, experiment.name, "ablations", spent, counts, at)
    return rows


def _label(setting: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in setting.items()) or "as published"


def _rows(
    experiment: Experiment,
    data: Dataset,
    starts: dict[str, Noise],
    chunk: Sequence[int],
    label: str,
    setting: dict[str, Any],
) -> tuple[list[dict], float]:
    """Rows of some images with one setting, and the seconds of the optimizer."""
    parameters = experiment.parameters
    section = parameters.ablations
    optimize = theta_function(section.theta, "ablations.theta")
    options = dict(setting)
    start = starts[options.pop("start", section.start)]
    basis = experiment.basis_named(options.pop("basis", PIXELS.name))
    ours = data.take(chunk)
    at = list(map(data.indices.index, chunk))
    of_images = start.with_theta(start.theta_for(data.images)[at]).in_basis(basis)
    began = time.perf_counter()
    theta = optimize(
        experiment.classifier,
        ours.images,
        of_images,
        seed=parameters.seed,
        indices=chunk,
        **options,
    )
    seconds = time.perf_counter() - began
    certificates = certify(
        experiment.classifier,
        ours.images,
        of_images.with_theta(theta),
        n0=parameters.certify.n0,
        n=section.n,
        alpha=parameters.certify.alpha,
        classes=parameters.certify.classes,
        seed=parameters.seed,
        indices=chunk,
    )
    rows = []
    images = zip(ours.labels.tolist(), ours.digests, strict=True)
    for certificate, (y, image) in zip(certificates, images, strict=True):
        of_image = row(
            certificate,
            method=label,
            label=y,
            image=image,
            seed=parameters.seed,
            draws=section.n + parameters.certify.n0,
            classes=parameters.certify.classes,
        )
        rows.append(of_image)
    return rows, seconds


def _provenance(experiment: Experiment) -> dict[str, Any]:
    parameters = experiment.parameters
    optimize = theta_function(parameters.ablations.theta, "ablations.theta")
    return {
        "checkpoint": sha256_of(experiment.file("checkpoint")),
        "theta": sha256_of(experiment.file("theta")),
        "noise": experiment.noise,
        "evaluate": parameters.evaluate.model_dump(),
        "ablations": parameters.ablations.model_dump(),
        "alpha": parameters.certify.alpha,
        "classes": parameters.certify.classes,
        "n0": parameters.certify.n0,
        "seed": parameters.seed,
        "code": code_of(optimize, certify, experiment.kind),
        **machine(device()),
    }
