"""Certificates and answers as rows of tables."""

from pathlib import Path
from typing import TYPE_CHECKING

from ancer.best import Best, certify_best
from ancer.certification import Certificate, certify
from ancer.datasets import Dataset
from ancer.models import Classifier
from ancer.noise import Noise
from ancer.store import read_theta

if TYPE_CHECKING:  # answers are only passed through: certifying needs no memory
    from ancer.memory import Answer


def certified_rows(
    classifier: Classifier,
    data: Dataset,
    method: str,
    start: Noise,
    theta_file: Path,
    shares: dict[str, float],
    drawing: dict,
) -> list[dict]:
    """Rows of `method` for the images of `data`.

    start: the noise of training, whose theta is the method "fixed"; theta of the others is in theta_file; "best"
    chooses among those that `shares` names. drawing: n0, n, alpha, seed, exact and lattice of `certify`.
    """
    indices, labels, law = data.index.tolist(), data.labels.tolist(), type(start)
    theta = {"fixed": start.theta.expand(len(indices)), **read_theta(theta_file, indices)}
    if method == "best":
        candidates = {name: law(theta[name]) for name in shares}
        found = certify_best(classifier, data.images, candidates, shares=shares, indices=indices, **drawing)
        return [best_row(b, label=y, seed=drawing["seed"]) for b, y in zip(found, labels, strict=True)]
    found = certify(classifier, data.images, law(theta[method]), indices=indices, **drawing)
    draws = drawing["n0"] + drawing["n"]
    return [
        row(c, method=method, label=y, seed=drawing["seed"], draws=draws) for c, y in zip(found, labels, strict=True)
    ]


def arithmetic(lattice: float | None) -> str:
    """How noise and pixels were added, as rows and their provenance say it."""
    return f"lattice {lattice:.17g}" if lattice else "not floating-point sound"


def row(certificate: Certificate, *, method: str, label: int, seed: int, draws: int) -> dict:
    """One row: one image, one method (full precision; theta in the units of x).

    candidate: whose theta it is; draws: noisy copies spent, selection included.
    """
    theta = certificate.theta.double()
    return {
        "method": method,
        "candidate": method,
        "idx": certificate.index,
        "label": label,
        "prediction": certificate.prediction,
        "correct": int(certificate.prediction == label),
        "p_a_lower": certificate.p_a_lower,
        "count": certificate.count,
        "gap": certificate.gap,
        "radius": certificate.radius,
        "proxy_radius": certificate.proxy_radius,
        "box_proxy_radius": certificate.box_proxy_radius,
        "log_volume": certificate.log_volume,
        "theta_min": theta.min().item(),
        "theta_gmean": theta.log().mean().exp().item(),
        "theta_max": theta.max().item(),
        "n": certificate.n,
        "draws": draws,
        "alpha": certificate.alpha,
        "seed": seed,
        "arithmetic": arithmetic(certificate.lattice),
    }


def best_row(best: Best, *, label: int, seed: int) -> dict:
    """One row of `certify_best`, largest volume: the certificate reported, at the level of all candidates together."""
    certified = row(best.certificate, method="best", label=label, seed=seed, draws=best.draws)
    return {**certified, "candidate": best.names[0], "alpha": best.alpha}


def answer_row(answer: "Answer", certificate: Certificate, *, method: str, label: int) -> dict:
    """One row of answers through a memory: what may be reported, and what happened to the certificate."""
    region = answer.region
    return {
        "method": method,
        "idx": certificate.index,
        "label": label,
        "prediction": answer.prediction,
        "correct": int(answer.prediction == label),
        "radius": region.radius if region else 0.0,
        "proxy_radius": region.proxy_radius if region else 0.0,
        "box_proxy_radius": region.box_proxy_radius if region else 0.0,
        "log_volume": region.log_volume if region else float("-inf"),
        "conflicts": answer.conflicts,
        "event": answer.event,
    }
