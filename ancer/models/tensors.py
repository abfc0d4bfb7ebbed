"""Tensors of files that others wrote: read without running anything, compared with a network's."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor


def read_pickled(path: Path, fix: str, allowed: Sequence = ()) -> Any:
    """What torch.save wrote, where it is tensors, numbers and texts in dictionaries and lists.

    allowed: classes and functions that it may name beside those, as
    `torch.serialization.safe_globals` takes them. Raises ValueError that ends in `fix` for a file
    that names others, none of which is run, and for one that torch.save did not write.
    """
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch's reader fails in many ways on what it did not write
        code = re.search(r"GLOBAL (\S+)", str(error))
        reason = "is no file of tensors by PyTorch"
        if code:
            reason = f"carries code or objects ({code[1]})"
        raise ValueError(
            f"{path} {reason}, or is truncated: refused, nothing of it was run; {fix}"
        ) from None


def holds_tensors(content: object) -> TypeGuard[dict[str, Tensor]]:
    """Whether it is a dictionary of tensors by name, and of nothing else."""
    if not isinstance(content, dict) or not content:
        return False
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            return False
    return True


def compare(
    problem: str,
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    *,
    classes: int,
    unexpected: Sequence[str] = (),
    fix: str = "another arch",
) -> None:
    """Raise ValueError unless `state` has the names and shapes wanted.

    classes: of the network whose tensors are wanted. unexpected: further names of the file. The
    error begins with `problem` and says the number of classes where that alone differs, or else
    the first names of each kind, the closest one, and what to try.
    """
    missing = []
    for name in wanted:
        # old files lack the counters of batches
        if name not in state and not name.endswith("num_batches_tracked"):
            missing.append(name)
    extra = list(unexpected)
    shapes = []
    for name, tensor in state.items():
        if name not in wanted:
            extra.append(name)
        elif tensor.shape != wanted[name].shape:
            shapes.append(name)
    found = _classes_of_head(state, wanted, shapes, classes)
    if found is not None and not missing and not extra:
        raise ValueError(
            f"{problem}: its head has {found} classes, pass classes={found} (a command: --classes, "
            "a file with a class a line)"
        )
    differences = [
        *_first_of("missing", missing),
        *_first_of("unexpected", extra),
        *_first_of("other shapes of", shapes),
    ]
    if differences:
        if shapes:
            fix = "another arch"
        guess = _guess(missing, extra)
        raise ValueError(f"{problem}: {'; '.join(differences)}: try {fix}{guess}")


def _classes_of_head(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], shapes: list[str], classes: int
) -> int | None:
    """The number of classes of a file whose head alone has other shapes, or None.

    The head is a matrix (classes, ...), and perhaps a vector beside it.
    """
    matrices = [name for name in shapes if wanted[name].ndim > 1]
    if not matrices:
        return None
    found = state[matrices[0]].shape[:1]
    for name in shapes:
        shape = wanted[name].shape
        if shape[:1] != (classes,) or state[name].shape != found + shape[1:]:
            return None
    return found[0]


def _first_of(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{what} {', '.join(names[:3])}{more}"]


def _guess(missing: list[str], unexpected: list[str]) -> str:
    for name in unexpected[:3]:
        close = difflib.get_close_matches(name, missing, n=1)
        if close:
            return f" (is its {name} what the network calls {close[0]}?)"
    return ""
