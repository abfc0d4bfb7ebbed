"""Networks of torchvision and timm by their names there, without weights.

They have no normalisation of their own: what is trained here takes images (B, 3, H, W) in [0, 1] as
they are, and `weights.load_weights` puts a normalisation before weights that others trained.
"""

from collections.abc import Callable, Collection

from torch import nn

from ancer.registry import closest


def torchvision_network(name: str) -> Callable[[int], nn.Module]:
    """What makes a network of `torchvision.models` for a number of classes, from images to logits.

    name: of a classifier, as `torchvision.models.get_model` takes it. In training `googlenet` and
    `inception_v3` return more than logits: they are of use with weights of others alone. Raises
    ValueError for another name.

    Example:
        >>> torchvision_network("resnet18")(10)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    from torchvision import models  # slow to import

    _check(name, models.list_models(module=models), "torchvision")

    def build(classes: int) -> nn.Module:
        return models.get_model(name, weights=None, num_classes=classes)

    return build


def timm_network(name: str) -> Callable[[int], nn.Module]:
    """What makes a network of timm for a number of classes, from images to logits.

    name: one of `timm.list_models()`, without the tag of a set of weights. Nothing is downloaded.
    Raises ValueError for another name, and where timm is not installed.
    """
    try:
        import timm
    except ImportError:
        raise ValueError(
            f"architecture 'timm:{name}' needs timm: pip install 'ancer[timm]'"
        ) from None

    _check(name, timm.list_models(), "timm")

    def build(classes: int) -> nn.Module:
        return timm.create_model(name, pretrained=False, num_classes=classes)

    return build


LIBRARIES = {"torchvision": torchvision_network, "timm": timm_network}


def _check(name: str, known: Collection[str], library: str) -> None:
    if name not in known:
        raise ValueError(f"{library} has no classifier {name!r}: {closest(name, known)}")
