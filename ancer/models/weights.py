"""Weights that others trained, from files of many forms, for a network known by its name.

Nothing but tensors is read: a file that carries code is refused, and nothing of it is run. What was
found in a file is said in the log and kept as the network's `provenance`.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ancer._files import HEADER, sha256_of, tensors_of
from ancer.models.networks import Normalized, Statistics, build, with_provenance
from ancer.models.tensors import compare, holds_tensors, read_pickled

LOG = logging.getLogger(__name__)
# where a file's dictionary may hold its tensors; the first that does is taken
ENTRIES = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "ema",
    "ema_state_dict",
    "model_ema",
    "state_dict_ema",
)
DEPTH = 3  # of entries within entries
# what wrappers put before names: DataParallel, torch.compile, and those of training programs
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
COUNTERS = {"n_averaged"}  # of torch.optim.swa_utils.AveragedModel, beside the network's tensors

# what numpy writes for a number beside tensors, such as an accuracy; numpy 1 had another name
_SCALAR = np.float64(0).__reduce__()[0]
NUMPY_SCALARS = (
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
)


def load_weights(
    path: str | Path,
    *,
    arch: str,
    classes: int,
    normalize: Mapping[str, Sequence[float]] | None,
) -> nn.Module:
    """A network with the weights of a file, for images (B, C, H, W) in [0, 1]: logits (B, classes).

    path: a safetensors file where its name ends so, or else what torch.save wrote. arch: as
    `networks.architecture` takes it. normalize: {"mean": [...], "std": [...]}, one number a channel
    in the units of images in [0, 1], for a network that takes (x - mean) / std; None for one that
    takes the pixels as they are. It replaces the normalisation that an architecture of ours begins
    with; that of `digits_cnn`, `mlp` and `resnet20` stays, so None is what they need.

    The tensors may lie in an entry of ENTRIES, all their names may begin with some of PREFIXES, and
    they may be of another precision. The network is in float32 and eval mode, on the CPU. Its
    `provenance` holds arch, sha256 and normalize, and what was found: entry (None: the file
    itself), prefix, and cast (the other precisions).

    Raises FileNotFoundError when there is no file, and ValueError for an unknown architecture, for
    mean and std of other units, and for a file that is truncated or foreign, carries code, differs
    in any name or shape from the network, or holds integers for weights, infinities or NaN.

    Example:
        >>> torch.save({"ema": build("mlp", 3).half().state_dict()}, "net.pt")
        >>> net = load_weights("net.pt", arch="mlp", classes=3, normalize=None)
        >>> net(torch.rand(5, 2)).shape
        torch.Size([5, 3])
        >>> net.provenance["entry"], net.provenance["cast"]
        ('ema', ['float16'])
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}: put the file there")
    statistics = None if normalize is None else _statistics(normalize)
    net = build(arch, classes).to("cpu", torch.float32)
    if isinstance(net, Normalized):
        channels = net.mean.numel()
        statistics = statistics or ((0.0,) * channels, (1.0,) * channels)
        net = net.net

    entry, tensors = _tensors(path)
    wanted = net.state_dict()
    prefix, state, unexpected = _without_prefix(tensors, wanted)
    problem = f"{path} is no {arch} with {classes} classes"
    compare(problem, state, wanted, classes=classes, unexpected=unexpected)
    cast = _cast(path, state, wanted)
    net.load_state_dict(state)

    provenance = {
        "arch": arch,
        "sha256": sha256_of(path),
        "entry": entry,
        "prefix": prefix,
        "cast": cast,
        "normalize": normalize and {name: list(values) for name, values in normalize.items()},
    }
    LOG.info("weights of %s: %s", path, provenance)
    if statistics is not None:
        net = Normalized(net, *statistics)
    return with_provenance(net, provenance)


