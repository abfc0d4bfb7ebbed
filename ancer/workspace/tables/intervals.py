"""T6: how sure the averages are, over images and over draws."""

from collections.abc import Mapping

import pandas as pd

from ancer.measures import INTERVALS, certified, interval
from ancer.workspace.experiment import Experiment, Profile
from ancer.workspace.tables.certified import ALONE, groups
from ancer.workspace.tables.writing import round_down, round_up, write_table


def interval_table(
    experiments: Mapping[str, Experiment], rows: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """T6: one line for each experiment, method and answer; each number between its interval's ends.

    rows: as of `certified_table`. Where certificates were made with several seeds, also the mean
    and the standard deviation of their ACR.
    """
    lines = []
    spread = {name: _over_seeds(experiment) for name, experiment in experiments.items()}
    for name, method, answer, group in groups(experiments, rows):
        line = {
            "experiment": name,
            "method": experiments[name].methods[method].label,
            "answer": answer,
            "images": len(group),
        }
        for number in INTERVALS:
            line |= interval(group, number)
        if answer == ALONE:
            line |= spread[name].get(method, {})
        lines.append(line)
    return pd.DataFrame(lines)


def _over_seeds(experiment: Experiment) -> dict[str, dict[str, float]]:
    """Of each method, how far ACR moves with the seed; nothing where there is but one."""
    if experiment.provenance["seeds"] == 1:
        return {}
    found = {}
    for method, rows in experiment.all_rows().groupby("method"):
        by_seed = certified(rows).groupby(rows["seed"]).mean()
        found[method] = {
            "seeds": len(by_seed),
            "mean ACR of seeds": by_seed.mean(),
            "its standard deviation": by_seed.std(),
        }
    return found


def interval_cells(table: pd.DataFrame) -> pd.DataFrame:
    """T6 as it is shown: number and interval in one cell, its upper end rounded up."""
    shown = table.copy()
    for number in INTERVALS:
        cells = []
        for line in table.to_dict("records"):
            low = round_down(line[f"{number}, low"])
            high = round_up(line[f"{number}, high"])
            cells.append(f"{round_down(line[number])} [{low}, {high}]" if low else "")
        shown[number] = cells
        shown = shown.drop(columns=[f"{number}, low", f"{number}, high"])
    return shown


def write_interval_table(profile: Profile, rows: Mapping[str, pd.DataFrame]) -> None:
    """Write T6."""
    table = interval_table(profile.experiments, rows)
    path = profile.results("tables") / "T6"
    write_table(table, path, shown=interval_cells(table), note=profile.caveats())
