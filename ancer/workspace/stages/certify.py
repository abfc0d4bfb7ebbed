"""The certify stage: a certificate for each image and method."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ancer._files import sha256_of
from ancer.bases.basis import Basis
from ancer.bases.lattice import arithmetic
from ancer.certification import certify
from ancer.classifier import Classifier
from ancer.datasets.dataset import Dataset
from ancer.noise.law import Noise
from ancer.regions.region import ABSTAIN
from ancer.selection import certify_best
from ancer.smoothing import SmoothedClassifier
from ancer.workspace.experiment import Experiment
from ancer.workspace.fingerprints import key_of
from ancer.workspace.imports import code_of
from ancer.workspace.methods import Method
from ancer.workspace.notebooks import chunked
from ancer.workspace.parameters.sections import rules_of
from ancer.workspace.stages._runner import Runner, runner
from ancer.workspace.store.columns import best_row, row
from ancer.workspace.store.rows import RowStore
from ancer.workspace.store.theta import read_theta
from ancer.workspace.store.timing import save_seconds

DIAMETERS = (10.0, 20.0, 50.0, 100.0)  # of the image box: scales of noise in which no image shows
FALLBACK_DRAWS = 250  # at each of them, at most


def certify_images(experiment: Experiment) -> pd.DataFrame:
    """The rows of all test images and methods of the first seed; of all seeds in results/rows.

    All that affects a row makes the key of the row store: a killed run goes on where it stopped.
    `cluster` in params.yaml says who computes; that alone changes no row. Rows are written as they
    are finished, in any order, and put in order at the end.
    """
    methods = experiment.certified_methods
    # its errors before work starts
    _ = experiment.theta_provenance
    images = {name: experiment.images_of(name) for name in methods}
    for name in methods:
        read_theta(experiment.file("theta"), images[name], _needed(experiment, name))
    first = experiment.parameters.seed
    seeds = range(first, first + experiment.parameters.certify.seeds)
    with runner(experiment) as run:
        provenance = _provenance(experiment, run)
        with RowStore(experiment.target("rows"), key=key_of(**provenance)) as store:
            for method, seed in itertools.product(methods.values(), seeds):
                missing = store.missing(method.name, images[method.name], seed)
                for found, seconds in run(
                    certified_rows,
                    _tasks(experiment, method, missing, seed),
                    what=f"certify {method.name}",
                    total=len(missing),
                    images=len,
                ):
                    store.append(found, seconds=seconds)
            # what changes no row is in no key
            provenance |= {"seeds": len(seeds), "fallback": _fallback(experiment, run)}
            rows, spent = store.finish(images=images, seeds=seeds, provenance=provenance)
    counts = {name: len(seeds) * len(of_method) for name, of_method in images.items()}
    folder = experiment.profile.results("timing")
    at = run.setting["machine"]
    save_seconds(folder, experiment.name, "certify", spent, counts, at)
    return rows[rows["seed"] == first].reset_index(drop=True)


def _needed(experiment: Experiment, method: str) -> list[str]:
    """The methods whose chosen theta a method needs."""
    return list(experiment.methods.chain(method))


def _tasks(
    experiment: Experiment, method: Method, indices: Sequence[int], seed: int
) -> Iterator[tuple]:
    """The arguments of `certified_rows` for a few images at a time."""
    budget = sampling(experiment) | {"seed": seed}
    theta_file = experiment.file("theta")
    needed = _needed(experiment, method.name)
    bases = experiment.bases(method.best_of or [method.name])
    for chunk in chunked(indices, experiment.parameters.tasks.certify):
        data = experiment.data.take(chunk)
        yield data, method, experiment.law, theta_file, needed, bases, budget


def sampling(experiment: Experiment) -> dict[str, Any]:
    """How `certify` draws in this experiment: its arguments n0, n, alpha, classes, seed,
    shared, exact, lattice; and stop and looks, where it stops early.
    """
    certify_section = experiment.parameters.certify
    rules = rules_of(certify_section.stop)
    early = {"stop": rules, "looks": certify_section.looks} if rules else {}
    return {
        **early,
        "classes": certify_section.classes,
        "n0": certify_section.n0,
        "n": certify_section.n,
        "alpha": certify_section.alpha,
        "seed": experiment.parameters.seed,
        "shared": certify_section.shared,
        "exact": experiment.lattice is not None,
        "lattice": experiment.data.lattice,
    }


def fallback_class(
    classifier: Classifier,
    law: Noise,
    shape: tuple[int, ...],
    lattice: float | None,
    seed: int,
    draws: int = FALLBACK_DRAWS,
) -> dict[str, Any]:
    """The class that pure noise gets most often, and its share: {"class": 3, "share": 0.98}.

    By `draws` at each of four scales so large that the image plays no part: at c diameters of the
    image box in the law's norm, n^(1/p) each, the probability of a class differs between two images
    by at most 1 / (2 c), whatever the network. shape: of an image; lattice: the noise's step.

    With ever more noise an image of this class is certified ever farther, whatever it shows. A
    network that has no finite outputs so far from images has none: class -1, share 0.
    """
    scales = torch.tensor(DIAMETERS) * math.prod(shape) ** (1 / law.norm)
    smoothed = SmoothedClassifier(classifier, law.with_theta(scales), lattice=lattice)
    black = torch.zeros(len(scales), *shape)
    try:
        votes = smoothed.counts(black, draws, seed=seed, purpose="predict").sum(dim=0)
    except ValueError:  # certification says what else may be wrong with the network
        return {"class": ABSTAIN, "share": 0.0}
    most = int(votes.argmax())
    return {"class": most, "share": votes[most].item() / votes.sum().item()}


def _fallback(experiment: Experiment, run: Runner) -> dict[str, Any]:
    """The network's fallback class, found by whoever computes the rows."""
    parameters = experiment.parameters
    draws = min(FALLBACK_DRAWS, parameters.certify.n)
    task = (experiment.law, run.network.shape, experiment.lattice, parameters.seed, draws)
    ((found, _),) = run(
        fallback_class, [task], what="class of pure noise", total=1, images=lambda _: 1
    )
    return found


