"""Base classifiers: how they are evaluated, and their identity."""

import hashlib
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from ancer.confidence.budget import check_whole
from ancer.evaluation.arithmetic import enough_memory, fixed_arithmetic, machine
from ancer.evaluation.identity import identity_of
from ancer.evaluation.one_image import check_one_image
from ancer.evaluation.outputs import (
    are_probabilities,
    check_module,
    check_probabilities,
    check_shape,
    copied,
    explained,
)

FIX = "radii are in these units, so put normalisation inside the model"


@dataclass(frozen=True)
class Evaluation:
    """All that the votes of a classifier depend on, beside the images and the noise."""

    model: str  # sha256 of structure, weights and attributes (see `evaluation.identity`)
    probe: str  # sha256 of its outputs on a fixed batch: what else they hang on
    outputs: str
    dtype: str
    memory_format: str
    batch_size: int
    device: str
    threads: int  # of the CPU: sums are split among them
    torch: str


class Classifier:
    """A base classifier f exactly as it is evaluated: its numerics are part of what is certified.

    Holds a frozen copy of `module` (eval mode, no gradients to parameters), so the caller's module
    keeps its mode, its `requires_grad` and its dtype, and later training of it changes nothing
    here.

    Certificates speak of one fixed function, image by image. So, before votes count, one batch is
    evaluated twice and its rows once in other company and order (see `evaluation.one_image`), and a
    network that answers otherwise is refused.

    Args:
        module: from images to logits or probabilities, its normalisation inside.
        outputs: what the module returns, "logits" or "probabilities" (never guessed).
        dtype: torch.float32, or torch.bfloat16 (several times faster on CPUs and GPUs that have
            it); or its name, as in params.yaml.
        memory_format: torch.contiguous_format or torch.channels_last, or its name.
        batch_size: rows of one forward pass, > 0; bounds the memory. Every pass that counts votes
            has exactly so many.
        fold: batch normalisation folded into the convolutions before it, for a module that torch.fx
            can trace.

    Raises:
        ValueError: on another value.

    Example:
        >>> f = Classifier(nn.Linear(2, 3), batch_size=10)
        >>> f(torch.zeros(4, 2)).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        outputs: str = "logits",
        dtype: torch.dtype | str = torch.float32,
        memory_format: torch.memory_format | str = torch.contiguous_format,
        batch_size: int = 1000,
        fold: bool = False,
    ):
        if outputs not in ("logits", "probabilities"):
            raise ValueError(f"outputs must be 'logits' or 'probabilities', found {outputs!r}")
        check_whole(batch_size=batch_size)
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, found {batch_size}")
        self.outputs = outputs
        self.batch_size = batch_size
        self.dtype = dtype_of(dtype)
        self.memory_format = memory_format_of(memory_format)
        check_module(module)
        with torch.inference_mode(False):  # so that its own copy can be searched with gradients
            self.module = copied(module).eval().requires_grad_(False)
        if fold:
            self.module = _folded(self.module)
        self.module.to(dtype=self.dtype)
        self.module.to(memory_format=self.memory_format)
        self._probes: dict[tuple, str] = {}  # hashes of outputs, by identity and shape
        self._checked = ""  # the identity whose rows were found to be independent
        self.classes: int | None = None  # columns of its outputs, once known

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"<Classifier: {type(self.module).__name__}, {self.outputs}, {dtype}, batches of "
            f"{self.batch_size} on {self.device}>"
        )

    @property
    def device(self) -> torch.device:
        """Where the model is; images and noise go there."""
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            return tensor.device
        return torch.device("cpu")

    def evaluation(self, shape: Sequence[int]) -> Evaluation:
        """What certificates of images of this shape record, and what `predict` compares.

        Computed anew: a module that was changed has another one. It covers what
        `evaluation.identity` lists, and the outputs on a fixed batch; a change that shows in
        neither is not noticed.
        """
        model = identity_of(self.module)
        key = (model, tuple(shape))
        if key not in self._probes:
            self._probes[key] = self._probe(shape)
        return Evaluation(
            model=model,
            probe=self._probes[key],
            outputs=self.outputs,
            dtype=str(self.dtype).removeprefix("torch."),
            memory_format=str(self.memory_format).removeprefix("torch."),
            batch_size=self.batch_size,
            **machine(self.device),
        )

    def _probe(self, shape: Sequence[int]) -> str:
        stream = torch.Generator().manual_seed(0)
        few = torch.rand((min(4, self.batch_size), *shape), generator=stream)
        batch = few[torch.arange(self.batch_size) % len(few)].to(self.device)
        with torch.no_grad(), self.fixed_arithmetic(), self.enough_memory():
            outputs = self(batch)[: len(few)].double()
        return hashlib.sha256(outputs.cpu().numpy().tobytes()).hexdigest()

    def fixed_arithmetic(self) -> AbstractContextManager[None]:
        """Inside, the same inputs give the same outputs; the caller's settings come back."""
        return fixed_arithmetic(self.device)

    def enough_memory(self) -> AbstractContextManager[None]:
        """Turn an allocation that fails inside into a MemoryError that names the batch size."""
        return enough_memory(self.batch_size)

    def as_input(self, inputs: Tensor) -> Tensor:
        """inputs (B, ...) in the dtype and layout in which the module gets them."""
        inputs = inputs.to(self.dtype)
        if inputs.dim() == 4:
            return inputs.contiguous(memory_format=self.memory_format)
        return inputs

    def __call__(self, inputs: Tensor) -> Tensor:
        """The module's outputs (B, K) for inputs (B, ...), in the numbers in which it returns them.

        Raises ValueError for outputs of another shape or number of classes than before, complex
        ones, NaN or infinity, and probabilities that are none.
        """
        try:
            outputs = self.module(self.as_input(inputs))
        except RuntimeError as error:
            problem = explained(error, inputs)
            if problem is None:
                raise
            raise problem from error
        check_shape(outputs, len(inputs))
        if self.classes not in (None, outputs.shape[1]):
            raise ValueError(
                f"the model returned {outputs.shape[1]} classes, {self.classes} before: their "
                "number must be fixed"
            )
        self.classes = outputs.shape[1]
        if outputs.is_complex() or outputs.dtype == torch.bool:
            raise ValueError(f"the model must return real numbers, found {outputs.dtype}")
        if not torch.isfinite(outputs).all():
            raise ValueError(
                "the model returned NaN or infinite outputs: check its weights and its dtype"
            )
        if self.outputs == "probabilities":
            check_probabilities(outputs)
        return outputs

    def probabilities(self, inputs: Tensor) -> Tensor:
        """Class probabilities (B, K): softmax of logits, or the outputs themselves."""
        return self.as_probabilities(self(inputs))

    def as_probabilities(self, outputs: Tensor) -> Tensor:
        """Outputs (B, K) as class probabilities, in float32 or finer."""
        if outputs.dtype != torch.float64:
            outputs = outputs.float()
        return outputs.softmax(dim=1) if self.outputs == "logits" else outputs

    def checked(self, inputs: Tensor) -> Tensor:
        """The outputs for a full batch; the first time, after the check of `evaluation.one_image`.

        That costs two passes more for each classifier. Raises ValueError for a network that is not
        one fixed function of one image.
        """
        identity = identity_of(self.module)
        if self._checked == identity:
            return self(inputs)
        outputs = check_one_image(self, inputs, self.module)
        self._checked = identity
        if self.outputs == "logits" and are_probabilities(outputs):
            warnings.warn(
                "the model's outputs are >= 0 and sum to 1, as probabilities do: declare them, "
                "Classifier(model, outputs='probabilities'), or gradients are of a second softmax",
                stacklevel=2,
            )
        return outputs


