"""Denoised smoothing: a denoiser before a model that was never trained under noise.

Salman et al. (NeurIPS 2020) train the denoiser; Carlini et al. (ICLR 2023) take one step of a
diffusion model.
"""

import copy
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from ancer.evaluation.outputs import check_module


class Denoised(nn.Module):
    """A denoiser before a model: what `certify` takes where the model knows no noise.

    The model is copied, frozen and kept in eval mode; `train` trains the denoiser alone, by the
    schemes "denoising" and "denoised_stability".

    Args:
        denoiser: from noisy images (B, ...) to images of the same shape, both in the units of [0,
            1].
        model: from images to logits, with its normalisation inside.

    Guarantee:
        Both together are one classifier f, and its certificates are of the smoothed f, whatever the
        denoiser does (Salman et al. 2020, section 3).

    Raises:
        ValueError: for a ScriptModule, for one without its weights, and where the denoiser returns
            another shape.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        >>> f = Denoised(ResidualDenoiser(channels=1), model)
        >>> f(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 3])
        >>> certify(f, torch.rand(1, 1, 8, 8), GaussianNoise(0.25), n=200, alpha=0.05)[0].n
        200
    """

    def __init__(self, denoiser: nn.Module, model: nn.Module):
        super().__init__()
        check_module(denoiser)
        check_module(model)
        self.denoiser = denoiser
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "Denoised":
        super().train(mode)
        self.model.eval()
        return self

    def denoised(self, x: Tensor) -> Tensor:
        """Images without their noise, of the shape of x (B, ...)."""
        return _of_shape(self.denoiser(x), x)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(self.denoised(x))


class ResidualDenoiser(nn.Module):
    """A small convolutional network that subtracts what it takes for noise, on two scales.

    Images are (B, channels, H, W); H and W are multiples of 2 factor.

    Args:
        channels: of the images.
        factor: side of the blocks of pixels that are one position of the fine scale, so that the
            cost falls with its square.
        width: features there, twice as many on the coarse scale.
        blocks: residual blocks on the coarse scale.

    Raises:
        ValueError: where a number is below 1, or the sides of images do not fit.

    Example:
        >>> ResidualDenoiser(channels=3, factor=2, width=16)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, channels: int = 3, *, factor: int = 1, width: int = 32, blocks: int = 2):
        super().__init__()
        if min(channels, factor, width, blocks) < 1:
            raise ValueError(
                "channels, factor, width and blocks must be >= 1, found "
                f"{channels}, {factor}, {width}, {blocks}"
            )
        self.factor = factor
        positions = channels * factor**2
        self.first = nn.Conv2d(positions, width, 3, padding=1)
        self.fine = _Residual(width)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.coarse = nn.Sequential(*[_Residual(2 * width) for _ in range(blocks)])
        self.up = nn.Conv2d(2 * width, 4 * width, 3, padding=1)
        self.last = nn.Sequential(_Residual(width), nn.Conv2d(width, positions, 3, padding=1))

    def forward(self, x):
        x = _divided(x, 2 * self.factor)
        fine = self.fine(F.relu(self.first(F.pixel_unshuffle(x, self.factor))))
        coarse = self.coarse(F.relu(self.down(fine)))
        noise = self.last(fine + F.pixel_shuffle(self.up(coarse), 2))
        return x - F.pixel_shuffle(noise, self.factor)


class _Residual(nn.Module):
    """Two 3x3 convolutions whose result is added."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(F.relu(self.conv1(x)))


# checks that depend on an image are left to the pass, when torch.fx traces a module (fold=True)
@torch.fx.wrap
def _of_shape(y: Tensor, x: Tensor) -> Tensor:
    if not isinstance(y, Tensor) or y.shape != x.shape:
        found = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"the denoiser must return images of the shape that it gets, {tuple(x.shape)}, found "
            f"{found}"
        )
    return y


@torch.fx.wrap
def _divided(x: Tensor, number: int) -> Tensor:
    height, width = x.shape[-2:]
    if height % number or width % number:
        raise ValueError(
            f"the sides of images must be multiples of {number} (twice factor), found {height} x "
            f"{width}"
        )
    return x


class DiffusionDenoiser(nn.Module):
    """One step of a diffusion model as a denoiser (Carlini et al. 2023, algorithm 1).

    Under noise that is not of one sigma (anisotropic, uniform) it denoises as if it were: a
    certificate holds for any f.

    Args:
        unet: of diffusers, such as `UNet2DModel`: unet(x, t).sample for images x in [-1, 1]; of one
            that returns variances too, the first channels count.
        scheduler: of diffusers, which names what the model predicts and its `alphas_cumprod`.
        sigma: standard deviation of the noise in images in [0, 1], > 0; the step t is the one whose
            noise is nearest, sqrt((1 - a_t) / a_t) = 2 sigma.

    Raises:
        ValueError: for a sigma outside the scheduler's range, or a prediction that is unknown.

    Example:
        >>> from diffusers import DDPMScheduler, UNet2DModel
        >>> blocks = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
        >>> unet = UNet2DModel(32, block_out_channels=[32], **blocks)  # or .from_pretrained(...)
        >>> DiffusionDenoiser(unet, DDPMScheduler(), sigma=0.25)(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 3, 32, 32])
    """

    def __init__(self, unet: nn.Module, scheduler: Any, sigma: float):
        super().__init__()
        check_module(unet)
        kept = torch.as_tensor(scheduler.alphas_cumprod).double()
        noise = ((1 - kept) / kept).sqrt() / 2  # of each step, in images in [0, 1]
        if not noise[0] <= sigma <= noise[-1]:
            raise ValueError(
                f"sigma must lie between {noise[0]:.4f} and {noise[-1]:.4f}, the noise of the "
                f"scheduler's first and last step, found {sigma}"
            )
        self.predicts = scheduler.config.prediction_type
        if self.predicts not in PREDICTIONS:
            raise ValueError(
                f"prediction_type of the scheduler must be one of {', '.join(PREDICTIONS)}, found "
                f"{self.predicts!r}"
            )
        self.unet = unet
        self.step = int((noise - sigma).abs().argmin())
        self.kept = kept[self.step].item()

    def forward(self, x):
        # 1. from [0, 1] to the model's noisy image of that step
        noisy = self.kept**0.5 * (2 * x - 1)

        # 2. what it predicts, and from that the image
        predicted = self.unet(noisy, self.step).sample[:, : x.shape[1]]
        image = PREDICTIONS[self.predicts](noisy, predicted, self.kept)
        return (image.clamp(-1, 1) + 1) / 2


def _from_noise(noisy: Tensor, predicted: Tensor, kept: float) -> Tensor:
    return (noisy - (1 - kept) ** 0.5 * predicted) / kept**0.5


def _from_image(noisy: Tensor, predicted: Tensor, kept: float) -> Tensor:
    return predicted


def _from_velocity(noisy: Tensor, predicted: Tensor, kept: float) -> Tensor:
    return kept**0.5 * noisy - (1 - kept) ** 0.5 * predicted


# the image from a model's noisy image, what it predicts, and the share kept of the image, a_t
PREDICTIONS = {
    "epsilon": _from_noise,
    "sample": _from_image,
    "v_prediction": _from_velocity,
}
