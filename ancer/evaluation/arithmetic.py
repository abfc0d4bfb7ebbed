"""One arithmetic for votes that are compared, and the machine that they were made on."""

import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils import deterministic


class _Settings:
    """Settings of the process while anybody computes: the first sets them, the last restores."""

    def __init__(self, set_all: Callable[[ExitStack], None]):
        self._set_all = set_all
        self._lock = threading.Lock()
        self._inside = 0
        self._stack = ExitStack()

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._set_all(self._stack)
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._stack.close()


@contextmanager
def fixed_arithmetic(device: torch.device) -> Iterator[None]:
    """Inside, the same inputs give the same outputs; the caller's settings come back.

    Deterministic kernels, none chosen by timing, no autocast, and float32 products in float32 (no
    TF32, no bfloat16). Several threads may be inside at once: the settings are the process's, and
    come back when the last of them leaves.
    """
    _SETTINGS.enter()
    try:
        with torch.autocast(device.type, enabled=False):  # a thread's own
            yield
    finally:
        _SETTINGS.leave()


@contextmanager
def fixed_gradients(device: torch.device) -> Iterator[None]:
    """`fixed_arithmetic` for gradients: on a GPU a layer whose gradient has no kernel that gives
    the same numbers each time (adaptive pooling, interpolation) is warned of, not refused."""
    with fixed_arithmetic(device):
        if device.type != "cuda":
            yield
            return
        _WARNED.enter()
        try:
            yield
        finally:
            _WARNED.leave()


def _set_all(stack: ExitStack) -> None:
    # without it cuBLAS refuses to be deterministic
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    for product in (
        torch.backends.cuda.matmul,
        cudnn.conv,
        cudnn.rnn,
        mkldnn.matmul,
        mkldnn.conv,
        mkldnn.rnn,
    ):
        _set(stack, product, "fp32_precision", "ieee")
    _set(stack, cudnn, "benchmark", False)
    _set(stack, cudnn, "deterministic", True)
    # filling is a debugging aid that takes 3 % of the time
    _set(stack, deterministic, "fill_uninitialized_memory", False)
    _deterministic_in(stack, 2)


def _deterministic_in(stack: ExitStack, mode: int) -> None:
    stack.callback(_only_deterministic, torch.get_deterministic_debug_mode())
    _only_deterministic(mode)


def _only_deterministic(mode: int) -> None:
    """0: no, 1: warn of other kernels, 2: refuse them; also those of torch.compile."""
    torch.set_deterministic_debug_mode(mode)
    if "torch._dynamo" in sys.modules:  # loaded by who compiles; otherwise this loads it, a second
        torch.use_deterministic_algorithms(mode > 0, warn_only=mode == 1)


def _set(stack: ExitStack, owner: object, name: str, value: object) -> None:
    stack.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


_SETTINGS = _Settings(_set_all)
_WARNED = _Settings(partial(_deterministic_in, mode=1))


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


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether it is a processor without bfloat16, which torch then computes more slowly by far."""
    if device.type != "cpu":
        return False
    known = torch.cpu.get_capabilities()
    if known.get("architecture") != "x86_64":
        return False
    return not (known["avx512_bf16"] or known["amx_bf16"])


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