def as_classifier(model: nn.Module | Classifier) -> Classifier:
    """`model` itself, or a module that returns logits, with the defaults of `Classifier`."""
    if isinstance(model, Classifier):
        return model
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"the model must be a torch.nn.Module or a Classifier, found {type(model).__name__}"
        )
    return Classifier(model)


def check_images(x: Tensor) -> None:
    """Raise ValueError unless x is a batch of images: (B, ...), B >= 1, floats in [0, 1]."""
    if not isinstance(x, Tensor):
        fix = "torch.from_numpy(x)" if isinstance(x, np.ndarray) else "torch.stack(list(x))"
        raise ValueError(
            f"images must be float32 or float64 tensors, found {type(x).__name__}: {fix}"
        )
    if x.dtype not in (torch.float32, torch.float64):
        fix = "x / 255" if x.dtype == torch.uint8 else "x.float()"
        raise ValueError(f"images must be float32 or float64 tensors, found {x.dtype}: {fix}")
    if x.dim() < 2 or x.numel() == 0:
        raise ValueError(
            f"images must have shape (B, ...) with B >= 1, found {tuple(x.shape)}: x[None]?"
        )
    low = x.min().item()
    high = x.max().item()
    if not (0 <= low and high <= 1):
        raise ValueError(
            f"pixels must lie in [0, 1], found {low:g} to {high:g}: "
            + ("x / 255" if low >= 0 and 2 < high <= 255 else FIX)
        )


def dtype_of(name: torch.dtype | str) -> torch.dtype:
    """A floating-point type in which networks run here, given itself or by name."""
    return _one_of(name, "dtype", torch.float32, torch.bfloat16)


def memory_format_of(name: torch.memory_format | str) -> torch.memory_format:
    """A layout of images (B, C, H, W), given itself or by name."""
    return _one_of(name, "memory_format", torch.contiguous_format, torch.channels_last)


def _one_of(value, name: str, *choices):
    for choice in choices:
        if value == choice or f"torch.{value}" == str(choice):
            return choice
    raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, found {value!r}")


def _folded(module: nn.Module) -> nn.Module:
    try:
        return fuse(module).requires_grad_(False)
    except Exception as error:  # tracing runs the caller's code, with stand-ins for tensors
        reason = " ".join(str(error).split())
        raise ValueError(
            f"fold=True needs a module that torch.fx can trace ({reason}): use fold=False"
        ) from error
