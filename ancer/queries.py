"""Images and the noise round them, and their noisy copies, drawn on and on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ancer.bases.lattice import rounding_cost
from ancer.classifier import Classifier, Evaluation
from ancer.confidence.looks import BLOCK, Bounds, Looks
from ancer.noise.law import Noise, gap_of, positive
from ancer.noise.splitting import SplittingNoise
from ancer.streams import Draws, EveryTick, OwnDraws, SharedDraws, laid_out


@dataclass(frozen=True, eq=False)
class Queries:
    """Images and the noise round them, checked once and where the classifier is.

    What sampling, search, certification and optimization take: nothing below checks it again.

    x: (B, ...); indices: the images' numbers in their data set; theta: as it is sampled, (B, 1,
    ..., 1) or like x, of the coordinates in law's basis; lattice: None for noise in floating point,
    or the step of these coordinates; shared: whether all images see the same unit draws.
    """

    classifier: Classifier
    law: Noise
    x: Tensor
    indices: tuple[int, ...]
    theta: Tensor
    lattice: float | None = None
    shared: bool = True

    def __len__(self) -> int:
        return len(self.x)

    def scaled(self, theta: Tensor) -> "Queries":
        """The same images under the same law with other scales theta, like them or (B, 1, ..., 1).

        On a lattice the nearest that have a sampler there. Raises ValueError unless they are > 0
        and finite.
        """
        theta = positive(theta)
        if self.lattice is not None:
            theta = self.law.snap(theta.double() / self.lattice) * self.lattice
        return replace(self, theta=theta)

    def part(self, at: slice) -> "Queries":
        """Some of the images."""
        return replace(self, x=self.x[at], indices=self.indices[at], theta=self.theta[at])

    def per_image(self, values: Tensor) -> Tensor:
        """(B,) values as (B, 1, ..., 1), which broadcast against the images."""
        return values.reshape(-1, *[1] * (self.x.dim() - 1))

    @cached_property
    def coordinates(self) -> Tensor:
        """The images in law's basis, where noise is added to them: (B, ...); in float64 there."""
        if self.law.basis.is_pixels:
            return self.x
        return self.law.basis.to(self.x.double())

    @cached_property
    def theta_min(self) -> np.ndarray:
        """The smallest theta of each image, in float64: (B,)."""
        return self.theta.flatten(1).double().cpu().amin(dim=1).numpy()

    @cached_property
    def theta_gmean(self) -> np.ndarray:
        """The geometric mean of each image's theta, in float64: (B,)."""
        return self.theta.flatten(1).double().cpu().log().mean(dim=1).exp().numpy()

    @cached_property
    def slack(self) -> np.ndarray:
        """Bounds on the total variation between the law and the noise as it is sampled: (B,)."""
        if self.lattice is None:
            return np.zeros(len(self))  # rounding is not accounted for
        steps = (self.theta / self.lattice).expand_as(self.x)
        return np.array(list(map(self.law.slack, steps)))

    @cached_property
    def rounding(self) -> np.ndarray:
        """Of the gap, what `rounding_cost` takes in a basis: (B,), else 0."""
        if self.lattice is None or self.law.basis.is_pixels:
            return np.zeros(len(self))
        return rounding_cost(self.lattice, self.x[0].numel(), self.theta_min)

    def of_law(self, bounds: Bounds, at: np.ndarray | slice = slice(None)) -> Bounds:
        """Bounds of images `at` under the noise as it is sampled, as those under the law."""
        less = self.slack[at]
        return Bounds((bounds.lower - less).clip(0), (bounds.upper + less).clip(max=1))

    def gap(self, bounds: Bounds, at: np.ndarray | slice = slice(None)) -> np.ndarray:
        """The gap that bounds under the law give images `at`, less `rounding`; <= 0: abstain."""
        return gap_of(self.law, bounds.lower, bounds.upper) - self.rounding[at]

    @property
    def ticks(self) -> list[int]:
        """How many draws of a deterministic law there are, of each image."""
        assert self.lattice is not None  # such a law has one
        return self.law.ticks(self.theta / self.lattice).flatten().long().tolist()

    @property
    def evaluation(self) -> Evaluation:
        """How the classifier is evaluated on such images."""
        return self.classifier.evaluation(self.x.shape[1:])

    def stream(self, seed: int, purpose: str) -> "Stream":
        """Their noisy copies under the noise of one purpose."""
        return Stream(self, seed, purpose)

    def counts(self, n: int, *, seed: int, purpose: str) -> Tensor:
        """Votes of the first n noisy copies of each image: int64 (B, K), each row sums to n."""
        return self.stream(seed, purpose).counts([n] * len(self))


