"""Checkpoints that others published, read as tensors alone and compared strictly with our networks.

What each source wrote was taken from its code, which `published.toml` names beside all that is
needed to read it: a further source is a further entry there. What is easily got wrong:

- SmoothAdv published two families. ImageNet's and most of CIFAR-10's networks only subtract the
  mean; those in `cifar10/finetune_cifar_from_imagenetPGD2steps` and `cifar10/self_training` divide
  by the deviation too.
- MACER's network for CIFAR-10 and ANCER's for ImageNet take the pixels as they are. ANCER's
  ResNet-18 ends in a softmax, which is left off here: every network returns logits.
- What is called sigma for uniform noise: RS4A means the standard deviation (lambda = sqrt 3 *
  sigma, which is `UniformNoise.from_sigma`), ANCER means lambda * sqrt 3 (lambda = sigma / sqrt 3).
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ancer._files import sha256_of
from ancer.models.networks import build, with_provenance
from ancer.models.tensors import compare, holds_tensors, read_pickled
from ancer.registry import closest

IN_THE_FILE = None


@dataclass(frozen=True)
class Source:
    """How the files of one publisher are read."""

    format: str  # the code that wrote them
    download: str
    entry: str | None  # of the file's dictionary that holds the tensors; None: the file itself
    names: dict[str, str]  # beginnings of tensors' names (regular expressions) -> ours
    networks: dict[str, tuple | None]  # architectures, each with mean and deviation of pixels
    sigma: str  # what the training noise is, in the names of `ancer.noise.named`


def _read_table() -> tuple[dict[str, Source], dict[str, dict[str, str]]]:
    """Sources by name, and published parts of names that are not ours by architecture."""
    table = tomllib.loads(Path(__file__).with_name("published.toml").read_text(encoding="utf-8"))
    statistics: dict[str, tuple | None] = {"in the file": IN_THE_FILE}
    for name, values in table["normalisations"].items():
        statistics[name] = (tuple(values["mean"]), tuple(values["std"]))
    sources = {}
    for name, values in table["sources"].items():
        networks = {arch: statistics[key] for arch, key in values.pop("networks").items()}
        entry = values.pop("entry", None)
        sources[name] = Source(entry=entry, networks=networks, **values)
    return sources, table["renames"]


SOURCES, RENAMED = _read_table()


def load_published(path: str | Path, *, source: str, arch: str, classes: int) -> nn.Module:
    """The network of a file that others published, for images (B, 3, H, W) in [0, 1].

    Returns logits (B, classes). source: a key of `SOURCES`; arch: one of its `networks`; classes:
    of the head, 10 for CIFAR-10, 1000 for ImageNet.

    In float32 and eval mode, on the CPU. Its buffers `mean` and `std` hold the source's
    normalisation, its `provenance` attribute the source, the architecture and the file's sha256.
    Nothing but tensors is read: a file that carries code is refused, and nothing of it is run.

    Raises FileNotFoundError when there is no file, and ValueError for an unknown source or
    architecture, and for a file that is truncated or foreign, carries code, or differs in any name
    or shape from the network asked for.
    """
    path = Path(path)
    known = _choice(SOURCES, source, "source")
    statistics = _choice(known.networks, arch, f"architecture of source {source!r}")
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: download it there from {known.download}")
    module = build(arch, classes)
    state, unexpected = _renamed(_read(path, source), known.names, RENAMED.get(arch, {}))
    _add_statistics(state, statistics)
    problem = f"{path} is no {arch} of source {source!r} with {classes} classes"
    compare(
        problem,
        state,
        module.state_dict(),
        classes=classes,
        unexpected=unexpected,
        fix="another source or arch",
    )
    module.load_state_dict(state)
    return with_provenance(module, {"source": source, "arch": arch, "sha256": sha256_of(path)})


def _choice(table: dict, key: str, what: str):
    if key not in table:
        raise ValueError(f"unknown {what}: {key!r}, {closest(key, table)}")
    return table[key]


def _read(path: Path, source: str) -> dict[str, Tensor]:
    """The tensors of a file by their published names."""
    known = SOURCES[source]
    content = read_pickled(path, f"download it again from {known.download}")
    if known.entry is not None and isinstance(content, dict):
        content = content.get(known.entry)
    if not holds_tensors(content):
        place = "as a whole"
        if known.entry is not None:
            place = f"in its entry {known.entry!r}"
        raise ValueError(
            f"{path} is no dictionary of tensors {place}, as source {source!r} has it: "
            "try another source"
        )
    return content


def _renamed(
    published: dict[str, Tensor], names: dict[str, str], parts: dict[str, str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by our names, and the published names that have none of their own."""
    state: dict[str, Tensor] = {}
    unexpected = []
    for name, tensor in published.items():
        ours = _our_name(name, names, parts)
        if ours is None or ours in state:
            unexpected.append(name)
        else:
            state[ours] = tensor
    return state, unexpected


def _our_name(name: str, names: dict[str, str], parts: dict[str, str]) -> str | None:
    for beginning, ours in names.items():
        if re.match(beginning, name):
            renamed = re.sub(beginning, ours, name, count=1)
            for part, our_part in parts.items():
                renamed = re.sub(part, our_part, renamed)
            return renamed
    return None


def _add_statistics(state: dict[str, Tensor], statistics: tuple | None) -> None:
    """Mean and standard deviation as the buffers of `networks.Normalized`."""
    if statistics is not IN_THE_FILE:
        mean, std = statistics
        state["mean"] = torch.tensor(mean)
        state["std"] = torch.tensor(std)
    elif "log_std" in state:
        state["std"] = state.pop("log_std").exp()
    for name in ("mean", "std"):
        if name in state:
            state[name] = state[name].reshape(1, -1, 1, 1)
