"""What a task needs, in this process or on a worker: the network, loaded once, with the same code and arithmetic."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ancer import models
from ancer.noise import Noise
from ancer.optimization import optimize_anisotropic, optimize_isotropic
from ancer.store import Stopwatch


@dataclass(frozen=True)
class Network:
    """A checkpoint and how it is evaluated.

    path: absolute, the same on all machines. sha256: of the file. settings: of `models.Classifier`, name and value.
    code: hash of the code of ancer that is to run.
    """

    path: str
    sha256: str
    classes: int
    settings: tuple[tuple[str, object], ...]
    code: str

    @classmethod
    def of(cls, path: Path, classes: int, settings: dict) -> "Network":
        """The checkpoint at `path`; errors as of `models.load`."""
        models.load(path, classes=classes)
        return cls(str(path.resolve()), models.digest(path), classes, tuple(settings.items()), _code())


def describe(network: Network) -> dict[str, dict]:
    """How this process evaluates the network: `models.Evaluation` and `models.machine`.

    Raises RuntimeError for another version of ancer or a worker of several threads, ValueError for another file.
    """
    classifier = _classifier(network)
    return {"evaluation": asdict(classifier.evaluation), "machine": models.machine(classifier.device)}


def call(network: Network, expected: dict[str, dict], function: Callable, *arguments) -> tuple:
    """(function(classifier, *arguments), seconds), with the network on this process's device.

    expected: `describe` of the process whose results are kept already. Another kind of machine adds up in another
    order, which could change a vote, so a process that differs raises RuntimeError.
    """
    found = describe(network)
    for part, values in expected.items():
        for name, value in values.items():
            if found[part][name] != value:
                raise RuntimeError(
                    f"{_where()} has {name} {found[part][name]!r}, the first one {value!r}: use workers of one kind"
                )
    with Stopwatch() as watch:
        result = function(_classifier(network), *arguments)
    return result, watch.seconds


def propose(
    classifier: models.Classifier, x: Tensor, start: Noise, indices: Sequence[int], search: dict, ascent: dict
) -> tuple[Sequence[int], dict[str, Tensor], dict[str, float]]:
    """`indices`, theta of each optimized method for images x (B, ...), the second from the first, and seconds of each.

    search, ascent: settings of `optimize_isotropic` and `optimize_anisotropic`.
    """
    with Stopwatch() as isotropic_watch:
        isotropic = optimize_isotropic(classifier, x, start, indices=indices, **search)
    with Stopwatch() as anisotropic_watch:
        anisotropic = optimize_anisotropic(classifier, x, type(start)(isotropic), indices=indices, **ascent)
    theta = {"isotropic": isotropic, "anisotropic": anisotropic}
    return indices, theta, {"isotropic": isotropic_watch.seconds, "anisotropic": anisotropic_watch.seconds}


@cache
def _classifier(network: Network) -> models.Classifier:
    if _code() != network.code:
        raise RuntimeError(f"{_where()} has other code of ancer: install the same revision everywhere")
    if _worker() and _worker().state.nthreads > 1:  # settings of torch's arithmetic are a process's, not a thread's
        raise RuntimeError(
            f"{_where()} runs {_worker().state.nthreads} tasks at once: start it with --nthreads 1 (jobqueue: cores: 1)"
        )
    module = models.load(network.path, sha256=network.sha256, classes=network.classes)
    return models.Classifier(module.to(_device()), **dict(network.settings))


@cache
def _code() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _device() -> torch.device:
    """The GPU of this process: of several, those of a local cluster (named 0, 1, ...) take one each."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    name = _worker().name if _worker() else 0
    return torch.device("cuda", name % torch.cuda.device_count() if isinstance(name, int) else 0)


def _where() -> str:
    return f"worker {_worker().address}" if _worker() else "this process"


def _worker():
    """Dask's worker, where one runs this process."""
    if "distributed" not in sys.modules:
        return None
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None
