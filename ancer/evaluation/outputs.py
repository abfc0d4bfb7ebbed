"""Modules that cannot be a base classifier, and outputs that are none, with the fix in words."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

# of what torch says where a layer does not take an image's shape
OF_SHAPES = (
    "to have",
    "channels",
    "shapes cannot",
    "size mismatch",
    "should contain",
    "Expected 3D",
    "must match the size",
)


def check_module(module: nn.Module) -> None:
    """Raise ValueError for a module that cannot be copied, or has no weights."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError(
            "a ScriptModule cannot be copied and compared: give the nn.Module that it was made from"
        )
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        raise ValueError("the model's weights are on the meta device: load its weights first")


def copied(module: nn.Module) -> nn.Module:
    """A copy of a module; ValueError where it holds tensors that torch does not copy."""
    try:
        return copy.deepcopy(module)
    except RuntimeError as error:
        raise ValueError(
            f"the model cannot be copied ({error}): old hooks such as nn.utils.weight_norm come "
            "off by nn.utils.remove_weight_norm; nn.utils.parametrizations has others"
        ) from error


def explained(error: RuntimeError, inputs: Tensor) -> ValueError | None:
    """An error of a module that comes from the images' shape, with the fix; None for another."""
    said = str(error)
    if not any(words in said for words in OF_SHAPES):
        return None
    shape = tuple(inputs.shape[1:])
    fix = "x must be (B, channels, height, width), as the model takes it"
    if len(shape) == 2:
        fix = "one image is a batch of one, x[None]"
    elif len(shape) == 3 and shape[0] not in (1, 3) and shape[-1] in (1, 3):
        fix = "channels come first, x.permute(0, 3, 1, 2)"
    return ValueError(f"the model does not take images of shape {shape} ({said}): {fix}")


def are_probabilities(outputs: Tensor) -> bool:
    """Whether outputs (B, K) are >= 0 and sum to 1 in each row, as logits never do."""
    sums = outputs.double().sum(dim=1)
    return bool(outputs.min() >= 0 and (sums - 1).abs().max() < 1e-3)


def check_probabilities(outputs: Tensor) -> None:
    """Raise ValueError unless outputs (B, K) are probabilities."""
    off = (outputs.detach().double().sum(dim=1) - 1).abs().max()
    if outputs.min() < -1e-3 or off > 2e-2:  # bfloat16 probabilities sum to 1 +- 1 %
        raise ValueError(
            "the model was declared to return probabilities, but a row is negative or does not "
            "sum to 1: use outputs='logits'"
        )


def check_shape(outputs: object, rows: int) -> None:
    """Raise ValueError unless outputs are a tensor (rows, K) with K >= 2."""
    found: object = type(outputs).__name__
    fix = ""
    if isinstance(outputs, Tensor):
        found = tuple(outputs.shape)
        if outputs.dim() == 2 and len(outputs) == rows and outputs.shape[1] >= 2:
            return
        if outputs.shape == (rows, 1):
            fix = ": of one logit z make two, torch.cat([-z, z], 1) / 2"
    elif isinstance(outputs, tuple | list | Mapping):
        fix = ": wrap it in a module that returns its logits alone"
    raise ValueError(
        f"the model must return (B, K) = ({rows}, K) outputs with K >= 2, found {found}{fix}"
    )