def _statistics(normalize: Mapping[str, Sequence[float]]) -> tuple[Statistics, Statistics]:
    """Mean and standard deviation, checked."""
    if set(normalize) != {"mean", "std"}:
        raise ValueError(f"normalize must be none or have mean and std, found {dict(normalize)}")
    mean = tuple(normalize["mean"])
    std = tuple(normalize["std"])
    if not mean or len(mean) != len(std):
        raise ValueError(
            f"normalize must have a mean and a std for each channel, found {len(mean)} and "
            f"{len(std)}"
        )
    for m, s in zip(mean, std, strict=True):
        if not (0 <= m <= 1 and 0 < s <= 1):
            raise ValueError(
                f"normalize must have means in [0, 1] and std in (0, 1], found {m} and {s}: "
                "divide those of pixels from 0 to 255 by 255"
            )
    return mean, std


def _tensors(path: Path) -> tuple[str | None, dict[str, Tensor]]:
    """The tensors of a file by their names there, and the entry that holds them."""
    content = _content(path)
    found = dict(_entries(content))
    if not found:
        there = "no dictionary"
        if isinstance(content, dict):
            there = f"a dictionary of {', '.join(map(str, list(content)[:6])) or 'nothing'}"
        raise ValueError(
            f"{path} is {there}: expected tensors by name, or a dictionary of those in an entry "
            f"{', '.join(ENTRIES)}"
        )
    entry, *others = found
    if others:
        LOG.info("%s: took entry %r, left %s", path, entry, others)
    return entry or None, found[entry]


def _content(path: Path) -> Any:
    if path.suffix != ".safetensors":
        fix = "get it again, or save its state_dict alone"
        return read_pickled(path, fix, NUMPY_SCALARS)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = tensors_of(file)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no safetensors file, or is truncated ({error}): get it again"
        ) from None
    if HEADER in metadata:
        raise ValueError(
            f"{path} is a checkpoint of ancer, which has its own normalisation: read it with "
            "ancer.models.checkpoints.load"
        )
    return tensors


def _entries(content: object, place: str = "", depth: int = 0) -> Iterator[tuple[str, dict]]:
    """The dictionaries of tensors in a file, each with its entry ("model.state_dict")."""
    if holds_tensors(content):
        yield place, content
    elif isinstance(content, dict) and depth < DEPTH:
        for name in ENTRIES:
            inner = f"{place}.{name}" if place else name
            yield from _entries(content.get(name), inner, depth + 1)


def _without_prefix(
    tensors: dict[str, Tensor], wanted: Mapping[str, Tensor]
) -> tuple[str, dict[str, Tensor], list[str]]:
    """The beginning without which most names are wanted, tensors without it, and other names."""

    def fits(prefix: str) -> int:
        return sum(prefix + name in tensors for name in wanted)

    prefix = max(_prefixes(tensors), key=fits)
    state = {}
    others = []
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            state[name.removeprefix(prefix)] = tensor
        elif name not in COUNTERS:
            others.append(name)
    return prefix, state, others


def _prefixes(names: Mapping[str, Tensor]) -> list[str]:
    """Every sequence of PREFIXES, the empty one first, with which some name begins."""
    found = [""]
    for before in found:  # which grows meanwhile
        for prefix in PREFIXES:
            if any(name.startswith(before + prefix) for name in names):
                found.append(before + prefix)
    return found


def _cast(path: Path, state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Put tensors of the network's precisions into `state`; returns the other ones that it had."""
    cast = set()
    for name, tensor in state.items():
        found = _name(tensor)
        if tensor.is_meta or tensor.layout is not torch.strided:
            raise ValueError(f"{path}: {name} is no plain tensor: save it dense, with its numbers")
        if tensor.is_floating_point() != wanted[name].is_floating_point():
            raise ValueError(
                f"{path}: {name} holds {found}, expected {_name(wanted[name])}: "
                "weights that were quantized or rounded are not read"
            )
        if tensor.dtype != wanted[name].dtype:
            cast.add(found)
        state[name] = tensor.to(wanted[name].dtype)
        if not torch.isfinite(state[name]).all():
            raise ValueError(
                f"{path}: {name} holds NaN or infinities (as {_name(state[name])}): its training "
                "went astray, or the file was altered"
            )
    return sorted(cast)


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
