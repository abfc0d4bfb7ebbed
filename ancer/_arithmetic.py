"""One arithmetic for votes that are compared, and the machine that they were made on."""

import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.utils import deterministic


@contextmanager
def fixed_arithmetic(device: torch.device) -> Iterator[None]:
    """Inside, the same inputs give the same outputs; the caller's settings come back.

    Deterministic kernels, none chosen by timing, no autocast, and float32 products in float32 (no
    TF32, no bfloat16).
    """
    # without it cuBLAS refuses to be deterministic
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    with ExitStack() as stack:
        for product in (
            torch.backends.cuda.matmul,
            cudnn.conv,
            cudnn.rnn,
            mkldnn.matmul,
            mkldnn.conv,
            mkldnn.rnn,
        ):
            stack.enter_context(_setting(product, "fp32_precision", "ieee"))
        stack.enter_context(_setting(cudnn, "benchmark", False))
        stack.enter_context(_setting(cudnn, "deterministic", True))
        # filling is a debugging aid that takes 3 % of the time
        stack.enter_context(_setting(deterministic, "fill_uninitialized_memory", False))
        stack.callback(torch.use_deterministic_algorithms, enabled, warn_only=warn_only)
        torch.use_deterministic_algorithms(True)
        stack.enter_context(torch.autocast(device.type, enabled=False))
        yield


@contextmanager
def _setting(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def enough_memory(batch_size: int) -> Iterator[None]:
    """Turn an allocation that fails inside into a MemoryError that names the batch size."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one, the CPU's allocator raises it
        if not isinstance(error, torch.OutOfMemoryError):
            if "can't allocate memory" not in str(error):
                raise
        raise MemoryError(
            f"out of memory with batch_size {batch_size}: lower it, Classifier(..., batch_size=...)"
        ) from error


def machine(device: torch.device) -> dict:
    """Version and hardware class that results may depend on (no names, no dates)."""
    return {
        "torch": torch.__version__,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
    }


def device_name(device: torch.device) -> str:
    """The card's name, or the kind of processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.machine()
