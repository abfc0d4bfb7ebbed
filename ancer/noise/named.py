"""The noise laws that params.yaml, `evaluate` and the command line name."""

from ancer.noise.law import Noise
from ancer.noise.sampled import LAWS
from ancer.noise.splitting import SplittingNoise
from ancer.registry import find

NOISES: dict[str, type[Noise]] = {**LAWS, "splitting": SplittingNoise}


def noise_named(name: str, sigma: float, lattice: float | None) -> Noise:
    """The noise of a name at sigma; lattice: of the images, on which random splits depend.

    Raises ValueError for an unknown name, sigma <= 0, and splits of images without a lattice.

    Example:
        >>> noise_named("uniform", 0.5, None).sigma
        tensor(0.5000)
    """
    law = find(name, NOISES, "noise")
    if issubclass(law, SplittingNoise):
        return law.from_sigma(sigma, lattice=lattice)
    return law.from_sigma(sigma)
