"""What a worker runs: a function of the network, loaded once, with the same code and arithmetic."""

import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ancer._files import sha256_of
from ancer.classifier import Classifier
from ancer.datasets.dataset import Dataset
from ancer.evaluation.arithmetic import machine
from ancer.models import checkpoints


@dataclass(frozen=True)
class Network:
    """A checkpoint and how it is evaluated.

    path: absolute, the same on all machines. arch: what it must be. sha256: of the file. shape: of
    an image. settings: of `Classifier`, name and value. code: hash of the code of ancer that is to
    run.
    """

    path: str
    arch: str
    sha256: str
    classes: int
    shape: tuple[int, ...]
    settings: tuple[tuple[str, Any], ...]
    code: str

    @classmethod
    def of(cls, path: Path, arch: str, data: Dataset, settings: dict) -> "Network":
        """The checkpoint at `path`, for such images; errors as of `checkpoints.load`."""
        classes = len(data.classes)
        checkpoints.load(path, arch=arch, classes=classes)
        return cls(
            path=str(path.resolve()),
            arch=arch,
            sha256=sha256_of(path),
            classes=classes,
            shape=tuple(data.images.shape[1:]),
            settings=tuple(settings.items()),
            code=code_of_ancer(),
        )


def describe(network: Network) -> dict[str, dict]:
    """How this process evaluates the network: its `Evaluation`, and the machine.

    Raises RuntimeError for another version of ancer or a worker of several threads, ValueError for
    another file.
    """
    classifier = classifier_of(network)
    return {
        "evaluation": asdict(classifier.evaluation(network.shape)),
        "machine": machine(classifier.device),
    }


def call(network: Network, expected: dict[str, dict], function: Callable, *arguments) -> tuple:
    """(function(classifier, *arguments), seconds), with the network on this process's device.

    expected: `describe` of the process whose results are kept already. Another kind of machine adds
    up in another order, which could change a vote, so a process that differs raises RuntimeError.
    """
    found = describe(network)
    for part, values in expected.items():
        for name, value in values.items():
            if found[part][name] != value:
                raise RuntimeError(
                    f"{_where()} has {name} {found[part][name]!r}, the first one {value!r}: "
                    "use workers of one kind"
                )
    start = time.perf_counter()
    result = function(classifier_of(network), *arguments)
    return result, time.perf_counter() - start


@cache
def classifier_of(network: Network) -> Classifier:
    """The network on this process's device, loaded once."""
    if code_of_ancer() != network.code:
        raise RuntimeError(
            f"{_where()} has other code of ancer: install the same revision everywhere"
        )
    worker = _worker()
    # settings of torch's arithmetic are a process's, not a thread's
    if worker is not None and worker.state.nthreads > 1:
        raise RuntimeError(
            f"{_where()} runs {worker.state.nthreads} tasks at once: start it with --nthreads 1 "
            "(jobqueue: cores: 1)"
        )
    module = checkpoints.load(
        network.path, arch=network.arch, sha256=network.sha256, classes=network.classes
    )
    return Classifier(module.to(_device()), **dict(network.settings))


@cache
def code_of_ancer() -> str:
    """A hash of all modules and tables of this package."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.toml")]):
        digest.update(str(path.relative_to(package)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _device() -> torch.device:
    """The GPU of this process: of several, those of a local cluster (0, 1, ...) take one each."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    name = getattr(_worker(), "name", 0)
    if not isinstance(name, int):
        name = 0
    return torch.device("cuda", name % torch.cuda.device_count())


def _where() -> str:
    worker = _worker()
    return "this process" if worker is None else f"worker {worker.address}"


def _worker():
    """Dask's worker, where one runs this process."""
    if "distributed" not in sys.modules:
        return None
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None
