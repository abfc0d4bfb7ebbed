"""Certified regions: ellipsoids (l2) and generalized cross-polytopes (l1), safe in floats.

`intersect`, `largest_out_subset` and `largest_in_subset` are the Intersect, LargestOutSubset and
LargestInSubset that memory-based certification needs (ANCER, Eiras et al., TMLR 2022); `_geometry`
derives them.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ancer.bases.basis import PIXELS, Basis, check_shape
from ancer.bases.blocks import blocks_of
from ancer.regions import _geometry as geometry
from ancer.regions import in_box, in_box_blocks, volume

SHRINKS = ("direction", "uniform")
ABSTAIN = -1  # the answer where there is no region
# how large a region is, by name, and where there is none
SIZES = {"radius": 0.0, "proxy_radius": 0.0, "in_box_proxy_radius": 0.0, "log_volume": -math.inf}


@dataclass(frozen=True, eq=False)
class Region:
    """The open region {y : ||Q(y - center) / axes||_norm < 1}, Q a basis; the pixels by default.

    Args:
        center: any shape, finite. Becomes float64, as axes.
        axes: semi-axes in the units of the center along the coordinates of the basis, broadcastable
            to it; an isotropic region needs one number only, of shape () or (1, ..., 1), and is the
            same in every basis.
        norm: 1 or 2; 1 in pixels only.
        basis: whose coordinates the axes are along.

    Raises:
        ValueError: for axes outside [1e-75, 1e75], a center that is not finite, a wrong shape, norm
            or basis.

    Example:
        >>> region = Region(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 1.0]), 2)
        >>> region.radius, region.proxy_radius, region.contains(torch.tensor([0.5, 1.4])).item()
        (0.25, 0.5, True)
    """

    center: Tensor
    axes: Tensor
    norm: int
    basis: Basis = PIXELS

    def __post_init__(self):
        center = torch.as_tensor(self.center).detach().double()
        axes = torch.as_tensor(self.axes).detach().double()
        if self.norm not in (1, 2):
            raise ValueError(f"norm must be 1 or 2, found {self.norm!r}")
        if self.norm == 1 and not self.basis.is_pixels:
            raise ValueError(f"regions of norm 1 are in pixels, found basis {self.basis.name}")
        check_shape(self.basis, center.shape)
        far = ~(center.abs() <= geometry.LARGEST)
        if center.numel() == 0 or far.any():
            raise ValueError(
                f"center of shape {tuple(center.shape)} must hold finite numbers, "
                f"found {_first(center, far)}"
            )
        if not _broadcasts(axes.shape, center.shape):
            raise ValueError(
                f"axes of shape {tuple(axes.shape)} do not broadcast to the center's shape "
                f"{tuple(center.shape)}: give one number, or one for each coordinate"
            )
        bad = ~((axes >= geometry.SMALLEST) & (axes <= geometry.LARGEST))
        if bad.any():
            raise ValueError(
                f"axes must be positive and finite (1e-75 to 1e75), found {_first(axes, bad)}: "
                "where nothing is certified, the region is None"
            )
        object.__setattr__(self, "center", center)
        object.__setattr__(self, "axes", axes)

    @property
    def n(self) -> int:
        """Number of coordinates."""
        return self.center.numel()

    @property
    def isotropic(self) -> bool:
        """Whether it is a ball, the same in every basis."""
        return self.axes.numel() == 1

    @cached_property
    def coordinates(self) -> Tensor:
        """Of the center, in the basis."""
        return self.basis.to(self.center)

    @property
    def radius(self) -> float:
        """Radius of the largest lp ball inside: the smallest axis."""
        return self.axes.min().item()

    @property
    def proxy_radius(self) -> float:
        """Radius of the lp ball of the same volume: the geometric mean of the axes."""
        return volume.proxy_radius(self.axes)

    @property
    def log_volume(self) -> float:
        """Natural logarithm of the volume, right also where the volume itself underflows."""
        return volume.log_volume(self.axes, self.n, self.norm)

    @property
    def in_box_log_volume(self) -> float:
        """Natural logarithm of the volume inside the image box [0, 1]^n: what holds for images.

        By saddlepoint, for n <= 8 by a seeded estimate (see `regions.in_box`); never above
        `log_volume`. Of an anisotropic region in another basis than pixels it is computed where
        this mixes pixels in blocks of at most 64 (see `regions.in_box_blocks`), and elsewhere NaN:
        nothing is guessed. Raises ValueError where the center lies outside the box.
        """
        if not (self.basis.is_pixels or self.isotropic):
            return self._in_box_by_blocks()
        center = self.center.reshape(1, -1)
        axes = self.flat_axes.expand_as(center)
        return in_box.log_volume_in_box(center, axes, self.norm).item()

    def _in_box_by_blocks(self) -> float:
        found = blocks_of(self.basis)
        if found is None or found[0].shape[1] > in_box_blocks.WIDEST:
            return math.nan
        pixels, coefficients, matrices = found
        center = self.center.reshape(-1)
        in_box.check(center)
        axes = self.flat_axes.expand_as(center)
        return in_box_blocks.log_volume_in_blocks(center[pixels], axes[coefficients], matrices)

    @property
    def in_box_proxy_radius(self) -> float:
        """Radius of the lp ball whose whole volume is what the region has inside the box."""
        return volume.radius_of_volume(self.in_box_log_volume, self.n, self.norm)

    @property
    def flat_axes(self) -> Tensor:
        """The axes as a vector: of one number if there is only one, of n otherwise."""
        if self.axes.numel() == 1:
            return self.axes.reshape(1)
        return self.axes.expand_as(self.center).reshape(-1)

    def contains(self, points: Tensor) -> Tensor:
        """Whether points (*batch, *center.shape) lie in the open region, to float64 rounding.

        (*batch,). Raises ValueError for another shape.
        """
        points = torch.as_tensor(points, device=self.center.device).double()
        batch = points.shape[: points.dim() - self.center.dim()]
        if points.shape != (*batch, *self.center.shape):
            raise ValueError(
                f"points of shape {tuple(points.shape)} must end in the center's shape "
                f"{tuple(self.center.shape)}"
            )
        u = self.basis.to(points - self.center).reshape(*batch, self.n)
        return geometry.scaled_norm(u, self.flat_axes, self.norm) < 1

    def scaled_distance(self, point: Tensor) -> float:
        """||Q(point - center) / axes||_norm: below 1 inside the region."""
        u = self.basis.to(torch.as_tensor(point).double() - self.center).reshape(1, -1)
        return geometry.scaled_norm(u, self.flat_axes, self.norm).item()


def described(prediction: int, region: Region | None, arithmetic: str) -> str:
    """A class and its region in words."""
    if region is None:
        return "abstains" if prediction == ABSTAIN else f"class {prediction} at the image alone"
    return (
        f"class {prediction}, l{region.norm} radius {region.radius:.4g}, proxy radius "
        f"{region.proxy_radius:.4g}, {arithmetic}"
    )


def superset(a: Region, b: Region) -> bool:
    """Whether a contains b.

    Args:
        a, b: of one norm and shape, in one basis; a ball is in each.

    Returns:
        Never True where it does not: rounding only turns it to False.

    Raises:
        ValueError: for regions of two norms, shapes or bases.

    Example:
        >>> small = Region(torch.zeros(2), torch.tensor(0.5), 2)
        >>> superset(Region(torch.zeros(2), torch.tensor(1.0), 2), small)
        True
    """
    u, axes_a, axes_b = _pair(a, b)
    if not u.any():  # concentric: exact
        return bool((axes_a >= axes_b).all())
    return bool(geometry.inside_scale(u[None], axes_a[None], axes_b, a.norm) >= 1)


def intersect(a: Region, b: Region) -> bool:
    """Whether the closed regions meet. Never False where they do: rounding only says True."""
    u, axes_a, axes_b = _pair(a, b)
    d, _ = geometry.distance(u[None], axes_a[None], axes_b, a.norm)
    return bool(d <= 1)


def largest_out_subset(
    region: Region, other: Region, *, shrink: str = "direction"
) -> Region | None:
    """A large subset of region, round its center, that misses other; None if the center is in it.

    shrink: "uniform" keeps the shape (the largest such subset); "direction" gives way only along
    the direction of the conflict, which keeps far more volume, though the smallest axis may be
    less. Raises ValueError for another word.
    """
    if shrink not in SHRINKS:
        raise ValueError(f"shrink must be one of {SHRINKS}, found {shrink!r}")
    u, a, b = _pair(other, region)
    axes = geometry.axes_outside(u, a, b, region.norm, shrink=shrink)
    return region_or_none(region.center, axes, region.norm, common_basis(region, other))


def largest_in_subset(center: Tensor, other: Region, *, keep_shape: bool = False) -> Region | None:
    """The region of largest volume round center that lies in other; None if the center does not.

    keep_shape: instead the copy of other scaled by 1 - rho, with rho the scaled norm of center in
    other (for norm 1 the two are the same).
    """
    u = other.basis.to(other.center - torch.as_tensor(center).double()).reshape(1, -1)
    inside = geometry.scaled_copy_inside if keep_shape else geometry.largest_inside
    axes = inside(u, other.flat_axes[None], other.norm)[0]
    return region_or_none(center, axes, other.norm, other.basis)


def region_or_none(center: Tensor, axes: Tensor, norm: int, basis: Basis = PIXELS) -> Region | None:
    """The region of flat axes (n,) or (1,), or None where an axis is too small for one."""
    if not (axes >= geometry.SMALLEST).all():
        return None
    if len(axes) == 1:
        return Region(center, axes.reshape(()), norm, basis)
    return Region(center, axes.reshape(torch.as_tensor(center).shape), norm, basis)


def _pair(a: Region, b: Region) -> tuple[Tensor, Tensor, Tensor]:
    """Difference of the centers in the basis of both, and axes, flat."""
    if a.norm != b.norm or a.center.shape != b.center.shape:
        raise ValueError(
            f"regions of different spaces: norms {a.norm} and {b.norm}, "
            f"shapes {tuple(a.center.shape)} and {tuple(b.center.shape)}"
        )
    u = common_basis(a, b).to(a.center - b.center)
    return u.reshape(-1), a.flat_axes, b.flat_axes


def common_basis(a: Region, b: Region) -> Basis:
    """The basis of both: that of either where the other is a ball; ValueError where there is none.

    Where both are balls, the pixels.
    """
    bases = {}
    for region in (a, b):
        if not region.isotropic:
            bases[region.basis.key] = region.basis
    if len(bases) > 1:
        raise ValueError(
            f"regions in different bases, {a.basis.name} and {b.basis.name}: they can be compared "
            "in one only"
        )
    return next(iter(bases.values()), PIXELS)


def size(region: Region | None, name: str) -> float:
    """A size of a region, by its name in SIZES; that of nothing where there is none."""
    return SIZES[name] if region is None else getattr(region, name)


def sizes(region: Region | None) -> dict[str, float]:
    """All sizes of a region, by name."""
    return {name: size(region, name) for name in SIZES}


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    if len(shape) > len(to):
        return False
    return all(s in (1, t) for s, t in zip(reversed(shape), reversed(to), strict=False))


def _first(values: Tensor, where: Tensor) -> str:
    found = values[where]
    return str(found[0].item()) if found.numel() else "nothing"
