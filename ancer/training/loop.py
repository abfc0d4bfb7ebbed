"""Training a base classifier under noise: one loop for all schemes."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from ancer._files import write_state
from ancer.bases.basis import check_shape
from ancer.classifier import check_images, dtype_of, memory_format_of
from ancer.evaluation.arithmetic import fixed_gradients
from ancer.noise.law import Noise, check_noise
from ancer.streams import generator
from ancer.training.augmentation import augmented
from ancer.training.checks import check_labels, check_patch
from ancer.training.losses import SCHEMES, check_options

Progress = Callable[[int, float], None]  # epoch from 1, mean loss


def _sgd(parameters, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay
    )


def _one_cycle(optimizer, lr: float, steps: int):
    return OneCycleLR(optimizer, lr, total_steps=steps)


def _cosine(optimizer, lr: float, steps: int):
    return CosineAnnealingLR(optimizer, steps)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": _sgd,
}
SCHEDULES = {"one_cycle": _one_cycle, "cosine": _cosine}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained under noise. Raises ValueError outside the domains.

    Example:
        >>> Recipe(epochs=90, batch_size=256, lr=0.1, optimizer="sgd", flip=True).scheme
        'augmentation'
    """

    # for those who make a form of it: each field's sentence stands under it
    __pydantic_config__ = {"use_attribute_docstrings": True}  # noqa: RUF012

    scheme: str = "augmentation"
    """What is minimized: augmentation, stability, smoothadv or macer; of `ancer.Denoised`,
    denoising or denoised_stability."""
    options: dict = field(default_factory=dict)
    """Options of the scheme's loss, by name."""
    epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images of one step."""
    optimizer: str = "adamw"
    """adamw, or sgd (momentum 0.9, Nesterov)."""
    schedule: str = "one_cycle"
    """one_cycle peaks at lr and moves the momentum, or AdamW's beta_1; cosine starts there."""
    lr: float
    """Learning rate."""
    weight_decay: float = 1e-4
    """Weight decay of the optimizer."""
    crop: int = 0
    """Images are shifted by up to so many pixels each way, zeros moving in."""
    flip: bool = False
    """Images are mirrored with probability 1/2."""
    patch: int = 0
    """Side of a random part of each image, which is all that a step sees of it; 0: the whole."""
    dtype: str = "float32"
    """bfloat16 means autocast, the parameters stay float32."""
    memory_format: str = "contiguous_format"
    """Layout of images and network: contiguous_format or channels_last."""

    def __post_init__(self):
        check_options(self.scheme, self.options)
        if self.optimizer not in OPTIMIZERS or self.schedule not in SCHEDULES:
            raise ValueError(
                f"unknown optimizer {self.optimizer!r} or schedule {self.schedule!r}: "
                f"{[*OPTIMIZERS]}, {[*SCHEDULES]}"
            )
        if min(self.epochs, self.batch_size) < 1 or not 0 < self.lr < math.inf:
            raise ValueError(
                "epochs, batch_size and lr must be > 0, "
                f"found {self.epochs}, {self.batch_size}, {self.lr}"
            )
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be >= 0, found {self.weight_decay}")
        for name in ("crop", "patch"):
            pixels = getattr(self, name)
            if not isinstance(pixels, int) or pixels < 0:
                raise ValueError(f"{name} must be a whole number of pixels >= 0, found {pixels!r}")
        dtype_of(self.dtype)
        memory_format_of(self.memory_format)


