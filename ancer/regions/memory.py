"""The memory that keeps a data-dependent smoothed classifier sound."""

import math
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ancer.bases.basis import PIXELS, Basis, check_basis, check_shape
from ancer.bases.lattice import arithmetic, step_in
from ancer.regions._geometry import axes_outside
from ancer.regions._lookup import Lookup, Stored
from ancer.regions._records import Records, salvage
from ancer.regions.answer import Answer
from ancer.regions.region import ABSTAIN, SHRINKS, Region, region_or_none

if TYPE_CHECKING:  # certificates are only read
    from ancer.certificates.certificate import Certificate


class Memory:
    """Answers queries such that no answer contradicts another (memory-based certification, ANCER).

    A certificate speaks for the classifier smoothed with the theta of *its* image. Where theta
    depends on the image, every query has a classifier of its own, and regions certified for
    different classes may overlap. The memory stores the region of each answer, and later queries
    give way to it:

    1. A query inside a stored region of another class inherits that class and the largest region
       inside.
    2. Any other query keeps its class; its region shrinks until it misses all regions of other
       answers.
    3. An abstention outside all regions is stored as a single point (strict) or not at all.

    Regions are stored in the dtype of the first center, float32 or float64 (in another basis than
    pixels always float64), with axes rounded down and reported so: at n = 150,528 and float32,
    10,000 take 6.0 GB if isotropic, 12.0 GB if anisotropic. A memory serves one classifier:
    certificates of another `evaluation` than the first one's are refused.

    Args:
        norm: 1 or 2; by default the first certificate's.
        basis: in which regions are compared, one for all; certificates of isotropic noise enter
            any, others of another basis are refused.
        strict: see 3.
        shrink: "direction" keeps far more volume, "uniform" the region's shape.
        largest: the proxy radius that no region exceeds, None for no end: a larger one is scaled
            down to it, and leaves room to the images that come later.
        limit: the bytes that regions may take; beyond it, MemoryError is raised and nothing
            answered.
        path: folder that keeps the memory from run to run, open in one process at a time; each
            answer is on disk before it is given, so that a kill loses none. Its certificates must
            name their `evaluation`. Records are compared with their checksums when it is opened; an
            older copy of the whole is not noticed. None: a temporary file, memory-mapped likewise.

    Guarantee:
        Stored regions of different answers are disjoint. Therefore, if a query lies in a region
        that this memory reports for class c, before or after, the answer to it is c (with
        strict=False, an *earlier* query may have been answered ABSTAIN). This is deterministic and
        owes nothing to alpha. Separately, each region that is not inherited lies, with probability
        at least 1 - alpha, where the classifier smoothed with its own theta returns its class.

        What this does not say. *Order matters*: whoever comes first keeps the whole region; in
        another order the same queries get other regions, and some get other classes. *The first
        query can poison*: if its class is wrong, by chance or by an adversary's choice, later
        queries in its region inherit it, however clear their own certificates are. Looking up
        enforces consistency; statistics only justify the size of the regions. *Nothing holds
        between two memories*: two machines, or one that lost its memory, may contradict each other.
        All queries that are answered, plain predictions too, must pass through the one memory, with
        their theta fixed before the noise of their certification was drawn.

    Raises:
        ValueError: for a folder that is damaged (see `salvage`), or of another norm or strictness.
        RuntimeError: where it is in use.

    Example:
        >>> x = torch.tensor([[0.6, 0.4], [0.4, 0.6]])
        >>> found = certify(nn.Identity(), x, GaussianNoise(0.25), n=1000)
        >>> [answer.prediction for answer in map(Memory().answer, found)]
        [0, 1]
    """

    def __init__(
        self,
        *,
        norm: int | None = None,
        basis: Basis = PIXELS,
        strict: bool = True,
        shrink: str = "direction",
        largest: float | None = None,
        limit: int = 2**34,
        path: str | os.PathLike | None = None,
    ):
        if norm not in (None, 1, 2):
            raise ValueError(f"norm must be 1, 2 or None, found {norm!r}")
        check_basis(basis)
        if shrink not in SHRINKS:
            raise ValueError(f"shrink must be one of {SHRINKS}, found {shrink!r}")
        if largest is not None and not 0 < largest < math.inf:
            raise ValueError(f"largest must be a proxy radius > 0 or None, found {largest!r}")
        if not limit > 0:
            raise ValueError(f"limit must be a number of bytes > 0, found {limit!r}")
        self.shrink = shrink
        self.largest = largest
        folder = None if path is None else Path(path)
        self.basis = basis
        owner = {"strict": strict, "norm": norm, "basis": basis.key}
        self._records = Records(owner, path=folder, limit=limit)
        # of the first certificate that names one
        self._evaluation: dict[str, Any] | None = self._records.owner.get("evaluation")
        self._lock = threading.Lock()
        self._process = os.getpid()

    @staticmethod
    def salvage(path: str | os.PathLike, to: str | os.PathLike) -> tuple[int, int]:
        """Keep what is undamaged of a memory's folder in a new one: regions kept, and lost.

        The promise no longer holds for the answers whose regions are lost. Raises ValueError where
        nothing can be told apart.
        """
        return salvage(Path(path), Path(to))

    def answer(self, certificate: "Certificate") -> Answer:
        """The sound answer to the query that the certificate is of; queries wait for one another.

        Raises TypeError for what is no certificate, ValueError for one of another norm, basis,
        shape or evaluation of the classifier, or whose center the memory cannot hold, RuntimeError
        in another process than the one that opened the memory.
        """
        if not hasattr(certificate, "region"):
            kind = type(certificate).__name__
            raise TypeError(f"a memory answers to a certificate, of `certify`, found {kind}")
        if os.getpid() != self._process:
            raise RuntimeError(
                "this memory was opened by another process (before a fork): two that answer apart "
                "would contradict each other"
            )
        with self._lock:
            x = self._query(certificate)
            p = certificate.norm
            c = int(certificate.prediction)
            region = certificate.region
            fits = self._fits(region)
            b = x.new_ones(1) if region is None else region.flat_axes.cpu() * fits
            center = certificate.center.cpu()
            lattice = certificate.lattice
            lookup = Lookup(self._records.files, x, p, c, b)

            # 1. the stored regions that hold x, all of one class
            held, holders = lookup.holders()
            if holders and held != c:
                met = 0 if c == ABSTAIN else len(holders)
                if held == ABSTAIN:
                    return Answer(ABSTAIN, None, met, "abstained", lattice)
                # 2. inherit the class; what lies in a stored region need not be stored
                axes = lookup.largest_inside(holders)
                region = self._region(center, axes, p)
                return Answer(held, region, met, "inherited", lattice)

            # 3. an abstention outside all regions is a point
            if region is None:
                if self._records.owner["strict"] and not holders:
                    self._records.append(ABSTAIN, x.new_zeros(1), x)
                return Answer(ABSTAIN, None, 0, "abstained", lattice)

            # 4. shrink away from the regions of other answers, the nearest first
            conflicts = lookup.conflicts()
            for file, row in conflicts:
                u, a = lookup.inflated(file, [row])
                b = axes_outside(u[0], a[0], b, p, shrink=self.shrink)
                if not b.all():
                    break
            b = self._records.append(c, b, x)
            region = self._region(center, b, p)
            event = _event(region, conflicts, limited=fits < 1)
            return Answer(c, region, len(conflicts), event, lattice)

    def __len__(self) -> int:
        """Number of stored regions and points."""
        return len(self._records)

    @property
    def nbytes(self) -> int:
        """Bytes that they take."""
        return self._records.nbytes

    def close(self) -> None:
        """Release the folder, or delete the temporary files; the end of `with Memory(...)`."""
        self._records.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _fits(self, region: Region | None) -> float:
        """The share of a region's axes that is no larger than `largest`."""
        if region is None or self.largest is None:
            return 1.0
        return min(1.0, self.largest / region.proxy_radius)

    def _region(self, center: Tensor, axes: Tensor | None, p: int) -> Region | None:
        """The region of flat axes round an image; None where there are none."""
        if axes is None:
            return None
        return region_or_none(center, axes, p, self.basis)

    def _query(self, certificate: "Certificate") -> Tensor:
        """The center's coordinates, flat; the first one settles norm, shape and number format."""
        owner = self._records.owner
        center = certificate.center.detach().cpu()
        norm = certificate.norm
        if not self._records.close.alive:
            raise ValueError("this memory is closed")
        if owner["norm"] not in (None, norm):
            raise ValueError(
                f"this memory is for norm {owner['norm']}, found a certificate for {norm}"
            )
        self._check_basis(certificate.region, center)
        if (certificate.prediction == ABSTAIN) != (certificate.region is None):
            raise ValueError(
                f"a certificate abstains or has a region, found class {certificate.prediction}"
            )
        self._check_evaluation(certificate)
        if not torch.isfinite(center).all():
            raise ValueError("the certificate's center has values that are not finite")
        if not self._records.files:
            self._start(certificate)
        owner = self._records.owner
        if step_in(self.basis, certificate.lattice) != owner["lattice"]:
            raise ValueError(
                f"this memory holds regions of noise that is {arithmetic(owner['lattice'])}, found "
                f"a certificate of noise that is {certificate.arithmetic}: certify all alike"
            )
        if list(center.shape) != owner["shape"]:
            raise ValueError(f"this memory is for shape {owner['shape']}, not {list(center.shape)}")
        x = self.basis.to(center.double()).reshape(-1)
        if owner["number"] == "<f4" and not torch.equal(x.float().double(), x):
            raise ValueError(
                "the memory holds float32 centers, as the first was: this one is not float32"
            )
        return x

    def _check_basis(self, region: Region | None, center: Tensor) -> None:
        """Raise ValueError for a region that is not one in the memory's basis."""
        check_shape(self.basis, center.shape)
        if region is None or region.isotropic:
            return
        if region.basis != self.basis:
            raise ValueError(
                f"this memory compares regions in basis {self.basis.name}, found a certificate in "
                f"{region.basis.name}: use Memory(basis=...), one for each basis"
            )

    def _check_evaluation(self, certificate: "Certificate") -> None:
        """Raise ValueError for a certificate of another classifier than the first one's."""
        if certificate.evaluation is None:
            if self._records.path is not None:
                raise ValueError(
                    "a memory with a path serves one classifier: this certificate does not name "
                    "its evaluation"
                )
            return
        found = asdict(certificate.evaluation)
        if self._evaluation is None:
            self._evaluation = found
        if found != self._evaluation:
            raise ValueError(
                f"this memory answers for one classifier, evaluated as {self._evaluation}: "
                f"found a certificate of {found}"
            )

    def _start(self, certificate: "Certificate") -> None:
        center = certificate.center
        if center.numel() > 1_000_000:
            raise ValueError(
                f"a memory holds up to 1,000,000 coordinates, found {center.numel()}: beyond, "
                "rounding may exceed its margins"
            )
        exact = center.dtype == torch.float64 or not self.basis.is_pixels
        number = "<f8" if exact else "<f4"
        self._records.start(
            norm=certificate.norm,
            shape=list(center.shape),
            number=number,
            lattice=step_in(self.basis, certificate.lattice),
            evaluation=self._evaluation,
        )


def _event(region: Region | None, conflicts: list[Stored], *, limited: bool) -> str:
    if region is None:
        return "point"
    if conflicts:
        return "shrunk"
    return "limited" if limited else "kept"
