"""What a network is: structure, weights, and whatever else its answers may hang on."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

# of torch's own modules, what is hashed apart or changes nothing
LEFT_OUT = ("_parameters", "_buffers", "_modules", "provenance")
PLAIN = (Tensor, bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


def identity_of(module: nn.Module) -> str:
    """The sha256 of a module as it is now.

    Of every module in it: its class and printed form, parameters and buffers, packed (quantized)
    parameters, and the tensors, numbers and texts among its attributes, also within lists, tuples
    and dictionaries. Not of its code, nor of what other objects hold: those show in its outputs
    (see `Classifier.evaluation`).
    """
    digest = hashlib.sha256()
    for name, part in _modules(module):
        kind = type(part)
        digest.update(f"{name} {kind.__module__}.{kind.__qualname__}\n".encode())
        digest.update(f"{part.extra_repr()}\n".encode())
        for key, value in _contents(part):
            digest.update(f"{name}.{key} {_described(value)}\n".encode())
    return digest.hexdigest()


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.dtype} {_hash(value)}"
    return repr(value)


def _modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules in it, also those that stand in lists, tuples or dictionaries; each once."""
    waiting: list[tuple[str, nn.Module]] = [("", module)]
    seen: set[int] = set()
    while waiting:
        name, part = waiting.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield name, part
            for key, value in [*part.named_children(), *_flattened("", _attributes(part))]:
                if isinstance(value, nn.Module):
                    waiting.append((f"{name}.{key}", value))


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What is neither parameter, buffer, child nor a hook."""
    own = {}
    for name, value in vars(module).items():
        if name not in LEFT_OUT and not name.endswith("_hooks") and "_hooks_" not in name:
            own[name] = value
    return own


def _contents(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """What a module itself holds: (name, tensor or plain value)."""
    own: dict[str, Any] = dict(module.named_parameters(recurse=False))
    own |= dict(module.named_buffers(recurse=False))
    own |= _attributes(module)
    # packed parameters stand in the state alone
    state: dict[str, Any] = {}
    module._save_to_state_dict(state, "", keep_vars=True)
    for name, value in state.items():
        own.setdefault(f"state {name}", value)
    for name in sorted(own):
        for place, value in _flattened(name, own[name]):
            if isinstance(value, PLAIN):
                yield place, value


def _flattened(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Values in nested lists, tuples and dictionaries."""
    if isinstance(value, list | tuple):
        for k, inner in enumerate(value):
            yield from _flattened(f"{name}[{k}]", inner)
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from _flattened(f"{name}[{key!r}]", value[key])
    else:
        yield name, value


def _hash(tensor: Tensor) -> str:
    plain = tensor.detach()
    if plain.is_quantized:
        plain = torch.cat(
            [plain.int_repr().flatten().double(), plain.dequantize().flatten().double()]
        )
    # all of it, each time: whatever is written through .data moves no version
    numbers = plain.cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(numbers.numpy().data).hexdigest()
