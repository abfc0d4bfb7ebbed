"""What a memory answers to a query."""

from dataclasses import dataclass

from ancer.bases.lattice import arithmetic
from ancer.regions.region import Region, described


@dataclass(frozen=True, eq=False)
class Answer:
    """What the memory answers to one query.

    Args:
        prediction: class or ABSTAIN.
        region: queries in it, earlier or later, have this answer; None if empty.
        conflicts: stored regions of another answer that met the certificate's region or held the
            query.
        event: "kept" (the certificate as it came), "limited" (to the memory's largest region),
            "shrunk" (away from the conflicts), "point" (nothing left round the query), "inherited"
            (the query lies in a stored region of another class) or "abstained".
        lattice: as in the certificate; None is not floating-point sound.

    Example:
        >>> c = certify(nn.Identity(), torch.tensor([[0.9, 0.1]]), GaussianNoise(0.25), n=1000)[0]
        >>> Memory().answer(c).event
        'kept'
    """

    prediction: int
    region: Region | None
    conflicts: int
    event: str
    lattice: float | None = None

    @property
    def arithmetic(self) -> str:
        """How noise was added: "lattice <step>", or "not floating-point sound"."""
        return arithmetic(self.lattice)

    def __str__(self) -> str:
        return f"{described(self.prediction, self.region, self.arithmetic)}, {self.event}"
