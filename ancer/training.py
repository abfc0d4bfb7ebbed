"""Training a base classifier under the noise under which it will be certified."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ancer.models import check_images
from ancer.noise import Noise
from ancer.smoothing import generator


def augmentation_loss(module: nn.Module, noisy: Callable[[], Tensor], labels: Tensor) -> Tensor:
    """Cross-entropy on one noisy copy of each image (Cohen et al. 2019; uniform noise: Yang et al. 2020)."""
    return F.cross_entropy(module(noisy()), labels)


def stability_loss(module: nn.Module, noisy: Callable[[], Tensor], labels: Tensor, weight: float = 6.0) -> Tensor:
    """Cross-entropy plus weight * KL(f(x + z) || f(x + z')) between two noisy copies (RS4A, its weight 6)."""
    first, second = module(noisy()), module(noisy())
    divergence = F.kl_div(second.log_softmax(1), first.log_softmax(1), reduction="batchmean", log_target=True)
    return F.cross_entropy(first, labels) + weight * divergence


SCHEMES = {"augmentation": augmentation_loss, "stability": stability_loss}


def train(
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    noise: Noise,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
    scheme: str = "augmentation",
    weight_decay: float = 1e-4,
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> nn.Module:
    """Train `module` in place on images (M, ...) in [0, 1] and labels (M,) under `noise`; return it in eval mode.

    AdamW with a one-cycle schedule that peaks at lr. scheme: a key of SCHEMES. noise: one scale for all images.
    progress(epoch, mean loss) is called after each epoch. Raises ValueError on arguments outside their domain
    and FloatingPointError when the loss is no longer finite.
    """
    check_images(images)
    if scheme not in SCHEMES:
        raise ValueError(f"unknown training scheme {scheme!r}: choose one of {sorted(SCHEMES)}")
    if min(epochs, batch_size) < 1 or not 0 < lr < math.inf:
        raise ValueError(f"epochs, batch_size and lr must be > 0, found {epochs}, {batch_size}, {lr}")
    if noise.theta.dim():
        raise ValueError(f"train under one noise scale, found theta of shape {tuple(noise.theta.shape)}")
    if labels.shape != (len(images),) or labels.dtype != torch.int64 or labels.min() < 0:
        found = f"{tuple(labels.shape)} {labels.dtype} from {labels.min().item():g}"
        raise ValueError(f"labels must be {len(images)} int64 class numbers >= 0, found {found}")
    parameters = list(module.parameters())
    if not parameters:
        raise ValueError("the module has no parameters to train")
    images, labels = images.to(parameters[0].device), labels.to(parameters[0].device)
    stream = generator(seed, "train", 0, images.device)
    steps = -(-len(images) // batch_size)
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=epochs * steps)
    module.train()
    try:
        for epoch in range(epochs):
            total = 0.0
            order = torch.randperm(len(images), generator=stream, device=images.device)
            for index in order.split(batch_size):
                x, y = images[index], labels[index]
                theta = noise.theta_for(x)

                def noisy(x=x, theta=theta):
                    return x + theta * noise.unit(x.shape, generator=stream, dtype=x.dtype)

                try:
                    loss = SCHEMES[scheme](module, noisy, y)
                except IndexError as error:
                    raise ValueError(f"a label is outside the model's classes: {error}") from None
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item() * len(index)
            if not total < float("inf"):
                raise FloatingPointError(f"the loss of epoch {epoch + 1} is {total}: lower lr (now {lr})")
            progress(epoch + 1, total / len(images))
    finally:
        module.eval()
    return module
