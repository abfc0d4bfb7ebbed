"""The smoothed classifier: votes and mean probabilities of a base classifier under noise."""

import operator
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ancer.models import Classifier, as_classifier, check_images
from ancer.noise import Noise

# Noise is drawn in blocks of this many draws, each block of one image whole: a generator's stream depends on
# the size of the request, so a fixed size is what makes a draw independent of the batch size.
BLOCK = 100
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
    theta fits the images. Work runs where the model is; memory is bounded by the classifier's batch_size.
    """

    def __init__(self, model: nn.Module | Classifier, noise: Noise):
        self.classifier, self.noise = as_classifier(model), noise

    def counts(self, x: Tensor, n: int, *, seed: int, purpose: str, indices: Sequence[int] | None = None) -> Tensor:
        """Votes of n noisy copies of each image x (B, ...): int64 (B, K), each row sums to n.

        indices: the images' numbers in their data set (default 0..B-1). With the seed and the purpose they fix
        the noise of an image, whatever batch, order or subset it comes in.
        """
        return self._total(x, n, seed, purpose, indices, lambda f, inputs: _one_hot(f(inputs)))

    def probabilities(
        self, x: Tensor, n: int, *, seed: int, purpose: str, indices: Sequence[int] | None = None
    ) -> Tensor:
        """Mean class probabilities over n noisy copies of each image x (B, ...): float64 (B, K); see `counts`."""
        return self._total(x, n, seed, purpose, indices, Classifier.probabilities).double() / n

    def _total(self, x, n, seed, purpose, indices, evaluate) -> Tensor:
        total = None
        with torch.inference_mode():
            for owners, inputs in self._batches(x, n, seed, purpose, indices):
                values = evaluate(self.classifier, inputs)[: len(owners)]  # the rest of the last batch is padding
                values = values if values.dtype == torch.int64 else values.double()
                if total is None:
                    total = values.new_zeros(len(x), values.shape[1])
                total.index_add_(0, owners, values)
        return total.cpu().clone()  # an ordinary tensor, usable in place and in autograd

    def _batches(self, x, n, seed, purpose, indices) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (owner of each row, rows x + theta * z): image after image, full batches, the last one padded."""
        check_images(x)
        if n < 1:
            raise ValueError(f"the number of draws must be >= 1, found {n}")
        indices = image_indices(x, indices)
        x = x.to(self.classifier.device)
        theta = self.noise.theta_for(x)
        size = self.classifier.batch_size
        batch, owners, filled = x.new_zeros(size, *x.shape[1:]), torch.empty(size, dtype=torch.long), 0
        for i, index in enumerate(indices):
            stream = generator(seed, purpose, index, x.device)
            for start in range(0, n, BLOCK):
                z = self.noise.unit((BLOCK, *x.shape[1:]), generator=stream, dtype=x.dtype)
                rows = z.mul_(theta[i]).add_(x[i])[: n - start]
                while len(rows):
                    take = min(len(rows), size - filled)
                    batch[filled : filled + take] = rows[:take]
                    owners[filled : filled + take] = i
                    filled, rows = filled + take, rows[take:]
                    if filled == size:
                        yield owners.to(x.device), batch
                        filled = 0
        if filled:
            yield owners[:filled].to(x.device), batch


def image_indices(x: Tensor, indices: Sequence[int] | None) -> list[int]:
    """The images' numbers as integers, 0..B-1 when not given; ValueError when they do not fit x."""
    indices = list(range(len(x))) if indices is None else [int(i) for i in indices]
    if len(indices) != len(x) or len(set(indices)) != len(indices) or min(indices) < 0:
        raise ValueError(f"indices must be {len(x)} different numbers >= 0, one an image, found {indices[:8]}")
    return indices


def _one_hot(outputs: Tensor) -> Tensor:
    votes = torch.zeros_like(outputs, dtype=torch.int64)
    return votes.scatter_(1, outputs.argmax(dim=1, keepdim=True), 1)
