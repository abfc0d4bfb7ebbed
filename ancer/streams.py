"""Random streams: one for each purpose and image, and draws of the unit laws from them."""

import math
import operator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor

from ancer.noise import Noise

ALONE = 2**15  # numbers of one draw below which another thread costs more than it saves
TWISTER = 24  # bytes before the Mersenne Twister's words in the state of a generator
PURPOSES = {"train": 0, "select": 1, "certify": 2, "predict": 3, "search": 4, "ascent": 5}


def generator(seed: int, purpose: str, index: int, device: torch.device) -> torch.Generator:
    """The random stream of one image and one purpose; streams of other arguments are unrelated.

    seed, index: integers >= 0; purpose: a key of PURPOSES. Optimization and certification have
    different purposes and so never share noise.
    """
    seed = operator.index(seed)  # TypeError rather than a truncated 0.5
    index = operator.index(index)
    if not (0 <= seed < 2**64 and 0 <= index < 2**64):
        raise ValueError(f"seed and image index must lie in 0..2^64-1, found {seed} and {index}")
    if device.type != "cpu":  # Philox: its key is all 64 bits of a seed
        words = _words(seed, purpose, index)[:2]
        return torch.Generator(device).manual_seed(int(words.view(np.uint64)[0]))
    made = torch.Generator()
    made.set_state(_initial_state(seed, purpose, index))
    return made


def _words(seed: int, purpose: str, index: int) -> np.ndarray:
    """The 624 words of a Mersenne Twister, from a hash of all bits of the arguments."""
    entropy = np.array([seed, PURPOSES[purpose], index], dtype=np.uint64).view(np.uint32)
    return np.random.SeedSequence(entropy, pool_size=8).generate_state(624)


@lru_cache(maxsize=2**12)
def _initial_state(seed: int, purpose: str, index: int) -> Tensor:
    """The state of PyTorch's CPU generator, of which `manual_seed` would fill 32 bits only."""
    state = torch.Generator().manual_seed(0).get_state()
    twister = state.numpy()[TWISTER : TWISTER + 8 * 624]  # 64 bits for each word
    twister.view(np.uint64)[:] = _words(seed, purpose, index)
    return state


def unit_draws(
    law: Noise, shape: tuple[int, ...], generators: Sequence[torch.Generator], dtype: torch.dtype
) -> Tensor:
    """Draws of the unit law from each generator: (len(generators), *shape).

    On a CPU large draws are shared among threads, as PyTorch draws with one; a stream does not
    depend on it.
    """

    def draw(stream: torch.Generator) -> Tensor:
        return law.unit(shape, generator=stream, dtype=dtype)

    threads = torch.get_num_threads()
    if generators[0].device.type != "cpu" or math.prod(shape) < ALONE or threads == 1:
        return torch.stack(list(map(draw, generators)))
    return torch.stack(list(_pool(threads).map(draw, generators)))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
