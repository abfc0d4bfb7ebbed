"""Votes a second against the rows a second of the bare forward pass, in turn in one run."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from watch import Stopwatch

from ancer import Classifier, SmoothedClassifier
from ancer.noise.law import Noise

SEED = 0


def bare(f: Classifier, shape: tuple[int, ...], rows: int) -> float:
    """Rows a second of the forward pass alone, in full batches."""
    z = f.as_input(torch.rand(f.batch_size, *shape, device=f.device))
    batches = max(1, rows // f.batch_size)
    wait = waiting(f.device)
    wait()
    with Stopwatch() as watch, torch.inference_mode():
        for _ in range(batches):
            f.module(z)
        wait()
    return batches * f.batch_size / watch.seconds


def against_bare(
    f: Classifier, x: Tensor, noise: Noise, *, n: int, rounds: int, **sampler
) -> dict[str, float]:
    """Of n votes an image: medians over the rounds, least and largest ratio.

    sampler: what else `SmoothedClassifier` takes.
    """
    smoothed = SmoothedClassifier(f, noise, **sampler)
    wait = waiting(f.device)
    pairs = []
    for _ in range(rounds + 1):
        with Stopwatch() as watch:
            smoothed.counts(x, n, seed=SEED, purpose="certify")
            wait()
        rows = len(x) * n
        pairs.append((bare(f, tuple(x.shape[1:]), rows), rows / watch.seconds))
    forward, votes = np.array(pairs[1:]).T  # the first warms up
    return {
        "bare forward [1/s]": np.median(forward),
        "votes [1/s]": np.median(votes),
        "ratio": np.median(votes / forward),
        "least": (votes / forward).min(),
        "largest": (votes / forward).max(),
    }


def waiting(device: torch.device) -> Callable[[], None]:
    """What waits until a device has done what it was given."""
    if device.type == "cuda":
        return torch.cuda.synchronize
    return lambda: None
