"""The smoothed classifier: votes and mean probabilities of a base classifier under noise."""

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from ancer.models import Classifier, as_classifier, check_images
from ancer.noise import Noise, check_on_lattice

# Noise is drawn in blocks of this many draws, each block of one image whole: a generator's stream depends on
# the size of the request, so a fixed size is what makes a draw independent of the batch size.
BLOCK = 100
ALONE = 2**15  # numbers of one draw below which another thread costs more than it saves
PURPOSES = {"train": 0, "select": 1, "certify": 2, "predict": 3, "search": 4, "ascent": 5}


def generator(seed: int, purpose: str, index: int, device: torch.device) -> torch.Generator:
    """The random stream of one image and one purpose; streams of different arguments are unrelated.

    seed, index: integers >= 0; purpose: a key of PURPOSES. Optimization and certification have different
    purposes and so never share noise.
    """
    seed, index = operator.index(seed), operator.index(index)  # TypeError rather than a truncated 0.5
    if not (0 <= seed < 2**64 and 0 <= index < 2**64):
        raise ValueError(f"seed and image index must lie in 0..2^64-1, found {seed} and {index}")
    words = np.array([seed, PURPOSES[purpose], index], dtype=np.uint64).view(np.uint32)  # six, whatever the values
    entropy = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(entropy >> 1))


class SmoothedClassifier:
    """g(x) = E f(x + theta * z), sampled (section 3 of the paper).

    model: a `Classifier`, or an nn.Module that returns logits. noise: a `GaussianNoise` or `UniformNoise` whose
    theta fits the images. lattice: None for noise in floating point, or the step of the images' lattice for noise
    that no rounding ties to the image (see `Noise.around`). Work runs where the model is; memory is bounded by the
    classifier's batch_size.
    """

    def __init__(self, model: nn.Module | Classifier, noise: Noise, *, lattice: float | None = None):
        self.classifier, self.noise, self.lattice = as_classifier(model), noise, lattice

    def slack(self, x: Tensor) -> np.ndarray:
        """Bounds on the total variation between the law and the noise as it is sampled, one an image: (B,)."""
        if self.lattice is None:
            return np.zeros(len(x))  # rounding is not accounted for
        theta = (self.noise.theta_for(x, self.lattice) / self.lattice).expand_as(x)
        return np.array([self.noise.slack(t) for t in theta])

    def counts(self, x: Tensor, n: int, *, seed: int, purpose: str, indices: Sequence[int] | None = None) -> Tensor:
        """Votes of n noisy copies of each image x (B, ...): int64 (B, K), each row sums to n.

        indices: the images' numbers in their data set (default 0..B-1). With the seed and the purpose they fix
        the noise of an image, whatever batch, order or subset it comes in.
        """
        _check_draws(n)
        return Stream(self, x, seed=seed, purpose=purpose, indices=indices).counts([n] * len(x))

    def probabilities(
        self, x: Tensor, n: int, *, seed: int, purpose: str, indices: Sequence[int] | None = None
    ) -> Tensor:
        """Mean class probabilities over n noisy copies of each image x (B, ...): float64 (B, K); see `counts`."""
        _check_draws(n)
        stream = Stream(self, x, seed=seed, purpose=purpose, indices=indices)
        return stream.total([n] * len(x), Classifier.probabilities).double() / n


