"""The stored regions as one query sees them: which hold it, and which meet a region round it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancer.regions._geometry import (
    ENOUGH,
    U,
    bound,
    distance,
    gamma,
    largest_inside,
    scaled_norm,
)
from ancer.regions._record_file import RecordFile
from ancer.regions.region import ABSTAIN

Stored = tuple[RecordFile, int]  # one region: its file and its row there


class Lookup:
    """Stored regions against a query at x whose own region has class c and axes b, flat.

    tau: relative margin of 'x lies in R', beyond the norm's rounding, so that no true 'yes' is
    missed. inflation: regions keep clear of others inflated beyond that margin, so that x lies in
    regions of one class only.
    """

    def __init__(self, files: Sequence[RecordFile], x: Tensor, p: int, c: int, b: Tensor):
        self.files = files
        self.x = x
        self.p = p
        self.c = c
        self.b = b
        self.tau = 1e-12 + 2 * gamma(len(x) + 16)
        self.inflation = 1 + 4 * self.tau
        self.bounds = list(map(self._bounds, files))

    def inflated(self, file: RecordFile, rows: Any) -> tuple[Tensor, Tensor]:
        """Centers less x and inflated axes of some regions."""
        u, a = file.load(rows, self.x)
        return u, a.mul_(self.inflation)

    def _bounds(self, file: RecordFile) -> Tensor:
        """Lower bounds on the distances of x to the inflated regions, in multiples of b."""
        # the balls round both regions tell distant ones apart
        to_center = file.distances(self.x, self.p) * (1 - gamma(len(self.x) + 16))
        to_ball = to_center - file.largest * self.inflation
        d = (to_ball / self.b.amax() * (1 - 4 * U)).clamp_min(0)
        # one pass over the dual tells most others apart: those that may hold x, and those of
        # another answer that may meet the region
        near = (d < ENOUGH) & (file.predictions != self.c)
        for rows in file.chunks(near.logical_or(d == 0)):
            closer = bound(*self.inflated(file, rows), self.b, self.p)
            d[rows] = torch.maximum(d[rows], closer)
        return d

    def holders(self) -> tuple[int, list[Stored]]:
        """The class of the stored regions that hold x, and these; a point that is x decides.

        Raises RuntimeError where they are of several classes.
        """
        points: list[Stored] = []
        regions: list[Stored] = []
        for file, d in zip(self.files, self.bounds, strict=True):
            for rows in file.chunks(d == 0):
                u, a = file.load(rows, self.x)
                is_point = a.amax(-1) == 0
                is_x = (u == 0).all(-1)
                inside = scaled_norm(u, a, self.p) <= 1 + self.tau
                points += _stored(file, rows, is_point & is_x)
                regions += _stored(file, rows, ~is_point & inside)
        classes = {int(file.predictions[row]) for file, row in points or regions}
        if len(classes) > 1:
            raise RuntimeError(
                f"stored regions of classes {sorted(classes)} overlap: the memory is damaged"
            )
        held = classes.pop() if classes else ABSTAIN
        holders = []
        for file, row in [*points, *regions]:
            if file.predictions[row] == held:
                holders.append((file, row))
        return held, holders

    def conflicts(self) -> list[Stored]:
        """The stored regions of other answers that meet the query's, the nearest first."""
        found: list[Stored] = []
        distances: list[float] = []
        for file, lower in zip(self.files, self.bounds, strict=True):
            for rows in file.chunks((lower < ENOUGH) & (file.predictions != self.c)):
                d, _ = distance(*self.inflated(file, rows), self.b, self.p)
                meets = d < ENOUGH
                found += _stored(file, rows, meets)
                distances += d[meets].tolist()
        return [found[k] for k in np.argsort(distances, kind="stable")]

    def largest_inside(self, holders: list[Stored]) -> Tensor | None:
        """Axes of the largest region round x inside one of those that hold it; None: all are x."""
        best = None
        for file, row in holders:
            if file.largest[row] > 0:
                u, a = file.load([row], self.x)
                axes = largest_inside(u, a, self.p)[0]
                if best is None or axes.log().mean() > best.log().mean():
                    best = axes
        return best


def _stored(file: RecordFile, rows: Any, where: Tensor) -> list[Stored]:
    return [(file, int(rows[i])) for i in where.nonzero()[:, 0]]
