"""Our checkpoints: safetensors, with the architecture and where the weights come from."""

from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor, nn

from ancer._files import read_tensors, sha256_of, write_tensors
from ancer.models.networks import (
    ARCHITECTURES,
    Normalized,
    architecture,
    build,
    with_provenance,
)


def save(path: str | Path, module: nn.Module, *, arch: str, classes: int, provenance: dict) -> None:
    """Write a checkpoint (weights, architecture and provenance; no code) in one piece."""
    header = {"arch": arch, "classes": classes, "provenance": provenance}
    write_tensors(Path(path), module.state_dict(), header)


def load(
    path: str | Path,
    *,
    arch: str | None = None,
    sha256: str | None = None,
    classes: int | None = None,
) -> nn.Module:
    """The network of a checkpoint written by `save`, in eval mode on the CPU.

    arch: the architecture that is expected. A file may name one of ours by itself; one of a
    library or of yours, "package.module:function", is only built where you name it here, since that
    runs code. The normalisation that `weights.load_weights` puts before it comes with it.

    Its `provenance` attribute is the dictionary that was saved. Raises FileNotFoundError or
    ValueError, naming the file, when it is missing, altered (sha256 given), of another architecture
    or other than `classes` classes, truncated or foreign.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: run the train stage (dvc repro) first")
    if sha256 is not None and sha256_of(path) != sha256:
        raise ValueError(
            f"checkpoint {path} is not the one that was expected (sha256 {sha256_of(path)[:12]}...)"
        )
    if arch is not None:
        architecture(arch)  # whose errors are none of the file's
    try:
        state, header = read_tensors(path)
        if header["arch"] != arch and (arch is not None or header["arch"] not in ARCHITECTURES):
            raise ValueError(f"its architecture is {header['arch']!r}, expected {arch!r}")
        module = _with_statistics(build(header["arch"], header["classes"]), state)
        module.load_state_dict(state)
        provenance = header["provenance"]
    except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} is not a checkpoint of ancer ({reason}): train it again"
        ) from None
    if classes not in (None, header["classes"]):
        raise ValueError(
            f"the network of {path} has {header['classes']} classes, the data set {classes}: "
            "train it on these data"
        )
    return with_provenance(module, provenance)


def _with_statistics(module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """The module, with a normalisation before it where these tensors are of both."""
    if "mean" not in state or module.state_dict().keys() <= state.keys():
        return module
    mean = tuple(state["mean"].flatten().tolist())
    std = tuple(state["std"].flatten().tolist())
    return Normalized(module, mean, std)
