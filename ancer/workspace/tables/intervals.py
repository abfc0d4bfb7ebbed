"""T6: how sure the averages are, over images and over draws."""

from collections.abc import Mapping

import pandas as pd

from ancer.workspace.experiment import Experiment, Profile
from ancer.workspace.tables.certified import ALONE
from ancer.workspace.tables.measures import INTERVALS, certified, interval
from ancer.workspace.tables.writing import round_down, round_up, write_table


def interval_table(
    experiments: Mapping[str, Experiment], rows: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """T6: one line for each experiment, method and answer; each number between its interval's ends.

    rows: as of `certified_table`. Where certificates were made with several seeds, also the mean
    and the standard deviation of their ACR.
    """
    lines = []
    for name, experiment in experiments.items():
        repeated = experiment.all_rows()
        by_seed = certified(repeated).groupby([repeated["method"], repeated["seed"]]).mean()
        for (method, answer), group in rows[name].groupby(["method", "answer"], sort=False):
            line = {
                "experiment": name,
                "method": experiment.methods[method].label,
                "answer": answer,
                "images": len(group),
            }
            for number in INTERVALS:
                line |= interval(group, number)
            if answer == ALONE and len(by_seed[method]) > 1:
                line["seeds"] = len(by_seed[method])
                line["mean ACR of seeds"] = by_seed[method].mean()
                line["its standard deviation"] = by_seed[method].std()
            lines.append(line)
    return pd.DataFrame(lines)


def interval_cells(table: pd.DataFrame) -> pd.DataFrame:
    """T6 as it is shown: number and interval in one cell, its upper end rounded up."""
    shown = table.copy()
    for number in INTERVALS:
        cells = []
        for line in table.to_dict("records"):
            low = round_down(line[f"{number}, low"])
            high = round_up(line[f"{number}, high"])
            cells.append(f"{round_down(line[number])} [{low}, {high}]")
        shown[number] = cells
        shown = shown.drop(columns=[f"{number}, low", f"{number}, high"])
    return shown


def write_interval_table(profile: Profile, rows: Mapping[str, pd.DataFrame]) -> None:
    """Write T6."""
    table = interval_table(profile.experiments, rows)
    path = profile.results("tables") / "T6"
    write_table(table, path, shown=interval_cells(table), note=profile.soundness())
