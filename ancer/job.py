"""The usual job in one call: images, several methods, certificates beside each other."""

import hashlib
import inspect
import json
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ancer._files import write_text
from ancer.bases.lattice import step_of
from ancer.certificates.many import FILE, Certificates, Labels, as_array, checked_labels
from ancer.certificates.remarks import remarks
from ancer.certificates.results import RUN, Results, joined
from ancer.certification import certify
from ancer.classifier import Classifier, as_classifier, check_images
from ancer.confidence.budget import check_budget, check_enough, check_whole
from ancer.noise.law import Noise
from ancer.noise.named import noise_named
from ancer.optimization.anisotropic import optimize_anisotropic
from ancer.optimization.isotropic import optimize_isotropic
from ancer.registry import NAME, find
from ancer.smoothing import image_indices

Theta = Callable[..., Tensor]
METHODS: dict[str, Theta | None] = {
    "fixed": None,  # theta of the training noise
    "isotropic": optimize_isotropic,
    "anisotropic": optimize_anisotropic,
}
PLANNED = ("seed", "indices", "n", "alpha")  # what theta functions may take
# random splits count more draws the larger theta is
OF_SPLITS = METHODS | {"anisotropic": partial(optimize_anisotropic, enlarge=1.0, growth=4.0)}
TABLE = "certificates.csv"


