"""The statistics stage: three guarantees of certificates, shown by experiment."""

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logit
from scipy.stats import binom

from ancer.certification import certify
from ancer.confidence.bounds import crossing_probability, log_e_value
from ancer.confidence.looks import Looks
from ancer.datasets.dataset import Dataset
from ancer.noise.law import Noise
from ancer.queries import gap_of_votes
from ancer.selection import REPORTS, certify_best
from ancer.stopping import Grid, Hopeless, Improvement, Target
from ancer.workspace.experiment import Experiment, Profile
from ancer.workspace.methods import Method

LOOK_EVERY = 100  # draws between two looks at a bound that must not be looked at


def ever_wrong(means: Sequence[float], horizon: int, alpha: float) -> dict[str, list[float]]:
    """By bound, the exact probability that it is ever above each mean within `horizon` draws."""
    t = np.arange(1, horizon + 1)
    looks = t % LOOK_EVERY == 0
    wrong: dict[str, list[float]] = {
        "Clopper-Pearson, re-checked": [],
        "confidence sequence": [],
        "planned looks": [],
        "Clopper-Pearson, once": [],
    }
    plan = Looks.doubling(horizon)
    for mean in means:
        sequence = _needed_by_sequence(t, mean, alpha)
        wrong["confidence sequence"].append(crossing_probability(sequence, mean))
        # the fewest votes for which Clopper-Pearson is above the mean; t + 1: nobody looks
        needed = binom.isf(alpha, t, mean).astype(int) + 1
        rechecked = np.where(looks, needed, t + 1)
        wrong["Clopper-Pearson, re-checked"].append(crossing_probability(rechecked, mean))
        spent = binom.isf(alpha * plan.shares, plan.draws, mean).astype(int) + 1
        planned = t + 1
        planned[plan.draws - 1] = spent
        wrong["planned looks"].append(crossing_probability(planned, mean))
        once = np.where(t == horizon, needed, t + 1)
        wrong["Clopper-Pearson, once"].append(crossing_probability(once, mean))
    return wrong


def _needed_by_sequence(t: np.ndarray, mean: float, alpha: float) -> np.ndarray:
    """The fewest votes of t draws for which the sequence is above the mean, by bisection."""
    low = np.zeros_like(t)
    high = t + 1
    while (high - low > 1).any():
        middle = (low + high) // 2
        above = log_e_value(middle, t, logit(mean)) >= np.log(1 / alpha)
        low = np.where(above, low, middle)
        high = np.where(above, middle, high)
    return high


def savings(profile: Profile) -> pd.DataFrame:
    """Mean draws and radius of the first images of each experiment, by stopping rule."""
    section = profile.parameters.statistics
    lines = []
    for name, experiment in _sampled(profile):
        sigma = experiment.section.sigma
        rules = {
            "none": None,
            "Improvement(0.05)": Improvement(0.05),
            "Improvement(0.1)": Improvement(0.1),
            "Target(radius=sigma/2)": Target(radius=sigma / 2),
            "Hopeless(radius=sigma/2)": Hopeless(radius=sigma / 2),
            "Grid(radii of the tables)": Grid(profile.parameters.tables.radii),
        }
        data, noises = _subject(experiment)
        for rule, stop in rules.items():
            certificates = certify(
                experiment.classifier,
                data.images,
                noises[section.method],
                n=section.n,
                alpha=profile.parameters.certify.alpha,
                seed=profile.parameters.seed,
                stop=stop,
                indices=data.indices,
            )
            line = {
                "experiment": name,
                "stop": rule,
                "draws": _mean(certificates, "n"),
                "mean radius": _mean(certificates, "radius"),
            }
            lines.append(line)
    return pd.DataFrame(lines, columns=["experiment", "stop", "draws", "mean radius"])


def _mean(found: Sequence[Any], what: str) -> float:
    """Of an attribute of certificates."""
    return float(np.mean(list(map(attrgetter(what), found))))


