"""How far a region covers a family of perturbations.

The *covered severity* is the largest s such that x(s') lies in the region for all s' <= s: what a
certificate promises about light, colour, blur, ...
"""

import torch
from torch import Tensor

from ancer.bases.basis import PIXELS, Basis
from ancer.perturbations.families import Family


def covered_severity(
    family: Family, x: Tensor, axes: Tensor, norm: int, basis: Basis = PIXELS
) -> Tensor:
    """The largest severity such that no smaller one leaves the region: (..., B), 0 where all do.

    x: (B, C, H, W) in [0, 1]; axes: semi-axes (..., B, C, H, W) along the coordinates of the basis,
    of one or of several regions round each image; norm: 1 or 2. Of a linear family in closed form,
    as regions are convex; of another one on its grid of severities: between two of them nothing is
    claimed.

    Example:
        >>> from ancer.perturbations.families import FAMILIES
        >>> x = torch.full((1, 1, 8, 8), 0.5)
        >>> covered_severity(FAMILIES["darker"], x, torch.full_like(x, 0.5), 2)
        tensor([0.0590], dtype=torch.float64)
    """
    if family.linear:
        last = family.severities[-1]
        whole = _size(family(x, last), x, axes, norm, basis)
        return torch.where(whole < 1, last, last / whole)
    covered = torch.zeros(axes.shape[:-3], dtype=torch.float64, device=x.device)
    inside = torch.ones_like(covered, dtype=torch.bool)
    for severity in family.severities:
        inside &= _size(family(x, severity), x, axes, norm, basis) < 1
        covered = torch.where(inside, severity, covered)
        if not inside.any():
            break
    return covered


def _size(y: Tensor, x: Tensor, axes: Tensor, norm: int, basis: Basis) -> Tensor:
    """||Q(y - x) / axes||_norm: (..., B)."""
    change = basis.to(y.double() - x.double())
    return (change / axes.double()).flatten(-3).norm(p=norm, dim=-1)
