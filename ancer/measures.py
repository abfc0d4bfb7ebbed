"""What is said of a method's rows: certified accuracy, average radii, and how sure they are."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

MEANS = {"ACR": "radius", "AC-proxy-R": "proxy_radius", "AC-in-box-R": "in_box_proxy_radius"}
INTERVALS = ("certified accuracy", *MEANS)
LEVEL = 0.95  # of the intervals over images
RESAMPLES = 2000  # of the bootstrap


def certified_accuracy(
    rows: pd.DataFrame, radii: Sequence[float] | np.ndarray, *, by: str = "radius"
) -> np.ndarray:
    """Share of points that are correct with a radius >= r, for each r of `radii`.

    rows: with columns correct (0 or 1) and `by`, a radius (see MEANS) or any other reach.
    """
    correct = rows["correct"].to_numpy() == 1
    radius = rows[by].to_numpy()
    return np.array([(correct & (radius >= r)).mean() for r in radii])


def certified(rows: pd.DataFrame, by: str = "radius") -> pd.Series:
    """correct * radius of each image: 0 where the class is wrong or none."""
    return rows["correct"] * rows[by]


def average_certified_radius(rows: pd.DataFrame, *, by: str = "radius") -> float:
    """ACR: mean over points of correct * radius (with by="proxy_radius": AC-proxy-R).

    NaN where a radius was not computed.
    """
    return float(certified(rows, by).mean(skipna=False))


def means_of(rows: pd.DataFrame) -> dict[str, float]:
    """The average radii, by name."""
    return {name: average_certified_radius(rows, by=by) for name, by in MEANS.items()}


def radii_of(rows: pd.DataFrame) -> dict[str, float]:
    """The average radii and what stands beside them, by name."""
    return {
        **means_of(rows),
        "median radius": float(certified(rows).median()),
        "balanced ACR": balanced_radius(rows),
    }


def balanced_radius(rows: pd.DataFrame) -> float:
    """Mean over the classes of each class's ACR: no class counts more for being certified far."""
    return float(certified(rows).groupby(rows["label"]).mean().mean())


def fallback_share(rows: pd.DataFrame, fallback: int) -> float:
    """The share of ACR that images of the fallback class carry; 0 where ACR is 0.

    fallback: the class that pure noise gets (`stages.certify.fallback_class`; -1: none). Its images
    have radii without end, whatever they show: beyond the share of its images, ACR is inflated.
    """
    radius = certified(rows)
    total = radius.sum()
    of_class = radius[rows["label"] == fallback].sum()
    return float(of_class / total) if total > 0 else 0.0


def summary(rows: pd.DataFrame) -> dict[str, float]:
    """Headline numbers of one method's rows."""
    return {
        "certified accuracy": float(rows["correct"].mean()),
        "abstained": float((rows["prediction"] == -1).mean()),
        **radii_of(rows),
    }


def summary_with_fallback(rows: pd.DataFrame, fallback: int) -> dict[str, float]:
    """Likewise, and the share of ACR that the fallback class carries."""
    return {**summary(rows), "fallback share": fallback_share(rows, fallback)}


def interval_of_mean(values: pd.Series) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over images (percentiles, 2,000 resamples, seeded).

    Where all values are equal, or there is but one, it has no width: resampling knows no more. NaN
    where one is missing.
    """
    found = values.to_numpy(dtype=float)
    if np.isnan(found).any():
        return math.nan, math.nan
    if len(found) < 2 or np.ptp(found) == 0:
        return found.mean(), found.mean()
    from scipy.stats import bootstrap  # loads half a second, as all of scipy.stats

    ends = bootstrap(
        (found,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(ends.low), float(ends.high)


def interval_of_share(correct: pd.Series) -> tuple[float, float]:
    """95 % Wilson interval of a share of images; correct: 0 or 1 each."""
    from scipy.stats import binomtest

    ends = binomtest(int(correct.sum()), len(correct)).proportion_ci(LEVEL, method="wilson")
    return float(ends.low), float(ends.high)


def interval(rows: pd.DataFrame, number: str) -> dict[str, float]:
    """A number of INTERVALS of one method's rows, and both ends of its interval, by name."""
    if number in MEANS:
        value = average_certified_radius(rows, by=MEANS[number])
        low, high = interval_of_mean(certified(rows, MEANS[number]))
    else:
        value = float(rows["correct"].mean())
        low, high = interval_of_share(rows["correct"])
    return {number: value, f"{number}, low": low, f"{number}, high": high}