def _subject(experiment: Experiment) -> tuple[Dataset, dict[str, Noise]]:
    """The first images of an experiment, and each method's noise round them."""
    data = experiment.some_data(experiment.parameters.statistics.images)
    return data, experiment.noises(data)


def against_baseline(
    profile: Profile,
) -> tuple[dict[str, dict[str, np.ndarray]], pd.DataFrame]:
    """Proxy radii over that of the baseline of `best_of` at its own share of alpha.

    By experiment and method, for the images that the baseline certifies, recomputed from the same
    votes; and a line an experiment of what was reported. Experiments without `best_of` are left
    out.
    """
    ratios: dict[str, dict[str, np.ndarray]] = {}
    lines = []
    certify_section = profile.parameters.certify
    for name, experiment, method in _with_best(profile):
        best = method.name
        shares = method.best_of or {}
        baseline_name = next(iter(shares))
        rows = experiment.rows()
        by_method = dict(list(rows.set_index("idx").groupby("method")))
        # 1. the baseline at its share
        fixed = by_method[baseline_name]
        level = certify_section.alpha * shares[baseline_name]
        count, rival = fixed[["count", "rival"]].to_numpy().T
        about = (certify_section.n, level, certify_section.classes)
        gap = gap_of_votes(experiment.law, count, rival, *about)
        baseline = fixed["theta_gmean"] * gap
        certified = baseline > 0
        # 2. the others against it
        ratios[name] = {}
        line: dict[str, object] = {}
        for other in experiment.certified_methods:
            if other != baseline_name:
                ratio = by_method[other]["proxy_radius"] / baseline
                certain = ratio[certified].to_numpy()
                ratios[name][other] = certain
                line[f"{other} below {baseline_name}"] = int((certain < 1 - 1e-6).sum())
        # 3. what was reported, and what it took
        reported = by_method[best]
        for candidate in shares:
            count = int((reported["candidate"] == candidate).sum())
            line[f"{candidate} reported"] = count
        line[f"draws of {best}"] = reported["draws"].mean()
        line["draws of all candidates"] = len(shares) * (certify_section.n0 + certify_section.n)
        lines.append(line)
    return ratios, pd.DataFrame(lines, index=pd.Index(list(ratios), name="experiment"))


def _sampled(profile: Profile) -> Iterator[tuple[str, Experiment]]:
    """The experiments whose votes are sampled: nothing stops or shares where all are counted."""
    for name, experiment in profile.experiments.items():
        if not experiment.kind.deterministic:
            yield name, experiment


def _with_best(profile: Profile) -> Iterator[tuple[str, Experiment, Method]]:
    """The experiments that certify a method with best_of, each with the first of them."""
    for name, experiment in _sampled(profile):
        for method in experiment.certified_methods.values():
            if method.best_of is not None:
                yield name, experiment, method
                break


def reports(profile: Profile) -> pd.DataFrame:
    """Mean radii and draws of the first images, by what `certify_best` may report.

    Experiments without `best_of` are left out.
    """
    parameters = profile.parameters
    lines = []
    for name, experiment, method in _with_best(profile):
        data, noises = _subject(experiment)
        shares = method.best_of or {}
        for report in REPORTS:
            found = certify_best(
                experiment.classifier,
                data.images,
                {candidate: noises[candidate] for candidate in shares},
                shares=shares,
                report=report,
                n=parameters.certify.n,
                alpha=parameters.certify.alpha,
                seed=parameters.seed,
                indices=data.indices,
            )
            line = {
                "experiment": name,
                "report": report,
                "mean radius": _mean(found, "radius"),
                "mean proxy radius": _mean(found, "proxy_radius"),
                "draws": _mean(found, "draws"),
            }
            lines.append(line)
    columns = ["experiment", "report", "mean radius", "mean proxy radius", "draws"]
    return pd.DataFrame(lines, columns=columns)