def train(
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    noise: Noise,
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Train `module` in place on images under noise.

    Args:
        module: returns logits of images.
        images: (M, ...) in [0, 1].
        labels: (M,), int64.
        noise: one theta for all images, one number or (1, *images.shape[1:]) in any basis: that
            which certifies, as `optimize_dataset` or `jitter` chose it.
        recipe: without one 30 epochs of noise augmentation (Cohen et al. 2019) in batches of 128,
            by AdamW with one cycle up to the rate 0.003.
        seed: of the random streams.
        resume: a file that keeps the state after each epoch; where it is there, training goes on
            from it and ends as an unbroken run would (its epochs are reported again; dropout has
            noise of its own, which is not kept). The file is of this call alone: name it by all of
            its arguments, and remove it afterwards.
        progress: called with epoch and mean loss after each epoch.

    Returns:
        The module, in eval mode.

    Raises:
        ValueError: on arguments outside their domain or a foreign file.
        FloatingPointError: when the loss is no longer finite.

    Example:
        >>> x = torch.rand(64, 2)
        >>> net = train(nn.Linear(2, 2), x, (x[:, 0] > x[:, 1]).long(), GaussianNoise(0.1))
        >>> net.training
        False
    """
    recipe = recipe or Recipe(epochs=30, batch_size=128, lr=0.003)
    check_images(images)
    check_noise(noise)
    check_labels(labels, len(images))
    if noise.theta.dim() and noise.theta.shape != (1, *images.shape[1:]):
        raise ValueError(
            "train under one theta for all, a number or of shape "
            f"{(1, *images.shape[1:])}, found {tuple(noise.theta.shape)}"
        )
    check_shape(noise.basis, images.shape[1:])
    if (recipe.crop or recipe.flip or recipe.patch) and images.dim() != 4:
        raise ValueError(
            "crop, flip and patch need images (M, channels, height, width), found "
            f"{tuple(images.shape)}"
        )
    if recipe.patch:
        check_patch(recipe.patch, images, noise)
    training = _Training(module, images, labels, noise, recipe, seed)
    state = None if resume is None else Path(resume)
    losses = []
    if state is not None and state.exists():
        losses = training.restore(state)
        for epoch, loss in enumerate(losses, start=1):
            if progress is not None:
                progress(epoch, loss)
    module.train()
    try:
        for epoch in range(len(losses), recipe.epochs):
            loss = training.epoch(epoch)
            if not loss < math.inf:
                raise FloatingPointError(
                    f"the loss of epoch {epoch + 1} is {loss}: lower lr (now {recipe.lr})"
                )
            losses.append(loss)
            if state is not None:
                training.save(state, losses)
            if progress is not None:
                progress(epoch + 1, loss)
    finally:
        module.eval()
    return module


class _Training:
    """A network, its images and its optimizer between two epochs."""

    def __init__(
        self,
        module: nn.Module,
        images: Tensor,
        labels: Tensor,
        noise: Noise,
        recipe: Recipe,
        seed: int,
    ):
        parameters = [p for p in module.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError("the module has no parameters to train (with requires_grad)")
        device = parameters[0].device
        self.noise = noise
        self.recipe = recipe
        self.images = images.to(device)
        self.labels = labels.to(device)
        self.memory_format = memory_format_of(recipe.memory_format)
        self.module = module.to(memory_format=self.memory_format)
        self.stream = generator(seed, "train", 0, device)
        steps = recipe.epochs * math.ceil(len(images) / recipe.batch_size)
        make_optimizer = OPTIMIZERS[recipe.optimizer]
        self.optimizer = make_optimizer(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
        self.schedule = SCHEDULES[recipe.schedule](self.optimizer, recipe.lr, steps)

    def epoch(self, epoch: int) -> float:
        """Train once on every image, in an order of its own; the mean loss."""
        count = len(self.images)
        batch_size = self.recipe.batch_size
        order = torch.randperm(count, generator=self.stream, device=self.images.device)
        total = 0.0
        for step, index in enumerate(order.split(batch_size)):
            done = (epoch + step * batch_size / count) / self.recipe.epochs
            with self._steady():
                loss = self._loss(index, done)
                self.optimizer.zero_grad()
                loss.backward()
            self.optimizer.step()
            self.schedule.step()
            total += loss.item() * len(index)
        return total / count

    def _steady(self) -> AbstractContextManager[None]:
        """Inside, a GPU computes the same gradients each time, as a CPU does anyway."""
        device = self.images.device
        return fixed_gradients(device) if device.type == "cuda" else nullcontext()

    def _loss(self, index: Tensor, done: float) -> Tensor:
        """The loss of the images `index`, when the share `done` of the training is over."""
        recipe = self.recipe
        images = self.images[index]
        x = augmented(images, self.stream, crop=recipe.crop, patch=recipe.patch, flip=recipe.flip)
        x = self._laid_out(x)
        theta = self.noise.theta_for(x)

        def draw() -> Tensor:
            z = self.noise.unit(x.shape, generator=self.stream, dtype=x.dtype)
            return self._laid_out(self.noise.added(x, theta, z))

        autocast = dtype_of(recipe.dtype) == torch.bfloat16
        with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
            loss = SCHEMES[recipe.scheme]
            try:
                return loss(self.module, x, self.labels[index], draw, done, **recipe.options)
            except IndexError as error:
                raise ValueError(f"a label is outside the model's classes: {error}") from None

    def _laid_out(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=self.memory_format) if x.dim() == 4 else x

    def save(self, path: Path, losses: list[float]) -> None:
        """Keep all that the next epoch depends on."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        write_state(path, {**state, "stream": self.stream.get_state(), "losses": losses})

    def restore(self, path: Path) -> list[float]:
        """Load what an earlier, killed training kept; returns the losses of its epochs."""
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.stream.set_state(state["stream"])
            return state["losses"]
        except Exception as error:  # a foreign file can raise nearly anything
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{path} is not a state of this training ({reason}): remove it to train anew"
            ) from None

    def _parts(self) -> dict:
        return {"module": self.module, "optimizer": self.optimizer, "schedule": self.schedule}