class Stream:
    """Noisy copies of queries, drawn on and on: each call goes on where the last one stopped."""

    def __init__(self, queries: Queries, seed: int, purpose: str):
        self.queries = queries
        # the first batch is checked: hashing a network takes longer than a look of a stopping rule
        self._outputs_of: Callable[[Tensor], Tensor] = queries.classifier.checked
        shape = (BLOCK, *queries.x.shape[1:])
        numbers = queries.x.dtype if queries.lattice is None else torch.float64
        kind = SharedDraws if queries.shared else OwnDraws
        # in pixels as the network wants its images: written once, and never turned
        self.layout = torch.contiguous_format
        if queries.law.basis.is_pixels:
            self.layout = queries.classifier.memory_format
        device = queries.x.device
        about = (shape, numbers, device, seed, purpose, self.layout)
        self.draws: Draws
        if isinstance(queries.law, SplittingNoise):
            ticks = dict(zip(queries.indices, queries.ticks, strict=True))
            self.draws = EveryTick(ticks, queries.law, *about)
        else:
            self.draws = kind(queries.law, *about)
        self.blocks = [0] * len(queries)  # of each image, so far

    def counts(self, draws: Sequence[int]) -> Tensor:
        """Votes of the next draws[i] >= 0 copies of image i: int64 (B, K).

        All but the last draws of an image must be multiples of BLOCK.
        """
        return self.total(draws, _one_hot)

    def total(self, draws: Sequence[int], value: Callable[[Tensor], Tensor]) -> Tensor:
        """Sum of value(outputs), (rows, K), over the next draws[i] copies of image i: (B, K)."""
        classifier = self.queries.classifier
        total = None
        # a network that works with gradients itself may: no inference mode
        with torch.no_grad(), classifier.fixed_arithmetic(), classifier.enough_memory():
            for owners, inputs in self._batches(draws):
                outputs = self._outputs_of(inputs)
                self._outputs_of = classifier
                with torch.inference_mode():
                    # the rest of the last batch is padding
                    values = value(outputs)[: len(owners)]
                    if values.dtype != torch.int64:
                        values = values.double()
                    if total is None:
                        total = values.new_zeros(len(self.queries), values.shape[1])
                    total.index_add_(0, owners, values)
        assert total is not None
        return total.cpu().clone()  # an ordinary tensor, usable in place and in autograd

    def _batches(self, draws: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (owner of each row, noisy copies) in full batches, the last one padded."""
        x = self.queries.x
        classifier = self.queries.classifier
        batch = classifier.as_input(x.new_zeros(classifier.batch_size, *x.shape[1:]))
        owners = torch.empty(len(batch), dtype=torch.long)
        filled = 0
        for images, rows in self._copies(draws):
            while len(rows):
                take = min(len(rows), len(batch) - filled)
                with torch.inference_mode():
                    batch[filled : filled + take] = rows[:take]
                    owners[filled : filled + take] = images[:take]
                    rows = rows[take:]
                    images = images[take:]
                filled += take
                if filled == len(batch):
                    yield owners.to(x.device), batch
                    filled = 0
        if filled:
            yield owners[:filled].to(x.device), batch

    def _copies(self, draws: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (image of each row, noisy copies): a block of every image in turn, then the next.

        As many blocks as fit a batch are made at once.
        """
        several = max(self.queries.classifier.batch_size // BLOCK, 1)
        wanted = torch.tensor(draws)
        for start in range(0, max(draws), BLOCK):
            drawing = (wanted > start).nonzero()[:, 0]
            for images in drawing.split(several):
                left = (wanted[images] - start).clamp(max=BLOCK)
                copies = self._block(images.tolist())
                if (left < BLOCK).any():
                    parts = [block[:rows] for block, rows in zip(copies, left, strict=True)]
                    yield images.repeat_interleave(left), torch.cat(parts)
                else:
                    yield images.repeat_interleave(BLOCK), copies.flatten(0, 1)

    @torch.inference_mode()
    def _block(self, images: list[int]) -> Tensor:
        """The next BLOCK noisy copies of each of some images: (len(images), BLOCK, ...)."""
        queries = self.queries
        y = laid_out(queries.coordinates[images, None], self.layout)
        theta = laid_out(queries.theta[images, None], self.layout)
        z = self.draws([(queries.indices[i], self.blocks[i]) for i in images])
        for i in images:
            self.blocks[i] += 1
        copies = queries.law.around(y, theta, z, queries.lattice, queries.x.dtype)
        if queries.law.basis.is_pixels:
            return copies
        # always so many at once: what one becomes hangs on nothing but its place in the block
        return torch.stack([queries.law.basis.back(block) for block in copies])


def gap_of_votes(
    law: Noise,
    count: np.ndarray,
    rival: np.ndarray,
    n: int,
    alpha: np.ndarray | float,
    classes: str,
) -> np.ndarray:
    """The gap that votes of n draws, looked at once, certify; 0 where they certify none.

    count, rival, alpha, classes: as of `Looks.bounds`. Of a deterministic law, as if n were all.
    """
    if law.deterministic:
        return np.maximum(count - rival, 0) / n
    bounds = Looks.once(n).bounds(count, rival, n, alpha, classes)
    return np.maximum(gap_of(law, *bounds), 0)


def _one_hot(outputs: Tensor) -> Tensor:
    votes = torch.zeros_like(outputs, dtype=torch.int64)
    return votes.scatter_(1, outputs.argmax(dim=1, keepdim=True), 1)
