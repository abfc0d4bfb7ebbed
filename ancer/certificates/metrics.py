"""Certified accuracy and mean radii, batch after batch, in the manner of torchmetrics."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

from ancer.certificates.certificate import Certificate
from ancer.certificates.many import Labels, checked_labels


class _Mean(ABC):
    """The mean over images of a number of each: `update` with batches, then `compute`."""

    def __init__(self):
        self.reset()

    @abstractmethod
    def _of(self, certificate: Certificate, label: int) -> float:
        """The number of one image."""

    def update(self, certificates: Iterable[Certificate], labels: Labels) -> None:
        """Take in certificates and their true classes; ValueError for labels that are not these."""
        found = list(certificates)
        for certificate, label in zip(found, checked_labels(labels, len(found)), strict=True):
            self._total += self._of(certificate, int(label))
            self._count += 1

    def compute(self) -> float:
        """The mean so far; ValueError before any image."""
        if self._count == 0:
            raise ValueError("no certificates yet: update(certificates, labels) comes first")
        return self._total / self._count

    def reset(self) -> None:
        """Forget all."""
        self._total = 0.0
        self._count = 0


class CertifiedAccuracy(_Mean):
    """The share of images whose class is right and certified up to a radius.

    Args:
        radius: in the units of the image.
        by: which radius, "radius" or "proxy_radius".

    Example:
        >>> metric = CertifiedAccuracy(0.1)
        >>> x = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
        >>> metric.update(certify(nn.Identity(), x, GaussianNoise(0.25), n=1000), [0, 1])
        >>> metric.compute()
        1.0
    """

    def __init__(self, radius: float = 0.0, *, by: str = "radius"):
        super().__init__()
        if not radius >= 0:
            raise ValueError(f"radius must be >= 0, found {radius!r}")
        self.radius = radius
        self.by = _checked(by)

    def _of(self, certificate, label):
        reached = getattr(certificate, self.by) >= self.radius
        return float(certificate.prediction == label and reached)


class AverageCertifiedRadius(_Mean):
    """ACR: the mean of the radius where the class is right, 0 elsewhere (units of the image).

    Args:
        by: which radius, "radius" or "proxy_radius" (AC-proxy-R).

    Example:
        >>> metric = AverageCertifiedRadius()
        >>> x = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
        >>> metric.update(certify(nn.Identity(), x, GaussianNoise(0.25), n=1000), [0, 0])
        >>> 0.2 < metric.compute() < 0.4
        True
    """

    def __init__(self, *, by: str = "radius"):
        super().__init__()
        self.by = _checked(by)

    def _of(self, certificate, label):
        return getattr(certificate, self.by) if certificate.prediction == label else 0.0


def _checked(by: str) -> str:
    if by not in ("radius", "proxy_radius"):
        raise ValueError(f"by must be 'radius' or 'proxy_radius', found {by!r}")
    return by
