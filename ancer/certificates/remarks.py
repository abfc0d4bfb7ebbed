"""Where certificates mean less than their radii seem to say, in words."""

import numpy as np
import torch

from ancer.certificates.certificate import Certificate
from ancer.certificates.many import Certificates
from ancer.regions.region import ABSTAIN

FEW = 5  # images of which nothing is said in general


def remarks(certificates: Certificates) -> list[str]:
    """What a reader should be told of certificates, a sentence each; often nothing.

    That most abstain, or all say one class, of at least five images; that regions hold every image
    of [0, 1]^n, as those of a model that does not look at its input.
    """
    found = []
    count = len(certificates)
    classes = [c.prediction for c in certificates if c.prediction != ABSTAIN]
    if count >= FEW and len(classes) < count / 2:
        share = np.mean([c.count / c.n for c in certificates])
        found.append(
            f"{count - len(classes)} of {count} images abstain, their class has {share:.0%} of the "
            "votes on average: was the model trained under this noise?"
        )
    if count >= FEW and len(classes) == count and len(set(classes)) == 1:
        found.append(
            f"all {count} images are certified as class {classes[0]}: radii say nothing of a model "
            "that answers so whatever it sees"
        )
    whole = sum(map(_holds_every_image, certificates))
    if whole:
        found.append(
            f"{whole} of {count} regions hold every image of [0, 1]^n: their radii are of a model "
            "that does not tell images apart there"
        )
    return found


def _holds_every_image(certificate: Certificate) -> bool:
    """Whether the region holds the corner of [0, 1]^n that is farthest from the image."""
    region = certificate.region
    if region is None or not region.basis.is_pixels:
        return False
    farthest = torch.where(region.center < 0.5, 1.0, 0.0).to(region.center)
    return region.scaled_distance(farthest) < 1
