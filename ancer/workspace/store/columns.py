"""The columns of rows: certificates and answers, in full precision."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ancer.bases.basis import PIXELS
from ancer.certificate import Certificate
from ancer.confidence import anytime_lower, clopper_pearson
from ancer.noise import Noise, gap_of
from ancer.regions.answer import Answer
from ancer.regions.region import ABSTAIN, Region
from ancer.selection import Best


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
        "in_box_proxy_radius": certificate.in_box_proxy_radius,
        "log_volume": certificate.log_volume,
        "theta_min": theta.min().item(),
        "theta_gmean": theta.log().mean().exp().item(),
        "theta_max": theta.max().item(),
        "theta_rms": theta.square().mean().sqrt().item(),
        "n": certificate.n,
        "draws": draws,
        "alpha": certificate.alpha,
        "seed": seed,
        "basis": certificate.basis.name,
        "arithmetic": certificate.arithmetic,
    }


def best_row(best: Best, *, method: str, label: int, image: str, seed: int) -> dict[str, Any]:
    """One row of `certify_best`: the largest certificate, at the level of all candidates."""
    certified = row(
        best.certificate, method=method, label=label, image=image, seed=seed, draws=best.draws
    )
    return {**certified, "candidate": best.names[0], "alpha": best.alpha}


def check_numbers(
    rows: pd.DataFrame, law: type[Noise], provenance: Mapping[str, Any], path: Path
) -> None:
    """Raise ValueError unless bounds, gaps and radii are those of the votes.

    provenance: n, alpha, and best_of, the shares of alpha of each method that is the best of
    others. With stop, where an earlier bound may stand, they are compared with the last one alone.
    The best of several that were all given up claims nothing, of fewer votes.
    """
    planned = provenance["n"]
    n = rows["n"].to_numpy()
    alpha = provenance["alpha"]
    early = provenance.get("stop") is not None
    certified = rows["prediction"].to_numpy() != ABSTAIN
    lower = rows["p_a_lower"].to_numpy()
    of_several = rows["method"].isin(provenance["best_of"]).to_numpy()
    given_up = of_several & ~certified & (lower == 0) & (n < planned)
    share = np.ones(len(rows))
    for k, line in enumerate(rows.itertuples()):
        shares = provenance["best_of"].get(line.method, {})
        share[k] = shares.get(line.candidate, 1.0)
    # 1. the bound, of which noise on a lattice takes a little, and rounding to a basis's more
    rotated = (rows["basis"] != PIXELS.name).to_numpy()
    less = np.where(rotated, 1e-2, 1e-5)
    count = rows["count"].to_numpy()
    drawn = (n > 0) & (n <= planned) if early else (n == planned) | given_up
    right = drawn & (rows["alpha"] == alpha).to_numpy() & (0 <= count) & (count <= n)
    if early:
        bound = anytime_lower(count.clip(0, n), n, alpha / 2)
        right &= (lower <= 1) & ((lower >= bound - less) | (lower == 0))
    else:
        bound = clopper_pearson(count.clip(0, planned), planned, alpha * share)
        right &= given_up | ((lower <= bound + 1e-9) & (lower >= bound - less))
    # 2. the gap, 0 where it abstains
    gap = np.where(certified, gap_of(law(1.0), lower), 0.0)
    right &= np.isclose(rows["gap"], gap, rtol=1e-9, atol=0)
    # 3. the sizes, of gap and theta
    right &= np.isclose(rows["radius"], gap * rows["theta_min"], rtol=1e-9, atol=0)
    right &= np.isclose(rows["proxy_radius"], gap * rows["theta_gmean"], rtol=1e-9, atol=0)
    in_box = rows["in_box_proxy_radius"]  # not computed in another basis
    right &= ((in_box <= rows["proxy_radius"] * (1 + 1e-9)) | (rotated & in_box.isna())).to_numpy()
    _refuse_first(rows, right, path, "has gap or radii that its votes do not give")


def check_images(rows: pd.DataFrame, digests: Mapping[int, str], path: Path) -> None:
    """Raise ValueError for a row of an image that is now another one; digests: of the images."""
    now = rows["idx"].map(digests)
    right = (now.isna() | (now == rows["image"])).to_numpy()
    _refuse_first(rows, right, path, "was made for another image of that number")


def _refuse_first(rows: pd.DataFrame, right: np.ndarray, path: Path, problem: str) -> None:
    for k in np.flatnonzero(~right):
        raise ValueError(
            f"line {k + 2} of {path} (method {rows['method'][k]}, image {rows['idx'][k]}) "
            f"{problem}: run the certify notebook (dvc repro) again"
        )


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
        "arithmetic": answer.arithmetic,
    }


def _sizes(region: Region | None) -> dict[str, float]:
    if region is None:
        return {
            "radius": 0.0,
            "proxy_radius": 0.0,
            "in_box_proxy_radius": 0.0,
            "log_volume": float("-inf"),
        }
    return {
        "radius": region.radius,
        "proxy_radius": region.proxy_radius,
        "in_box_proxy_radius": region.in_box_proxy_radius,
        "log_volume": region.log_volume,
    }
