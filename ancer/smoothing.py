"""The smoothed classifier: votes and mean probabilities of a base classifier under noise."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ancer.bases.lattice import check_on_lattice, step_in
from ancer.classifier import Classifier, as_classifier, check_images
from ancer.confidence.budget import check_whole
from ancer.noise.law import Noise, check_noise
from ancer.queries import Queries


class SmoothedClassifier:
    """g(x) = E f(x + theta * z), sampled (section 3 of the paper).

    Work runs where the model is; memory is bounded by the classifier's batch_size.

    Args:
        model: a `Classifier`, or an nn.Module that returns logits.
        noise: a `GaussianNoise`, `UniformNoise` or `SplittingNoise` whose theta fits the images.
        lattice: None for noise in floating point, or the step of the images' lattice for noise that
            no rounding ties to the image (see `Noise.around`; in another basis than pixels, that of
            its coefficients, `bases.lattice.STEP`); that of a noise that has one is its own.
        shared: all images see the same unit draws z, made once; else each its own.

    Example:
        >>> g = SmoothedClassifier(nn.Linear(2, 3), GaussianNoise(0.5))
        >>> g.counts(torch.rand(4, 2), 100, seed=0, purpose="predict").sum(dim=1)
        tensor([100, 100, 100, 100])
    """

    def __init__(
        self,
        model: nn.Module | Classifier,
        noise: Noise,
        *,
        lattice: float | None = None,
        shared: bool = True,
    ):
        self.classifier = as_classifier(model)
        check_noise(noise)
        self.noise = noise
        self.lattice = lattice if noise.lattice is None else noise.lattice
        if lattice not in (None, self.lattice):
            raise ValueError(
                f"{noise} is of images on its own lattice, found lattice={lattice:g}: give it that"
            )
        self.shared = shared

    def queries(self, x: Tensor, indices: Sequence[int] | None = None) -> Queries:
        """Images x (B, ...), checked with their noise and numbers, on the classifier's device.

        indices: the images' numbers in their data set (default 0..B-1), which fix the noise that
        is not shared. Either way it does not depend on batch, order or subset.

        Raises ValueError for what are no images, other numbers, or a theta that does not fit.
        """
        check_images(x)
        if self.lattice is not None:
            check_on_lattice(x, self.lattice)
        with torch.inference_mode(False):  # their own tensors: whose were given may change
            x = x.detach().to(self.classifier.device, copy=True)
            step = step_in(self.noise.basis, self.lattice)
            theta = self.noise.theta_for(x, step).detach().clone()
        return Queries(
            classifier=self.classifier,
            law=self.noise.with_theta(theta),
            x=x,
            indices=image_indices(x, indices),
            theta=theta,
            lattice=step,
            shared=self.shared,
        )

    def counts(
        self, x: Tensor, n: int, *, seed: int, purpose: str, indices: Sequence[int] | None = None
    ) -> Tensor:
        """Votes of n noisy copies of each image x (B, ...): int64 (B, K), each row sums to n.
        indices: as of `queries`. Raises ValueError as it does, and for n < 1.
        """
        _check_draws(n)
        return self.queries(x, indices).counts(n, seed=seed, purpose=purpose)

    def probabilities(
        self, x: Tensor, n: int, *, seed: int, purpose: str, indices: Sequence[int] | None = None
    ) -> Tensor:
        """Mean class probabilities over n noisy copies of each image x: float64 (B, K)."""
        _check_draws(n)
        stream = self.queries(x, indices).stream(seed, purpose)
        total = stream.total([n] * len(x), self.classifier.as_probabilities)
        return total.double() / n


def image_indices(x: Tensor, indices: Sequence[int] | None) -> tuple[int, ...]:
    """The images' numbers as integers, 0..B-1 when not given; ValueError if they do not fit x."""
    if indices is None:
        return tuple(range(len(x)))
    numbers = tuple(indices)
    check_whole(**{f"index {k}": number for k, number in enumerate(numbers)})
    numbers = tuple(map(int, numbers))
    if len(numbers) != len(x) or len(set(numbers)) != len(numbers) or min(numbers) < 0:
        raise ValueError(
            f"indices must be {len(x)} different numbers >= 0, one an image, "
            f"found {list(numbers[:8])}"
        )
    return numbers


def _check_draws(n: int) -> None:
    if n < 1:
        raise ValueError(f"the number of draws must be >= 1, found {n}")
