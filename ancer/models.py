"""Base classifiers: how they are evaluated, checkpoints in and out."""

import copy
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.utils import deterministic

from ancer.files import read_tensors, write_tensors
from ancer.networks import build


@dataclass(frozen=True)
class Evaluation:
    """All that the votes of a classifier depend on, beside the images and the noise."""

    model: str  # sha256 of structure (as printed), parameters and buffers
    outputs: str
    dtype: str
    memory_format: str
    batch_size: int
    device: str
    threads: int  # of the CPU: sums are split among them
    torch: str


class Classifier:
    """A base classifier f exactly as it is evaluated: its numerics are part of what is certified.

    Holds a frozen copy of `module` (eval mode, no gradients to parameters), so the caller's module keeps
    its mode, its `requires_grad` and its dtype, and later training of it changes nothing here.

    outputs: what the module returns, "logits" or "probabilities" (never guessed).
    dtype: torch.float32, or torch.bfloat16 (several times faster on CPUs and GPUs that have it).
    memory_format: torch.contiguous_format or torch.channels_last. Both may be given by name, as in params.yaml.
    batch_size: rows of one forward pass, > 0; bounds the memory. Every pass that counts votes has exactly so many.
    fold: batch normalisation folded into the convolutions before it, for a module that torch.fx can trace.
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
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, found {batch_size}")
        self.outputs, self.batch_size = outputs, batch_size
        self.dtype = one_of(dtype, "dtype", torch.float32, torch.bfloat16)
        self.memory_format = one_of(memory_format, "memory_format", torch.contiguous_format, torch.channels_last)
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        if fold:
            self.module = _folded(self.module)
        self.module.to(dtype=self.dtype, memory_format=self.memory_format)

    @property
    def device(self) -> torch.device:
        """Where the model is; images and noise go there."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        return tensors[0].device if tensors else torch.device("cpu")

    @cached_property
    def evaluation(self) -> Evaluation:
        """What certificates record, and what `predict` compares."""
        digest = hashlib.sha256(repr(self.module).encode())
        for name, tensor in [*self.module.named_parameters(), *self.module.named_buffers()]:
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return Evaluation(
            model=digest.hexdigest(),
            outputs=self.outputs,
            dtype=str(self.dtype).removeprefix("torch."),
            memory_format=str(self.memory_format).removeprefix("torch."),
            batch_size=self.batch_size,
            **machine(self.device),
        )

    @contextmanager
    def fixed_arithmetic(self) -> Iterator[None]:
        """Inside, the same inputs give the same outputs: deterministic kernels, none chosen by timing, no autocast,
        and float32 products in float32 (no TF32, no bfloat16); the caller's settings come back."""
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses to be deterministic
        cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn
        products = [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]
        precisions = [product.fp32_precision for product in products]
        timing, kernels, filling = cudnn.benchmark, cudnn.deterministic, deterministic.fill_uninitialized_memory
        before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        try:
            for product in products:
                product.fp32_precision = "ieee"
            cudnn.benchmark, cudnn.deterministic = False, True
            torch.use_deterministic_algorithms(True)
            deterministic.fill_uninitialized_memory = False  # a debugging aid that takes 3 % of the time
            with torch.autocast(self.device.type, enabled=False):
                yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            deterministic.fill_uninitialized_memory = filling
            cudnn.benchmark, cudnn.deterministic = timing, kernels
            for product, precision in zip(products, precisions, strict=True):
                product.fp32_precision = precision

    @contextmanager
    def enough_memory(self) -> Iterator[None]:
        """Turn an allocation that fails inside into a MemoryError that names the batch size."""
        try:
            yield
        except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's allocator raises a plain one
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise MemoryError(
                    f"out of memory with batch_size {self.batch_size}: lower it, Classifier(..., batch_size=...)"
                ) from error
            raise

    def as_input(self, inputs: Tensor) -> Tensor:
        """inputs (B, ...) in the dtype and layout in which the module gets them."""
        inputs = inputs.to(self.dtype)
        return inputs.contiguous(memory_format=self.memory_format) if inputs.dim() == 4 else inputs

    def __call__(self, inputs: Tensor) -> Tensor:
        """The module's outputs (B, K) in float32 for inputs (B, ...); checked for shape and finiteness."""
        outputs = self.module(self.as_input(inputs))
        if not isinstance(outputs, Tensor) or outputs.dim() != 2 or len(outputs) != len(inputs) or outputs.shape[1] < 2:
            found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ValueError(f"the model must return (B, K) = ({len(inputs)}, K) outputs with K >= 2, found {found}")
        outputs = outputs.float()
        if not torch.isfinite(outputs).all():
            raise ValueError("the model returned NaN or infinite outputs: check its weights and its dtype")
        return outputs

    def probabilities(self, inputs: Tensor) -> Tensor:
        """Class probabilities (B, K): softmax of logits, or the outputs themselves, checked."""
        outputs = self(inputs)
        if self.outputs == "logits":
            return outputs.softmax(dim=1)
        total = outputs.detach().sum(dim=1)
        if outputs.min() < -1e-3 or (total - 1).abs().max() > 2e-2:  # bfloat16 probabilities sum to 1 +- 1 %
            raise ValueError(
                "the model was declared to return probabilities, but a row is negative or does not sum to 1: "
                "use outputs='logits'"
            )
        return outputs