def _provenance(experiment: Experiment, run: Runner) -> dict[str, Any]:
    section = experiment.parameters.certify
    best_of = {}
    for name, method in experiment.certified_methods.items():
        if method.best_of is not None:
            best_of[name] = dict(method.best_of)
    more: dict[str, Any] = {} if section.stop is None else {"stop": section.stop}
    bases = {}
    for name, basis in experiment.bases(experiment.certified_methods).items():
        if not basis.is_pixels:
            bases[name] = basis.key
    if bases:
        more["bases"] = bases
    if experiment.data.converted:
        more["converted"] = True  # its images are not those of the files
    return {
        **more,
        "checkpoint": run.network.sha256,
        "theta": sha256_of(experiment.file("theta")),
        "noise": experiment.noise,
        "n0": section.n0,
        "n": section.n,
        "alpha": section.alpha,
        "classes": experiment.classes,
        "looks": section.looks,
        "shared": section.shared,
        "best_of": best_of,
        "seed": experiment.parameters.seed,
        "arithmetic": arithmetic(experiment.lattice),
        "code": code_of(certify, certify_best, experiment.kind),
        "evaluation": run.setting["evaluation"],
    }


def certified_rows(
    classifier: Classifier,
    data: Dataset,
    method: Method,
    law: Noise,
    theta_file: Path,
    needed: Sequence[str],
    bases: Mapping[str, Basis],
    budget: dict[str, Any],
) -> list[dict[str, Any]]:
    """Rows of `method` for the images of `data`.

    law: the noise of training; theta_file: holds theta of the methods that have a function; needed:
    those of them that `method` needs. bases: of the method, or of each candidate. budget: n0, n,
    alpha, seed, exact and lattice of `certify`.
    """
    chosen = read_theta(theta_file, data.digest_of, needed)
    labels = zip(data.labels.tolist(), data.digests, strict=True)
    budget = {**budget, "classes": method.classes or budget["classes"]}
    about = {"method": method.name, "seed": budget["seed"], "classes": budget["classes"]}

    def noise_of(name: str) -> Noise:
        theta: Tensor = chosen.get(name, law.theta.expand(len(data)))
        return law.in_basis(bases[name]).with_theta(theta)

    rows = []
    if method.best_of is not None:
        candidates = {name: noise_of(name) for name in method.best_of}
        found = certify_best(
            classifier,
            data.images,
            candidates,
            shares=method.best_of,
            indices=data.indices,
            **budget,
        )
        for best, (label, image) in zip(found, labels, strict=True):
            rows.append(best_row(best, label=label, image=image, **about))
        return rows
    noise = noise_of(method.name)
    certificates = certify(classifier, data.images, noise, indices=data.indices, **budget)
    for certificate, (label, image) in zip(certificates, labels, strict=True):
        draws = certificate.n if law.deterministic else budget["n0"] + certificate.n
        rows.append(row(certificate, label=label, image=image, draws=draws, **about))
    return rows
