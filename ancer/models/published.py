"""Checkpoints that others published, read as tensors alone and compared strictly with our networks.

What each source wrote was taken from its code; `SOURCES` names the files. What is easily got wrong:

- SmoothAdv published two families. ImageNet's and most of CIFAR-10's networks only subtract the
  mean; those in `cifar10/finetune_cifar_from_imagenetPGD2steps` and `cifar10/self_training` divide
  by the deviation too.
- MACER's network for CIFAR-10 and ANCER's for ImageNet take the pixels as they are. ANCER's
  ResNet-18 ends in a softmax, which is left off here: every network returns logits.
- What is called sigma for uniform noise: RS4A means the standard deviation (lambda = sqrt 3 *
  sigma, which is `UniformNoise.from_sigma`), ANCER means lambda * sqrt 3 (lambda = sigma / sqrt 3).
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ancer._files import sha256_of
from ancer.models.networks import IMAGENET, build, with_provenance
from ancer.registry import closest

# as all of them have it; not the pixels' own deviations
CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
CIFAR10_CENTRED = (CIFAR10[0], (1.0,) * 3)
IMAGENET_CENTRED = (IMAGENET[0], (1.0,) * 3)
AS_IT_IS = (0.0,) * 3, (1.0,) * 3
IN_THE_FILE = None


@dataclass(frozen=True)
class Source:
    """How the files of one publisher are read."""

    format: str  # the code that wrote them
    download: str
    entry: str | None  # of the file's dictionary that holds the tensors; None: the file itself
    names: dict[str, str]  # beginnings of tensors' names (regular expressions) -> ours
    networks: dict[str, tuple | None]  # architectures, each with mean and deviation of pixels
    sigma: str  # what the training noise is, in the names of `ancer.noise`


GAUSSIAN = "standard deviation of Gaussian noise: GaussianNoise(sigma)"
# Sequential(normalisation, network), for ImageNet the network in a DataParallel
COHEN = {r"1\.(module\.)?": "net."}
BARE = {r"(module\.)?": "net."}

SOURCES = {
    "cohen": Source(
        format="locuslab/smoothing: code/architectures.py, code/archs/cifar_resnet.py, "
        "code/datasets.py, code/train.py",
        download="https://github.com/locuslab/smoothing (README)",
        entry="state_dict",
        names=COHEN,
        networks={"resnet110": CIFAR10, "resnet50": IMAGENET},
        sigma=GAUSSIAN,
    ),
    "smoothadv": Source(
        format="Hadisalman/smoothing-adversarial at 3911bd8 and its issue 3: "
        "code/architectures.py, code/train_pgd.py",
        download="https://github.com/Hadisalman/smoothing-adversarial (README)",
        entry="state_dict",
        names=COHEN,
        networks={"resnet110": CIFAR10_CENTRED, "resnet50": IMAGENET_CENTRED},
        sigma=GAUSSIAN,
    ),
    "smoothadv_finetuned": Source(
        format="Hadisalman/smoothing-adversarial at cc80077: code/architectures.py, "
        "code/train_pgd.py",
        download="https://github.com/Hadisalman/smoothing-adversarial (README)",
        entry="state_dict",
        names=COHEN,
        networks={"resnet110": CIFAR10},
        sigma=GAUSSIAN,
    ),
    "macer": Source(
        format="RuntianZ/macer: main.py, model.py; for ImageNet, which it leaves out, "
        "ImageNet/utils.py of MotasemAlfarra/Data_Dependent_Randomized_Smoothing",
        download="https://github.com/RuntianZ/macer (README)",
        entry="net",
        names=BARE,
        networks={"resnet110": AS_IT_IS, "resnet50": IMAGENET},
        sigma=GAUSSIAN,
    ),
    "rs4a": Source(
        format="tonyduan/rs4a: src/models.py, src/lib/wide_resnet.py, src/train.py, "
        "src/noises/noises.py",
        download="http://www.tonyduan.com/resources/2020_rs4a_ckpts/ "
        "(cifar_all.zip, imagenet_all.zip)",
        entry=None,
        names={
            r"model\.module\.": "net.",
            r"norm\.module\.mu$": "mean",
            r"norm\.module\.log_sig$": "log_std",
        },
        networks={"wrn40_2": IN_THE_FILE, "resnet50": IN_THE_FILE},
        sigma="standard deviation: UniformNoise.from_sigma(sigma), lambda = sqrt 3 * sigma; "
        "files named gaussian: GaussianNoise(sigma)",
    ),
    "ancer": Source(
        format="ancer-python 1.0.0 and ddsmoothing-python 1.0.0 on PyPI: "
        "ddsmoothing/utils/{models,resnet,wideresnet}.py; MotasemAlfarra/ANCER: "
        "scripts/train_l1_models",
        download="https://github.com/MotasemAlfarra/ANCER (README)",
        entry="state_dict",
        names=BARE,
        networks={"resnet18_ancer": CIFAR10, "wrn40_2": CIFAR10, "resnet50": AS_IT_IS},
        sigma=f"l2: {GAUSSIAN}; l1: UniformNoise(lambda) with lambda = sigma / sqrt 3, "
        "so a third of RS4A's",
    ),
    "kuangliu": Source(
        format="kuangliu/pytorch-cifar: main.py, models/resnet.py (ResNet18 of BasicBlocks)",
        download="https://github.com/kuangliu/pytorch-cifar, which trains it",
        entry="net",
        names=BARE,
        networks={"resnet18": CIFAR10},
        sigma="none: trained without noise",
    ),
    "torchvision": Source(
        format="pytorch/vision: torchvision/models/resnet.py",
        download="torchvision.models.ResNet50_Weights.IMAGENET1K_V1.url",
        entry=None,
        names={"": "net."},
        networks={"resnet50": IMAGENET},
        sigma="none: trained without noise",
    ),
}

# Published names that are not ours, by architecture.
RENAMED = {
    "resnet18": {r"\.shortcut\.": ".downsample.", r"\.linear\.": ".fc."},
    "wrn40_2": {r"\.layer\.": ".", r"\.convShortcut\.": ".shortcut."},
}


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
    _compare(problem, state, unexpected, module.state_dict())
    module.load_state_dict(state)
    return with_provenance(module, {"source": source, "arch": arch, "sha256": sha256_of(path)})


def _choice(table: dict, key: str, what: str):
    if key not in table:
        raise ValueError(f"unknown {what}: {key!r}, {closest(key, table)}")
    return table[key]


def _read(path: Path, source: str) -> dict[str, Tensor]:
    """The tensors of a file by their published names."""
    known = SOURCES[source]
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch's reader fails in many ways on what it did not write
        code = re.search(r"GLOBAL (\S+)", str(error))
        reason = "is no file of tensors by PyTorch"
        if code:
            reason = f"carries code or objects ({code[1]})"
        raise ValueError(
            f"{path} {reason}, or is truncated: refused, nothing of it was run; "
            f"download it again from {known.download}"
        ) from None
    if known.entry is not None and isinstance(content, dict):
        content = content.get(known.entry)
    if not _holds_tensors(content):
        place = "as a whole"
        if known.entry is not None:
            place = f"in its entry {known.entry!r}"
        raise ValueError(
            f"{path} is no dictionary of tensors {place}, as source {source!r} has it: "
            "try another source"
        )
    return content


def _holds_tensors(content: object) -> bool:
    if not isinstance(content, dict) or not content:
        return False
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            return False
    return True


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


def _compare(
    problem: str, state: dict[str, Tensor], unexpected: list[str], wanted: dict[str, Tensor]
) -> None:
    """Raise ValueError unless `state` has the names and shapes wanted."""
    missing = []
    for name in wanted:
        # old files lack the counters of batches
        if name not in state and not name.endswith("num_batches_tracked"):
            missing.append(name)
    unexpected = list(unexpected)
    shapes = []
    for name, tensor in state.items():
        if name not in wanted:
            unexpected.append(name)
        elif tensor.shape != wanted[name].shape:
            shapes.append(name)
    if set(shapes) == {"net.fc.weight", "net.fc.bias"} and not missing and not unexpected:
        found = state["net.fc.weight"].shape[0]
        raise ValueError(f"{problem}: its head has {found} classes, pass classes={found}")
    differences = [
        *_first_of("missing", missing),
        *_first_of("unexpected", unexpected),
        *_first_of("other shapes of", shapes),
    ]
    if differences:
        fix = "another arch" if shapes else "another source or arch"
        raise ValueError(f"{problem}: {'; '.join(differences)}: try {fix}")


def _first_of(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{what} {', '.join(names[:3])}{more}"]
