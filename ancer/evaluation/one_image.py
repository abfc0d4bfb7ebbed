"""Whether a network is one fixed function of one image, as certificates need it."""

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ancer.evaluation.identity import identity_of

PASSES = 5  # that are tried, where random numbers are drawn meanwhile


def check_one_image(f: Callable[[Tensor], Tensor], inputs: Tensor, module: nn.Module) -> Tensor:
    """The outputs of f for a batch, which is evaluated three times.

    f: `module` as it is evaluated. The batch is evaluated a second time, and its rows once more,
    every other one in reversed order among other rows.

    Raises ValueError for a network that draws random numbers, that changes while it is evaluated
    (its buffers or attributes), that answers the same batch differently, or whose answer to a row
    depends on the rows beside it by more than rounding. Not noticed: a change that shows later, a
    dependence below rounding (2^-6 of the largest output in bfloat16, 1e-4 in float32), or one that
    these rows do not show.
    """
    before = identity_of(module)
    outputs = _without_chance(f, inputs)
    again = f(inputs)
    if identity_of(module) != before:
        raise ValueError(
            "the model changes while it is evaluated (batch normalisation in train mode, a "
            "buffer or attribute that counts calls?): a certificate is for a fixed function"
        )
    if not torch.equal(outputs, again):
        raise ValueError(
            "the model answers the same batch differently from call to call: a certificate is "
            "for a fixed function"
        )
    _check_company(f, inputs, outputs)
    return outputs


def _without_chance(f: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """The outputs; ValueError where every pass moves a generator of random numbers.

    Other threads may draw from them too, so that one pass that moves none is enough.
    """
    for _ in range(PASSES):
        chance = _random_state(inputs.device)
        outputs = f(inputs)
        if _random_state(inputs.device) == chance:
            return outputs
    raise ValueError(
        "the model draws random numbers (dropout left on?): a certificate is for a fixed function"
    )


def _check_company(f: Callable[[Tensor], Tensor], inputs: Tensor, outputs: Tensor) -> None:
    """Raise ValueError unless rows get the same outputs in other company and order."""
    mixed = inputs.flip(0)
    mixed[1::2] = 1 - mixed[1::2]
    kept = f(mixed)[::2]
    rounding = 2**-6 if inputs.dtype == torch.bfloat16 else 1e-4
    off = (kept.double() - outputs.flip(0)[::2].double()).abs().max()
    if off > rounding * max(1.0, outputs.abs().max().item()):
        raise ValueError(
            f"the model's outputs for a row change by {off:.2g} with the other rows of its "
            "batch (batch normalisation without running statistics, or in train mode?): a "
            "certificate is for each image alone"
        )


def _random_state(device: torch.device) -> tuple:
    """The states of the generators that a network may draw from."""
    _, words, position, *_ = np.random.get_state()  # noqa: NPY002, the one that others use
    states = (
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        np.asarray(words).tobytes(),
        position,
    )
    if device.type == "cuda":
        return *states, torch.cuda.get_rng_state(device).numpy().tobytes()
    return states