class Stream:
    """Noisy copies of images x (B, ...), drawn on and on: each call goes on where the last one stopped."""

    def __init__(
        self, smoothed: SmoothedClassifier, x: Tensor, *, seed: int, purpose: str, indices: Sequence[int] | None = None
    ):
        check_images(x)
        if smoothed.lattice is not None:
            check_on_lattice(x, smoothed.lattice)
        self.smoothed = smoothed
        self.x = x.to(smoothed.classifier.device)
        self.theta = smoothed.noise.theta_for(self.x, smoothed.lattice)
        self.generators = [generator(seed, purpose, index, self.x.device) for index in image_indices(x, indices)]

    def counts(self, draws: Sequence[int]) -> Tensor:
        """Votes of the next draws[i] >= 0 copies of image i: int64 (B, K).

        All but the last draws of an image must be multiples of BLOCK: what is left of a block is dropped.
        """
        return self.total(draws, lambda classifier, inputs: _one_hot(classifier(inputs)))

    def total(self, draws: Sequence[int], evaluate: Callable[[Classifier, Tensor], Tensor]) -> Tensor:
        """Sum of evaluate(classifier, copies), (rows, K), over the next draws[i] copies of each image: (B, K)."""
        total, classifier = None, self.smoothed.classifier
        with torch.inference_mode(), classifier.fixed_arithmetic(), classifier.enough_memory():
            for owners, inputs in self._batches(draws):
                values = evaluate(classifier, inputs)[: len(owners)]  # the rest of the last batch is padding
                values = values if values.dtype == torch.int64 else values.double()
                if total is None:
                    total = values.new_zeros(len(self.x), values.shape[1])
                total.index_add_(0, owners, values)
        return total.cpu().clone()  # an ordinary tensor, usable in place and in autograd

    def _batches(self, draws: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (owner of each row, noisy copies) in full batches, the last one padded."""
        x, classifier = self.x, self.smoothed.classifier
        batch = classifier.as_input(x.new_zeros(classifier.batch_size, *x.shape[1:]))
        owners, filled = torch.empty(len(batch), dtype=torch.long), 0
        for i, rows in self._copies(draws):
            while len(rows):
                take = min(len(rows), len(batch) - filled)
                batch[filled : filled + take] = rows[:take]
                owners[filled : filled + take] = i
                filled, rows = filled + take, rows[take:]
                if filled == len(batch):
                    yield owners.to(x.device), batch
                    filled = 0
        if filled:
            yield owners[:filled].to(x.device), batch

    def _copies(self, draws: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield (image, up to BLOCK noisy copies of it): a block of every image in turn, a batch of blocks at once."""
        x, noise, lattice = self.x, self.smoothed.noise, self.smoothed.lattice
        shape, dtype = (BLOCK, *x.shape[1:]), x.dtype if lattice is None else torch.float64
        several = max(self.smoothed.classifier.batch_size // BLOCK, 1)
        for start in range(0, max(draws), BLOCK):
            drawing = [i for i, n in enumerate(draws) if n > start]
            for first in range(0, len(drawing), several):
                images = drawing[first : first + several]
                z = unit_draws(noise, shape, [self.generators[i] for i in images], dtype)
                copies = noise.around(x[images, None], self.theta[images, None], z, lattice)
                for i, rows in zip(images, copies, strict=True):
                    yield i, rows[: draws[i] - start]


def unit_draws(
    noise: Noise, shape: tuple[int, ...], generators: Sequence[torch.Generator], dtype: torch.dtype
) -> Tensor:
    """Draws of the unit law from each generator: (len(generators), *shape).

    On a CPU large draws are shared among threads, as PyTorch draws with one; a stream does not depend on it.
    """

    def draw(some: Sequence[torch.Generator]) -> list[Tensor]:
        return [noise.unit(shape, generator=stream, dtype=dtype) for stream in some]

    alone = generators[0].device.type != "cpu" or math.prod(shape) < ALONE
    threads = 1 if alone else torch.get_num_threads()
    share = -(-len(generators) // threads)
    shares = [generators[k : k + share] for k in range(0, len(generators), share)]
    drawn = [draw(shares[0])] if len(shares) == 1 else _pool(threads).map(draw, shares)
    return torch.stack(list(chain.from_iterable(drawn)))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def image_indices(x: Tensor, indices: Sequence[int] | None) -> list[int]:
    """The images' numbers as integers, 0..B-1 when not given; ValueError when they do not fit x."""
    indices = list(range(len(x))) if indices is None else [int(i) for i in indices]
    if len(indices) != len(x) or len(set(indices)) != len(indices) or min(indices) < 0:
        raise ValueError(f"indices must be {len(x)} different numbers >= 0, one an image, found {indices[:8]}")
    return indices


def _check_draws(n: int) -> None:
    if n < 1:
        raise ValueError(f"the number of draws must be >= 1, found {n}")


def _one_hot(outputs: Tensor) -> Tensor:
    votes = torch.zeros_like(outputs, dtype=torch.int64)
    return votes.scatter_(1, outputs.argmax(dim=1, keepdim=True), 1)