def _folded(module: nn.Module) -> nn.Module:
    try:
        return fuse(module).requires_grad_(False)
    except Exception as error:  # tracing runs the caller's code, with stand-ins for tensors
        reason = " ".join(str(error).split())
        raise ValueError(f"fold=True needs a module that torch.fx can trace ({reason}): use fold=False") from error


def one_of(value, name: str, *choices):
    """`value` among torch's objects `choices`, given itself or by name."""
    for choice in choices:
        if value == choice or f"torch.{value}" == str(choice):
            return choice
    raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, found {value!r}")


def as_classifier(model: nn.Module | Classifier) -> Classifier:
    """`model` itself, or a module that returns logits, evaluated with the defaults of `Classifier`."""
    if isinstance(model, Classifier):
        return model
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module or a Classifier, found {type(model).__name__}")
    return Classifier(model)


def check_images(x: Tensor) -> None:
    """Raise ValueError unless x is a batch of images: (B, ...) with B >= 1, float32 or float64, in [0, 1]."""
    if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64):
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"images must be float32 or float64 tensors, found {found}")
    if x.dim() < 2 or x.numel() == 0:
        raise ValueError(f"images must have shape (B, ...) with B >= 1, found {tuple(x.shape)}: x[None]?")
    low, high = x.min().item(), x.max().item()
    if not (0 <= low and high <= 1):
        raise ValueError(
            f"pixels must lie in [0, 1], found {low:g} to {high:g}: radii are in these units, "
            "so put normalisation inside the model"
        )


def save(path: str | Path, module: nn.Module, *, arch: str, classes: int, provenance: dict) -> None:
    """Write a checkpoint (safetensors: weights, architecture and provenance; no code) in one piece."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"ancer": json.dumps({"arch": arch, "classes": classes, "provenance": provenance}, sort_keys=True)}
    write_tensors(path, module.state_dict(), metadata)


def load(path: str | Path, *, sha256: str | None = None, classes: int | None = None) -> nn.Module:
    """The network of a checkpoint written by `save`, in eval mode on the CPU.

    Its `provenance` attribute is the dictionary that was saved. Raises FileNotFoundError or ValueError, naming
    the file, when it is missing, altered (sha256 given), of other than `classes` classes, truncated or foreign.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: run the train stage (dvc repro) first")
    if sha256 is not None and digest(path) != sha256:
        raise ValueError(f"checkpoint {path} is not the one that was expected (sha256 {digest(path)[:12]}...)")
    try:
        state, metadata = read_tensors(path)
        header = json.loads(metadata["ancer"])
        found = header["classes"]
        module = build(header["arch"], header["classes"])
        module.load_state_dict(state)
        module.provenance = header["provenance"]
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not a checkpoint of ancer ({reason}): train it again") from None
    if classes not in (None, found):
        raise ValueError(f"the network of {path} has {found} classes, the data set {classes}: train it on these data")
    return module.eval()


def machine(device: torch.device) -> dict:
    """Version and hardware class that results may depend on (no names, no dates)."""
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
    }


def digest(path: str | Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
