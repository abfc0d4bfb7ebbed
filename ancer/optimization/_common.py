"""What the optimizers share: groups of images, differentiable probabilities, checked settings."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ancer.classifier import Classifier
from ancer.confidence.looks import Looks
from ancer.evaluation.arithmetic import fixed_gradients
from ancer.noise.law import Noise, check_noise
from ancer.queries import Queries
from ancer.smoothing import SmoothedClassifier
from ancer.streams import generator, unit_draws

LEAST_PROBABILITY = 1e-3  # that the ascent tells from none


def in_groups(
    ascend: Callable[[Queries], Tensor],
    model: nn.Module | Classifier,
    x: Tensor,
    noise: Noise,
    draws: int,
    indices: Sequence[int] | None,
) -> Tensor:
    """`ascend` on as many images at once as draws for each fit the batch size; theta on x's device.

    Raises ValueError for a batch size below draws, or as `SmoothedClassifier.queries`.
    """
    queries = SmoothedClassifier(model, noise).queries(x, indices)
    classifier = queries.classifier
    size = classifier.batch_size // draws
    if size < 1:
        raise ValueError(
            f"batch_size {classifier.batch_size} is below {draws} draws: raise it or lower draws"
        )
    found = []
    with with_gradients(classifier):
        for first in range(0, len(queries), size):
            found.append(ascend(queries.part(slice(first, first + size))))
    return torch.cat(found).to(x)


@contextmanager
def with_gradients(classifier: Classifier) -> Iterator[None]:
    """Inside, gradients in one arithmetic, whatever the caller's autocast or inference mode."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        fixed_gradients(classifier.device),
        classifier.enough_memory(),
    ):
        yield


class MeanProbabilities:
    """Mean class probabilities (B, K) over `draws` fresh draws an image, differentiable in theta.

    temperature: the probabilities are those of logits / temperature.
    """

    def __init__(self, queries: Queries, draws: int, seed: int, temperature: float = 1.0):
        device = queries.x.device
        # the draws of a step are the same for all images, whatever their number
        self.streams = [generator(seed, "ascent", 0, device)]
        self.queries = queries
        self.coordinates = queries.coordinates.to(queries.x.dtype)
        self.draws = draws
        self.temperature = temperature

    def __call__(self, theta: Tensor) -> Tensor:
        """At theta, which broadcasts to the images' coordinates."""
        y = self.coordinates
        law = self.queries.law
        z = unit_draws(law, (self.draws, *y.shape[1:]), self.streams, y.dtype)
        noisy = law.relaxed(y[:, None], theta[:, None], z)
        inputs = law.basis.back(noisy.flatten(0, 1))
        p = self.queries.classifier.probabilities(inputs)
        if theta.requires_grad and not p.requires_grad:
            raise ValueError(
                "the model's outputs carry no gradient, which theta is fitted by: is its forward "
                "under torch.no_grad or inference_mode?"
            )
        if self.temperature != 1:
            p = (p.clamp(min=1e-30).log() / self.temperature).softmax(dim=1)
        return p.unflatten(0, (len(y), self.draws)).mean(dim=1)


class PlannedGap:
    """The gap of a class by mean probabilities, never above what n draws at alpha can certify.

    Of a deterministic law that of the probabilities themselves.
    """

    def __init__(self, noise: Noise, n: int, alpha: float):
        check_noise(noise)
        self.noise = noise
        self.largest = 1.0
        self.least = 0.0
        if not noise.deterministic:
            best = Looks.once(n).bounds(np.array(n), np.array(0), np.array(n), alpha, "two")
            self.largest = float(best.lower)
            self.least = float(best.upper)

    def __call__(self, probabilities: Tensor, classes: Tensor) -> Tensor:
        """Of probabilities (B, K) and classes (B, 1): (B,), differentiable."""
        p_a, p_b = of_class_and_rival(probabilities, classes)
        p_a = p_a.clamp(LEAST_PROBABILITY, self.largest)
        return self.noise.gap(p_a, p_b.clamp(self.least, 1 - LEAST_PROBABILITY))


def of_class_and_rival(values: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Of values (B, K) >= 0, those of classes (B, 1), and the largest of another: (B,) each."""
    return values.gather(1, classes)[:, 0], values.scatter(1, classes, 0).amax(dim=1)


def isotropic_start(noise: Noise, x: Tensor) -> Tensor:
    """noise.theta as (B,); ValueError when it is anisotropic."""
    check_noise(noise)
    theta = noise.theta_for(x)
    if theta[0].numel() != 1:
        raise ValueError(
            f"an isotropic start is one theta an image, found shape {tuple(noise.theta.shape)}"
        )
    return theta.flatten()


def common_start(noise: Noise, x: Tensor) -> Tensor:
    """The one number that noise.theta is for all images, 0-dim; ValueError when it is several."""
    start, *others = isotropic_start(noise, x).unique()
    if others:
        raise ValueError("one theta for all starts from one number, found several")
    return start


def check_schedule(iterations: int, draws: int, step: float) -> None:
    """Raise ValueError unless all are > 0."""
    if min(iterations, draws) < 1 or not 0 < step < math.inf:
        raise ValueError(
            f"iterations, draws and step must be > 0, found {iterations}, {draws} and {step}"
        )
