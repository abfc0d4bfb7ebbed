"""The first screen of a report: what a profile's regions gain, in a sentence and three numbers."""

from pathlib import Path
from typing import Any

import pandas as pd

from ancer.measures import MEANS, average_certified_radius, certified, interval_of_mean
from ancer.workspace.experiment import Experiment, Profile
from ancer.workspace.report.pages import inline
from ancer.workspace.tables.writing import round_down, round_up

MEANING = {
    "ACR": "average certified radius: that of the largest ball in a region",
    "AC-proxy-R": "the same of the ball of a region's volume",
    "AC-in-box-R": "the same of the volume inside the box of all images",
}


def headline(profile: Profile) -> dict[str, Any] | None:
    """Of the first experiment, the method whose regions are compared against the training noise's.

    Means over the images of both, and of their differences with 95 % intervals. None where the
    profile has no such two methods.
    """
    experiment = next(iter(profile.experiments.values()))
    methods = experiment.certified_methods
    ours = methods.get(profile.parameters.volumes.of)
    plain = [m for m in methods.values() if m.theta is None and m.best_of is None]
    if ours is None or not plain:
        return None
    mine, its = _on_same_images(experiment.rows(), ours.name, plain[0].name)
    numbers = []
    for name in MEANS:
        number = _number(mine, its, name, plain[0].label)
        if number is not None:
            numbers.append(number)
    sentence = _sentence(experiment, mine, its, ours.label, plain[0].label)
    return {"sentence": inline(sentence), "numbers": numbers}


def _on_same_images(rows: pd.DataFrame, ours: str, plain: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of both methods by image, of those that both certified."""
    by_image = rows.set_index("idx")
    mine = by_image[by_image["method"] == ours]
    its = by_image[by_image["method"] == plain]
    return mine[mine.index.isin(its.index)], its[its.index.isin(mine.index)]


def _number(mine: pd.DataFrame, its: pd.DataFrame, name: str, plain: str) -> dict[str, str] | None:
    ours = certified(mine, MEANS[name])
    more = ours - certified(its, MEANS[name])
    low, high = interval_of_mean(more)
    if low != low:  # a radius that was not computed
        return None
    gain = str(round_down(more.mean()))
    sign = "" if gain.startswith("-") else "+"
    return {
        "value": str(round_down(ours.mean())),
        "name": name,
        "meaning": MEANING[name],
        "more": f"{sign}{gain} [{round_down(low)}, {round_up(high)}] over {plain}",
    }


def _sentence(
    experiment: Experiment, mine: pd.DataFrame, its: pd.DataFrame, ours: str, plain: str
) -> str:
    section = experiment.section
    size = average_certified_radius(its, by="proxy_radius")
    times = "more than"
    if size:
        ratio = average_certified_radius(mine, by="proxy_radius") / size
        times = f"{round_down(ratio, digits=1)} times"
    return (
        f"On {len(mine)} images of {data_name(experiment)}, "
        f"$\\ell_{experiment.norm}$ at sigma {section.sigma:g}, the regions of **{ours}** are as "
        f"large as balls of {times} the radius of {plain}'s, at an accuracy of "
        f"{round_down(mine['correct'].mean())} ({round_down(its['correct'].mean())})."
    )


def data_name(experiment: Experiment) -> str:
    """A data set by its file's name, without endings."""
    return Path(experiment.section.dataset).name.partition(".")[0]
