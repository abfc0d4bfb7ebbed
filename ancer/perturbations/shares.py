"""Where in a basis perturbations lie: what regions are shaped to."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ancer.bases.basis import Basis
from ancer.registry import find

Perturbation = Callable[[Tensor], Tensor]
Toward = Mapping[str, float] | Sequence[Perturbation]


def perturbations_of(toward: Toward) -> list[Perturbation]:
    """Functions of images (B, ...), each to as many of them, perturbed.

    toward: families by name ("package.module:function" of one's own: images, severity -> images)
    and the severity of each, > 0; or the functions themselves. Raises ValueError for an unknown
    family or another severity.

    Example:
        >>> (brighter,) = perturbations_of({"brighter": 0.25})
        >>> brighter(torch.full((1, 1, 2, 2), 0.5)).unique()
        tensor([0.7500])
    """
    if not isinstance(toward, Mapping):
        return list(toward)
    from ancer.perturbations.families import FAMILIES  # loads torchvision, a second

    return [_at(find(name, FAMILIES, "family"), name, toward[name]) for name in toward]


def _at(family: Callable[[Tensor, float], Tensor], name: str, severity: float) -> Perturbation:
    if not severity > 0:
        raise ValueError(f"the severity of {name} must be > 0, found {severity}")
    return lambda images: family(images, severity)


def energy_shares(basis: Basis, x: Tensor, perturbations: Sequence[Perturbation]) -> Tensor:
    """The share of each coordinate in the energy of x' - x: like x (B, ...), its sum 1 an image.

    Averaged over the perturbations that change the image at all; 0 everywhere where none does.
    """
    total = torch.zeros_like(x, dtype=torch.float64)
    changing = x.new_zeros(len(x), dtype=torch.float64)
    for perturb in perturbations:
        change = perturb(x).double() - x.double()
        energy = basis.to(change).square()
        size = energy.flatten(1).sum(dim=1)
        moved = size > 0
        shares = energy[moved].flatten(1) / size[moved, None]
        total[moved] += shares.reshape(energy[moved].shape)
        changing += moved
    return total / changing.clamp(min=1).reshape(-1, *[1] * (x.dim() - 1))
