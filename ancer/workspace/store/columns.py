"""The columns of rows: certificates and answers, in full precision."""

from typing import Any

from ancer.certification import Certificate
from ancer.regions.memory import Answer
from ancer.regions.region import Region
from ancer.selection import Best


def arithmetic(lattice: float | None) -> str:
    """How noise and pixels were added, as rows and their provenance say it."""
    if lattice is None:
        return "not floating-point sound"
    return f"lattice {lattice:.17g}"


def row(
    certificate: Certificate, *, method: str, label: int, image: str, seed: int, draws: int
) -> dict[str, Any]:
    """One row: one image, one method (theta in the units of x).

    candidate: whose theta it is; image: digest of the image (`Dataset.digests`); draws: noisy
    copies spent, selection included.
    """
    theta = certificate.theta.double()
    return {
        "method": method,
        "candidate": method,
        "idx": certificate.index,
        "image": image,
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


def best_row(best: Best, *, method: str, label: int, image: str, seed: int) -> dict[str, Any]:
    """One row of `certify_best`: the largest certificate, at the level of all candidates."""
    certified = row(
        best.certificate, method=method, label=label, image=image, seed=seed, draws=best.draws
    )
    return {**certified, "candidate": best.names[0], "alpha": best.alpha}


def answer_row(
    answer: Answer, certificate: Certificate, *, method: str, label: int
) -> dict[str, Any]:
    """One row of answers through a memory: what may be reported, and what happened to it."""
    return {
        "method": method,
        "idx": certificate.index,
        "label": label,
        "prediction": answer.prediction,
        "correct": int(answer.prediction == label),
        **_sizes(answer.region),
        "conflicts": answer.conflicts,
        "event": answer.event,
    }


def _sizes(region: Region | None) -> dict[str, float]:
    if region is None:
        return {
            "radius": 0.0,
            "proxy_radius": 0.0,
            "box_proxy_radius": 0.0,
            "log_volume": float("-inf"),
        }
    return {
        "radius": region.radius,
        "proxy_radius": region.proxy_radius,
        "box_proxy_radius": region.box_proxy_radius,
        "log_volume": region.log_volume,
    }
