"""Random streams: for each purpose and block or image, and draws of the unit laws from them."""

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from ancer.noise.law import Noise
from ancer.noise.splitting import SplittingNoise

ALONE = 2**15  # numbers of one draw below which another thread costs more than it saves
KEPT = 4  # blocks of shared draws that are kept for the images that come to them later
TWISTER = 24  # bytes before the Mersenne Twister's words in the state of a generator
PURPOSES = {"train": 0, "select": 1, "certify": 2, "predict": 3, "search": 4, "ascent": 5}


def generator(seed: int, purpose: str, index: int, device: torch.device) -> torch.Generator:
    """The random stream of one purpose and one block, or image; others are unrelated.

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


class Draws(ABC):
    """Unit draws for images, block by block: called with (number of an image, number of its block)
    of some images, it returns (that many, *shape), or (1, *shape) for all of them."""

    def __init__(
        self,
        law: Noise,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        seed: int,
        purpose: str,
        layout: torch.memory_format = torch.contiguous_format,
    ):
        self.law = law
        self.shape = shape
        self.dtype = dtype
        self.device = device
        self.layout = layout
        self.stream = partial(generator, seed, purpose, device=device)

    @abstractmethod
    def __call__(self, wanted: Sequence[tuple[int, int]]) -> Tensor: ...

    def _drawn(self, streams: Sequence[torch.Generator]) -> Tensor:
        return laid_out(unit_draws(self.law, self.shape, streams, self.dtype), self.layout)


class SharedDraws(Draws):
    """A stream for each block, the same for all images.

    The guarantee is one image's, for which nothing changes: its draws are independent of each
    other. Errors of several images are then no longer independent of each other.
    """

    def __init__(self, *about):
        super().__init__(*about)
        self.kept: dict[int, Tensor] = {}  # the last blocks, by number

    def _block(self, number: int) -> Tensor:
        if number not in self.kept:
            # with it the next ones, as threads draw side by side
            several = min(_threads(self.shape, self.device), KEPT)
            numbers = range(number, number + several)
            drawn = self._drawn([self.stream(index=k) for k in numbers])
            self.kept.update(zip(numbers, drawn.split(1), strict=True))
            for oldest in list(self.kept)[:-KEPT]:
                del self.kept[oldest]
        return self.kept[number]

    def __call__(self, wanted):
        blocks = [number for _, number in wanted]
        if len(set(blocks)) == 1:
            return self._block(blocks[0])
        return torch.cat(list(map(self._block, blocks)))


class OwnDraws(Draws):
    """A stream for each image, whose blocks come one after the other."""

    def __init__(self, *about):
        super().__init__(*about)
        self.streams: dict[int, torch.Generator] = {}

    def __call__(self, wanted):
        for index, _ in wanted:
            if index not in self.streams:
                self.streams[index] = self.stream(index=index)
        return self._drawn([self.streams[index] for index, _ in wanted])


class EveryTick(Draws):
    """The draws of a deterministic law, in an order in which the first few are spread evenly.

    ticks: how many there are, by image; so many in a row are all of them, each once. No seed or
    purpose changes them.
    """

    def __init__(self, ticks: Mapping[int, int], law: SplittingNoise, *about):
        super().__init__(law, *about)
        self.ticks = ticks
        self.phases = law.phases(self.shape[1:]).to(self.device)

    def __call__(self, wanted):
        rows, *others = self.shape
        found = []
        for index, number in wanted:
            ticks = self.ticks[index]
            turn = torch.arange(number * rows, (number + 1) * rows, device=self.device)
            base = (turn * _stride(ticks)).reshape(-1, *[1] * len(others))
            # whole numbers: rounding must not count a tick twice
            tick = (base + (self.phases * ticks).long()) % ticks
            found.append(((2 * tick + 1) / ticks - 1).to(self.dtype))
        return laid_out(torch.stack(found), self.layout)


def _stride(ticks: int) -> int:
    """A step near the golden section of a circle of ticks that reaches each of them."""
    step = max(1, round(0.618 * ticks))
    while math.gcd(step, ticks) > 1:
        step -= 1
    return step


def laid_out(blocks: Tensor, layout: torch.memory_format) -> Tensor:
    """The same numbers, with colour images of (k, rows, C, H, W) stored as a network wants them."""
    if blocks.dim() != 5:
        return blocks
    rows = blocks.flatten(0, 1).contiguous(memory_format=layout)
    return rows.unflatten(0, blocks.shape[:2])


def unit_draws(
    law: Noise, shape: tuple[int, ...], generators: Sequence[torch.Generator], dtype: torch.dtype
) -> Tensor:
    """Draws of the unit law from each generator: (len(generators), *shape).

    On a CPU large draws are shared among threads, as PyTorch draws with one; a stream does not
    depend on it.
    """

    def draw(stream: torch.Generator) -> Tensor:
        return law.unit(shape, generator=stream, dtype=dtype)

    threads = _threads(shape, generators[0].device)
    if threads == 1:
        return torch.stack(list(map(draw, generators)))
    return torch.stack(list(_pool(threads).map(draw, generators)))


def _threads(shape: tuple[int, ...], device: torch.device) -> int:
    """How many draws are made side by side."""
    if device.type != "cpu" or math.prod(shape) < ALONE:
        return 1
    return torch.get_num_threads()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