def evaluate(
    model: nn.Module | Classifier,
    images: Tensor | np.ndarray | Iterable[tuple[Tensor, Tensor]],
    labels: Labels | None = None,
    *,
    sigma: float,
    noise: str = "gaussian",
    methods: Sequence[str] | Mapping[str, Theta | None] = ("fixed", "isotropic", "anisotropic"),
    n: int = 100_000,
    alpha: float = 0.001,
    seed: int = 0,
    exact: bool = False,
    lattice: float = 1 / 255,
    chunk: int = 20,
    indices: Sequence[int] | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> Results:
    """Certify images with several methods, each at alpha, and put them side by side.

    Warns where the certificates mean little: see `certificates.remarks`.

    Args:
        model, n, alpha, seed, exact, lattice, indices: as in `certify`.
        images: (B, ...) in [0, 1], a tensor or array, or a DataLoader of (images, labels).
        labels: the true classes, where they are known.
        sigma: of the noise under which the model was trained.
        noise: gaussian (l2), uniform or splitting (l1).
        methods: of "fixed", "isotropic" and "anisotropic", which start from theta of the one
            before; or names with functions theta(classifier, x, noise, *, seed, indices), as in
            docs/own-method.md, which start from the training noise; None is that noise itself.
        out: a folder. Each `chunk` images of a method are kept there when they are done, and a run
            that was killed goes on from them; of other arguments, images or weights, ValueError
            says which (of a function of yours only the name is compared). `Results.load(out)` reads
            it; certificates.csv is the table.
        chunk: images at a time.
        progress: a bar (tqdm).

    Returns:
        A mapping from methods to `Certificates`.

    Guarantee:
        Of each certificate, that of `certify`. Between images whose theta differ nothing is
        promised: `Memory` answers for them.

    Raises:
        ValueError: before any certificate, on arguments outside their domain.

    Example:
        >>> x = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
        >>> found = evaluate(nn.Identity(), x, [0, 1], sigma=0.25, n=1000, progress=False)
        >>> list(found), found.labels.tolist()
        (['fixed', 'isotropic', 'anisotropic'], [0, 1])
    """
    # 1. all arguments, before any work
    check_budget(n, 100, alpha, "two")
    check_enough(n, alpha, "two")
    check_whole(seed=seed, chunk=chunk)
    x, truth = _images_and_labels(images, labels)
    numbers = list(image_indices(x, indices))
    classifier = as_classifier(model)
    start = noise_named(noise, sigma, lattice)
    functions, chained = _functions(methods, OF_SPLITS if start.deterministic else METHODS)
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, found {chunk}")
    step_of(exact, lattice)
    settings = {"n": int(n), "alpha": float(alpha), "seed": int(seed)}
    settings |= {"exact": bool(exact), "lattice": lattice}
    evaluation = classifier.evaluation(x.shape[1:])
    if truth is not None and truth.max() >= (classifier.classes or 0):
        raise ValueError(f"label {truth.max()} is outside the model's {classifier.classes} classes")
    folder = None if out is None else Path(out)
    if folder is not None:
        about = {**settings, "sigma": float(sigma), "noise": noise, "chunk": int(chunk)}
        about |= {"indices": numbers, "methods": list(functions), "chained": chained}
        _open_run(folder / RUN, about | asdict(evaluation), x, truth)

    # 2. some images after the other, each by all methods
    found: dict[str, list[Certificates]] = defaultdict(list)
    with tqdm(total=len(x) * len(functions), unit="image", disable=not progress) as bar:
        for first in range(0, len(x), chunk):
            part = x[first : first + chunk]
            before = start
            for method, function in functions.items():
                bar.set_description(method)
                if function is None:
                    before = start
                place = None if folder is None else folder / method / f"{first:08d}"
                named = {**settings, "indices": numbers[first : first + chunk]}
                done = _certified(classifier, part, before, function, named, place)
                found[method].append(done)
                bar.update(len(part))
                if chained:
                    before = before.with_theta(_theta_of(done))

    # 3. what is to be said of them
    whole = {method: joined(parts) for method, parts in found.items()}
    for method, certificates in whole.items():
        for remark in remarks(certificates):
            warnings.warn(f"{method}: {remark}", stacklevel=2)
    results = Results(whole, truth)
    if folder is not None:
        write_text(folder / TABLE, results.to_frame().to_csv(index=False))
    return results


def _certified(
    classifier: Classifier,
    x: Tensor,
    start: Noise,
    function: Theta | None,
    settings: Mapping[str, Any],
    place: Path | None,
) -> Certificates:
    """Certificates of some images by one method; read where `place` holds them."""
    if place is not None and (place / FILE).is_file():
        return Certificates.load(place)
    noise = start
    if function is not None:
        planned = {name: settings[name] for name in PLANNED if name in _takes(function)}
        noise = start.with_theta(function(classifier, x.to(classifier.device), start, **planned))
    found = certify(classifier, x, noise, **settings)
    if place is not None:
        found.save(place)
    return found


def _takes(function: Theta) -> set[str]:
    """The names of a function's arguments."""
    return set(inspect.signature(function).parameters)


def _theta_of(certificates: Certificates) -> Tensor:
    theta = torch.stack([certificate.theta for certificate in certificates])
    return theta.flatten() if theta[0].numel() == 1 else theta


def _functions(
    methods: Sequence[str] | Mapping[str, Theta | None], known: Mapping[str, Theta | None]
) -> tuple[dict[str, Theta | None], bool]:
    """Functions by name, and whether each starts from the one before."""
    if isinstance(methods, str):
        raise ValueError(f"methods must be several names, found {methods!r}: [{methods!r}]")
    if not methods:
        raise ValueError(f"methods must name one or more of {', '.join(METHODS)}, found none")
    for name in methods:
        if not re.fullmatch(NAME, name):
            raise ValueError(f"a method's name is letters, digits and ._-, found {name!r}")
    if isinstance(methods, Mapping):
        for name, function in methods.items():
            if function is not None and not callable(function):
                raise ValueError(
                    f"methods[{name!r}] must be a function or None, found {function!r}"
                )
        return dict(methods), False
    names = list(methods)
    if not isinstance(methods, Sequence):
        raise ValueError(f"methods must be in an order, found {methods!r}: {names}")
    if "isotropic" in names and "anisotropic" in names[: names.index("isotropic")]:
        raise ValueError(
            "isotropic starts from one number an image, theta of the method before it: name it "
            f"before anisotropic, found {names}"
        )
    return {name: find(name, known, "method") for name in names}, True


def _images_and_labels(images: Any, labels: Labels | None) -> tuple[Tensor, np.ndarray | None]:
    """Images as one tensor, and labels as an array; of a DataLoader both."""
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(images)
    elif not isinstance(images, Tensor):
        if labels is not None:
            raise ValueError("labels come with the batches of a DataLoader: leave out labels=")
        images, labels = _of_loader(images)
    check_images(images)
    if labels is None:
        return images, None
    truth = as_array(labels)
    if truth.shape != (len(images),):
        raise ValueError(f"found {len(images)} images and labels of shape {truth.shape}")
    return images, checked_labels(truth, len(images))


def _of_loader(loader: Any) -> tuple[Tensor, Tensor]:
    """All images of a DataLoader, and their labels."""
    if isinstance(loader, str) or not isinstance(loader, Iterable):
        raise ValueError(
            "images must be a tensor, an array or DataLoader(dataset, batch_size=100), "
            f"found {type(loader).__name__}"
        )
    images = []
    labels = []
    for batch in loader:
        try:
            of_batch, named = batch
            named = torch.as_tensor(named)
            matches = named.shape == of_batch.shape[:1]
        except (AttributeError, RuntimeError, TypeError, ValueError):
            matches = False
        if not matches:
            raise ValueError(
                "batches must be (images, labels), a number an image: "
                f"DataLoader(dataset, batch_size=100)? Found {type(loader).__name__}"
            )
        images.append(of_batch)
        labels.append(named)
    if not images:
        raise ValueError("the DataLoader has no batch: there is nothing to certify")
    return torch.cat(images), torch.cat(labels)


def _open_run(
    path: Path,
    about: dict[str, Any],
    x: Tensor,
    labels: np.ndarray | None,
) -> None:
    """Write what a run is of, or ValueError where certificates of another one are."""
    now = {
        **about,
        "labels": None if labels is None else labels.tolist(),
        "images": hashlib.sha256(x.detach().contiguous().cpu().numpy().tobytes()).hexdigest(),
    }
    if path.is_file() and any(path.parent.glob(f"*/*/{FILE}")):
        there = json.loads(path.read_text())
        other = [name for name in now if there.get(name) != now[name]]
        if other:
            raise ValueError(
                f"{path.parent} holds a run with other {', '.join(other)}: give another folder, or "
                "the same arguments to go on with it"
            )
    write_text(path, json.dumps(now, indent=1))
