"""The columns of rows: certificates and answers, in full precision."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ancer.bases.basis import PIXELS
from ancer.bases.lattice import STEP, rounding_cost
from ancer.certificates.certificate import Certificate
from ancer.certification import plan_of
from ancer.confidence.looks import exact_bounds
from ancer.noise.law import Noise, gap_of
from ancer.regions.answer import Answer
from ancer.regions.region import ABSTAIN, sizes
from ancer.selection import Best

LARGEST = 3 * 224 * 224  # coordinates of an image, of which rows are checked


def row(
    certificate: Certificate,
    *,
    method: str,
    label: int,
    image: str,
    seed: int,
    draws: int,
    classes: str,
) -> dict[str, Any]:
    """One row: one image, one method (theta in the units of x).

    candidate: whose theta it is; image: digest of the image (`Dataset.digests`); votes: of all
    classes that have any, "3:9811 5:150"; classes: whose probabilities are bounded, one or two;
    draws: noisy copies spent, selection included.
    """
    return {
        "method": method,
        "candidate": method,
        "idx": certificate.index,
        "image": image,
        "label": label,
        "prediction": certificate.prediction,
        "correct": int(certificate.prediction == label),
        "classes": classes,
        **certificate.numbers,
        "draws": draws,
        "alpha": certificate.alpha,
        "seed": seed,
        "basis": certificate.basis.name,
        "arithmetic": certificate.arithmetic,
    }


def best_row(best: Best, **about: Any) -> dict[str, Any]:
    """One row of `certify_best`: the largest certificate, at the level of all candidates.

    about: as of `row`, but draws.
    """
    certified = row(best.certificate, draws=best.draws, **about)
    return {**certified, "candidate": best.names[0], "alpha": best.alpha}


def votes_of(text: str) -> dict[int, int]:
    """The votes by class of a row's text.

    Example:
        >>> votes_of("3:9811 5:150")
        {3: 9811, 5: 150}
    """
    votes = {}
    for part in text.split():
        label, count = part.split(":")
        votes[int(label)] = int(count)
    return votes


def check_numbers(
    rows: pd.DataFrame, law: type[Noise], provenance: Mapping[str, Any], path: Path
) -> None:
    """Raise ValueError unless bounds, gaps and radii are those of the votes.

    provenance: n, alpha, and best_of, the shares of alpha of each method that is the best of
    others. With stop, where an earlier bound may stand, they are compared with the last one alone.
    The best of several that were all given up claims nothing, of fewer votes.
    """
    # 1. the votes, and their bounds
    right = np.zeros(len(rows), dtype=bool)
    for k, line in enumerate(rows.itertuples()):
        votes = votes_of(line.votes)
        total = sum(votes.values())
        count = votes.pop(line.chosen, 0)
        rival = max(votes.values(), default=0)
        right[k] = (total, count, rival) == (line.n, line.count, line.rival)
    if law.deterministic:
        right &= _bounds_are_counted(rows)
    else:
        right &= _bounds_are_of_votes(rows, provenance)
    # 2. the gap, 0 where it abstains; rounding to the lattice of a basis takes a little
    certified = rows["prediction"].to_numpy() != ABSTAIN
    lower = rows["p_a_lower"].to_numpy()
    of_bounds = gap_of(law(1.0), lower, rows["p_b_upper"].to_numpy())
    gap = rows["gap"].to_numpy()
    rotated = (rows["basis"] != PIXELS.name).to_numpy()
    rounding = 1.001 * rounding_cost(STEP, LARGEST, rows["theta_min"].to_numpy())
    less = np.where(rotated, rounding, 1e-9 * np.abs(of_bounds))
    near = (gap <= of_bounds * (1 + 1e-9)) & (gap >= of_bounds - less)
    right &= np.where(certified, near & (gap > 0), gap == 0)
    # 3. the sizes, of gap and theta
    right &= np.isclose(rows["radius"], gap * rows["theta_min"], rtol=1e-9, atol=0)
    right &= np.isclose(rows["proxy_radius"], gap * rows["theta_gmean"], rtol=1e-9, atol=0)
    in_box = rows["in_box_proxy_radius"]
    smaller = in_box <= rows["proxy_radius"] * (1 + 1e-9)
    not_computed = rotated & in_box.isna()  # in another basis
    right &= (smaller | not_computed).to_numpy()
    _refuse_first(rows, right, path, "has gap or radii that its votes do not give")


def _bounds_are_of_votes(rows: pd.DataFrame, provenance: Mapping[str, Any]) -> np.ndarray:
    """Whether draws, alpha and bounds of each row are those of its votes, at its share of alpha."""
    planned = provenance["n"]
    n = rows["n"].to_numpy()
    alpha = provenance["alpha"]
    early = provenance.get("stop") is not None
    plan = plan_of(planned, early, provenance["looks"])
    lower = rows["p_a_lower"].to_numpy()
    upper = rows["p_b_upper"].to_numpy()
    abstained = (rows["prediction"] == ABSTAIN).to_numpy()
    of_several = rows["method"].isin(provenance["best_of"]).to_numpy()
    given_up = of_several & abstained & (lower == 0) & (n < planned)
    share = np.ones(len(rows))
    for k, (method, candidate) in enumerate(zip(rows["method"], rows["candidate"], strict=True)):
        share[k] = provenance["best_of"].get(method, {}).get(candidate, 1.0)
    # noise on a lattice takes 2^-51 theta / step for each coordinate: at most of LARGEST, at steps
    # of 2^-16
    slack = 1e-5 + 5e-6 * rows["theta_rms"].to_numpy()
    drawn = (n == planned) | given_up
    if early:
        drawn = (n > 0) & (n <= planned)
    right = drawn & (rows["alpha"] == alpha).to_numpy()
    for classes, at in rows.groupby("classes").indices.items():
        ended = np.where(drawn[at], n[at], planned).clip(1)
        count = rows["count"].to_numpy()[at].clip(0, ended)
        rival = rows["rival"].to_numpy()[at].clip(0, ended)
        least, most = plan.bounds(count, rival, ended, alpha * share[at], str(classes))
        most = np.minimum(most, 1 - lower[at])
        near = lower[at] >= least - slack[at]
        near &= upper[at] <= most + slack[at]
        if not early:  # an earlier look may have given better ones
            near &= lower[at] <= least + 1e-9
            near &= upper[at] >= most - 1e-9
        near &= (lower[at] <= 1) & (upper[at] >= 0)
        right[at] &= given_up[at] | near
    return right


def _bounds_are_counted(rows: pd.DataFrame) -> np.ndarray:
    """Whether rows of a deterministic law are of all its draws, at alpha 0."""
    n = rows["n"].to_numpy()
    count = rows["count"].to_numpy()
    rival = rows["rival"].to_numpy()
    step = rows["arithmetic"].str.removeprefix("lattice ").astype(float)
    ticks = (2 * rows["theta_max"] / step).round().to_numpy()
    bounds = exact_bounds(count, rival, n.clip(1))
    right = (ticks == n) & (rows["alpha"] == 0).to_numpy()
    right &= np.isclose(rows["p_a_lower"], bounds.lower, rtol=0, atol=1e-9)
    right &= np.isclose(rows["p_b_upper"], bounds.upper, rtol=0, atol=1e-9)
    return right


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
        **sizes(answer.region),
        "conflicts": answer.conflicts,
        "event": answer.event,
        "arithmetic": answer.arithmetic,
    }
