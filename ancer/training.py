"""Training a base classifier under the noise under which it will be certified."""

import inspect
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ancer.files import write_state
from ancer.models import check_images, one_of
from ancer.noise import Noise
from ancer.schemes import ATTACKS, SCHEMES
from ancer.smoothing import generator

OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "sgd": lambda parameters, **settings: torch.optim.SGD(parameters, momentum=0.9, nesterov=True, **settings),
}
SCHEDULES = {
    "one_cycle": lambda optimizer, lr, steps: torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps),
    "cosine": lambda optimizer, lr, steps: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
}


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
    options: dict | None = None,
    optimizer: str = "adamw",
    schedule: str = "one_cycle",
    weight_decay: float = 1e-4,
    crop: int = 0,
    flip: bool = False,
    dtype: torch.dtype | str = torch.float32,
    memory_format: torch.memory_format | str = torch.contiguous_format,
    resume: str | Path | None = None,
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> nn.Module:
    """Train `module` in place on images (M, ...) in [0, 1] and labels (M,) under `noise`; return it in eval mode.

    noise: one scale for all images. scheme: a key of `schemes.SCHEMES`; options: keyword arguments of its loss.
    optimizer: "adamw" or "sgd" (momentum 0.9, Nesterov); schedule: "one_cycle", which peaks at lr (and moves the
    momentum, or AdamW's beta_1, from 0.95 to 0.85 and back), or "cosine", which starts there. crop: images are shifted
    by up to so many pixels each way, zeros moving in; flip: mirrored with probability 1/2. dtype: bfloat16 means
    autocast, the parameters stay float32. progress(epoch, mean loss) is called after each epoch. resume: a file that
    keeps the state after each epoch; where it is there, training goes on from it and ends as an unbroken run would (its
    epochs are reported again; dropout has noise of its own, which is not kept). The file is of this call alone: name it
    by all of its arguments, and remove it afterwards.

    Raises ValueError on arguments outside their domain or a foreign file, FloatingPointError when the loss is no
    longer finite.
    """
    check_images(images)
    options = dict(options or {})
    _check_scheme(scheme, options)
    if optimizer not in OPTIMIZERS or schedule not in SCHEDULES:
        raise ValueError(f"unknown optimizer {optimizer!r} or schedule {schedule!r}: {[*OPTIMIZERS]}, {[*SCHEDULES]}")
    if min(epochs, batch_size) < 1 or not 0 < lr < math.inf:
        raise ValueError(f"epochs, batch_size and lr must be > 0, found {epochs}, {batch_size}, {lr}")
    if noise.theta.dim():
        raise ValueError(f"train under one noise scale, found theta of shape {tuple(noise.theta.shape)}")
    if labels.shape != (len(images),) or labels.dtype != torch.int64 or labels.min() < 0:
        found = f"{tuple(labels.shape)} {labels.dtype} from {labels.min().item():g}"
        raise ValueError(f"labels must be {len(images)} int64 class numbers >= 0, found {found}")
    if not isinstance(crop, int) or crop < 0:
        raise ValueError(f"crop must be a whole number of pixels >= 0, found {crop!r}")
    if (crop or flip) and images.dim() != 4:
        raise ValueError(f"crop and flip need images (M, channels, height, width), found {tuple(images.shape)}")
    dtype = one_of(dtype, "dtype", torch.float32, torch.bfloat16)
    memory_format = one_of(memory_format, "memory_format", torch.contiguous_format, torch.channels_last)
    parameters = list(module.parameters())
    if not parameters:
        raise ValueError("the module has no parameters to train")
    device = parameters[0].device
    images, labels = images.to(device), labels.to(device)
    module.to(memory_format=memory_format)
    stream = generator(seed, "train", 0, device)
    steps = epochs * -(-len(images) // batch_size)
    optimizer = OPTIMIZERS[optimizer](parameters, lr=lr, weight_decay=weight_decay)
    schedule = SCHEDULES[schedule](optimizer, lr, steps)
    parts = {"module": module, "optimizer": optimizer, "schedule": schedule}
    losses = _restore(resume, parts, stream) if resume is not None and Path(resume).exists() else []
    for epoch, loss in enumerate(losses):
        progress(epoch + 1, loss)
    module.train()
    try:
        for epoch in range(len(losses), epochs):
            total = 0.0
            order = torch.randperm(len(images), generator=stream, device=device)
            for step, index in enumerate(order.split(batch_size)):
                x = _augmented(images[index], stream, crop, flip)
                if x.dim() == 4:
                    x = x.contiguous(memory_format=memory_format)
                theta = noise.theta_for(x)

                def draw(x=x, theta=theta):
                    z = noise.unit(x.shape, generator=stream, dtype=x.dtype).mul_(theta)
                    return z.contiguous(memory_format=memory_format) if x.dim() == 4 else z

                done = (epoch + step * batch_size / len(images)) / epochs
                with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                    try:
                        loss = SCHEMES[scheme](module, x, labels[index], draw, done, **options)
                    except IndexError as error:
                        raise ValueError(f"a label is outside the model's classes: {error}") from None
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item() * len(index)
            if not total < math.inf:
                raise FloatingPointError(f"the loss of epoch {epoch + 1} is {total}: lower lr (now {lr})")
            losses.append(total / len(images))
            if resume is not None:
                state = {name: part.state_dict() for name, part in parts.items()}
                write_state(Path(resume), {**state, "stream": stream.get_state(), "losses": losses})
            progress(epoch + 1, losses[-1])
    finally:
        module.eval()
    return module


def _check_scheme(scheme: str, options: dict) -> None:
    """Raise ValueError for an unknown scheme, an option that its loss does not have, or a value outside its domain."""
    if scheme not in SCHEMES:
        raise ValueError(f"unknown training scheme {scheme!r}: choose one of {sorted(SCHEMES)}")
    parameters = inspect.signature(SCHEMES[scheme]).parameters.values()
    known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    for name, value in options.items():
        if name not in known:
            raise ValueError(f"the scheme {scheme!r} has no option {name!r}: it has {', '.join(known) or 'none'}")
        if isinstance(known[name], str):
            continue
        whole = isinstance(known[name], int)
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not value >= whole:
            domain = "a whole number >= 1" if whole else "a number >= 0 (write 0.001, not 1e-3)"
            raise ValueError(f"option {name} of the scheme {scheme!r} must be {domain}, found {value!r}")
    if options.get("attack", "pgd") not in ATTACKS:
        raise ValueError(f"unknown attack {options['attack']!r}: choose one of {sorted(ATTACKS)}")


def _augmented(x: Tensor, stream: torch.Generator, crop: int, flip: bool) -> Tensor:
    """Images x (B, C, H, W), shifted by up to `crop` pixels and mirrored by chance; with neither, any x."""
    if not (crop or flip):
        return x
    count, _, height, width = x.shape
    if crop:
        moves = torch.randint(0, 2 * crop + 1, (2, count, 1), generator=stream, device=x.device)
        rows = moves[0] + torch.arange(height, device=x.device)
        columns = moves[1] + torch.arange(width, device=x.device)
        image = torch.arange(count, device=x.device)[:, None, None]
        padded = F.pad(x, (crop, crop, crop, crop)).permute(0, 2, 3, 1)
        x = padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if flip:
        mirrored = torch.rand((count, 1, 1, 1), generator=stream, device=x.device) < 0.5
        x = torch.where(mirrored, x.flip(3), x)
    return x


def _restore(path: str | Path, parts: dict, stream: torch.Generator) -> list[float]:
    """Load the state that an earlier, killed training kept; returns the losses of its epochs."""
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        stream.set_state(state["stream"])
        return state["losses"]
    except Exception as error:  # a foreign file can raise nearly anything
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not a state of this training ({reason}): remove it to train anew") from None
