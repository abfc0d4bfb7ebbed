"""The paper's metrics and tables from rows; they round down: no printed number claims too much."""

import json
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path

import numpy as np
import pandas as pd

from ancer._files import write_text
from ancer.workspace.experiment import Experiment, Profile
from ancer.workspace.measures import (
    INTERVALS,
    balanced_radius,
    certified,
    certified_accuracy,
    fallback_share,
    interval,
    means_of,
    summary,
    summary_with_fallback,
)
from ancer.workspace.methods import Methods
from ancer.workspace.parameters.sections import Published
from ancer.workspace.store.timing import read_seconds

ALONE = "certificate alone"
WITH_MEMORY = "with memory"
TABLES = {"T1": 2, "T2": 1}  # and the norm of each


def both_answers(experiment: Experiment) -> pd.DataFrame:
    """Certificates alone and answers with memory in one table, told apart by `answer`."""
    alone = experiment.rows().assign(answer=ALONE)
    answers = experiment.answers().assign(answer=WITH_MEMORY)
    return pd.concat([alone, answers])


def certified_table(
    experiments: Mapping[str, Experiment],
    rows: Mapping[str, pd.DataFrame],
    radii: Sequence[float],
    methods: Methods,
) -> pd.DataFrame:
    """One line for each scheme, sigma and method: certified accuracy by radius, average radii.

    rows: experiment -> rows of all its methods, with a column `answer` (see `both_answers`).
    """
    lines = []
    for name, experiment in experiments.items():
        for (method, answer), group in rows[name].groupby(["method", "answer"], sort=False):
            line = {
                "training": experiment.section.training,
                "sigma": experiment.section.sigma,
                "method": methods[method].label,
                "answer": answer,
                "images": len(group),
            }
            for r, accuracy in zip(radii, certified_accuracy(group, radii), strict=True):
                line[f"r = {r:g}"] = accuracy
            line |= means_of(group)
            line["median radius"] = certified(group).median()
            line["balanced ACR"] = balanced_radius(group)
            line["fallback share"] = fallback_share(group, experiment.fallback)
            lines.append(line)
    return pd.DataFrame(lines).astype({"images": "Int64"})


def published_table(
    published: Sequence[Published], radii: Sequence[float], label: str
) -> pd.DataFrame:
    """Lines like those of `certified_table` from what others published of fixed sigmas.

    Their source stands as `answer`; label: how the tables call a fixed sigma.
    """
    lines = []
    for entry in published:
        line = {
            "training": entry.training,
            "sigma": entry.sigma,
            "method": label,
            "answer": f"published: {entry.source}",
        }
        for r in radii:
            line[f"r = {r:g}"] = entry.accuracy.get(r, float("nan"))
        line["ACR"] = entry.ACR
        line["AC-proxy-R"] = entry.ACR  # of balls, the radius itself
        lines.append(line)
    return pd.DataFrame(lines)


def best_over_sigma(table: pd.DataFrame) -> pd.DataFrame:
    """The paper's summary: for each scheme and method, every column's best value over sigma.

    No share of the fallback class is the best.
    """
    columns = table.drop(columns=["sigma", "fallback share"])
    grouped = columns.groupby(["training", "method", "answer"], sort=False)
    return grouped.max().reset_index()


def write_certified_tables(profile: Profile, rows: Mapping[str, pd.DataFrame]) -> list[str]:
    """Write T1 (l2) and T2 (l1), the best over sigma and each sigma; returns their names."""
    section = profile.parameters.tables
    methods = profile.methods
    fixed = next(method.label for method in methods.values() if not method.depends_on_image)
    written = []
    for table, norm in TABLES.items():
        ours = {name: e for name, e in profile.experiments.items() if e.norm == norm}
        if ours:
            published = [entry for entry in profile.parameters.published if entry.norm == norm]
            each = pd.concat(
                [
                    certified_table(ours, rows, section.radii, methods),
                    published_table(published, section.radii, fixed),
                ],
                ignore_index=True,
            )
            folder = profile.results("tables")
            note = profile.soundness()
            write_table(best_over_sigma(each), folder / table, note=note)
            write_table(each, folder / f"{table}-each-sigma", note=note)
            written += [table, f"{table}-each-sigma"]
    return written


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


def write_interval_table(profile: Profile, rows: Mapping[str, pd.DataFrame]) -> None:
    """Write T6: number and interval in one cell, its upper end rounded up."""
    table = interval_table(profile.experiments, rows)
    shown = table.copy()
    for number in INTERVALS:
        cells = []
        for line in table.to_dict("records"):
            low = round_down(line[number])
            ends = (round_down(line[f"{number}, low"]), round_up(line[f"{number}, high"]))
            cells.append(f"{low} [{ends[0]}, {ends[1]}]")
        shown[number] = cells
        shown = shown.drop(columns=[f"{number}, low", f"{number}, high"])
    path = profile.results("tables") / "T6"
    write_table(table, path, shown=shown, note=profile.soundness())


def write_metrics(profile: Profile, rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Write the headline numbers as DVC metrics: a file for each experiment, method and answer."""
    metrics = {}
    for name, both in rows.items():
        for (method, answer), group in both.groupby(["method", "answer"], sort=False):
            label = f"{method}-with-memory" if answer == WITH_MEMORY else method
            metrics[name, label] = summary_with_fallback(group, profile.experiments[name].fallback)
            text = json.dumps(metrics[name, label], indent=2)
            write_text(profile.results("metrics") / name / f"{label}.json", text + "\n")
    return pd.DataFrame(metrics).T.map(round_down)


def superset_table(volumes: pd.DataFrame, of: str, methods: Methods) -> pd.DataFrame:
    """T3: share of points whose region contains the other method's, both certified, same class.

    volumes: experiment, idx, against (the other method), comparable (0 or 1), superset (0 or 1),
    log_volume_gain, in_box_log_volume_gain; of: the method whose regions they are.
    """
    lines = []
    for (experiment, against), group in volumes.groupby(["experiment", "against"], sort=False):
        both = group[group["comparable"] == 1]
        line = {
            "experiment": experiment,
            f"{of} against": methods[against].label,
            "points": len(group),
            "both certified, same class": len(both),
            "superset share": both["superset"].mean(),
            "larger volume share": (both["log_volume_gain"] > 0).mean(),
            "median ln volume ratio": both["log_volume_gain"].median(),
            "inside the box": both["in_box_log_volume_gain"].median(),
        }
        lines.append(line)
    return pd.DataFrame(lines)


def ablation_table(rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Headline numbers of each experiment and setting."""
    lines = []
    for name, table in rows.items():
        for setting, group in table.groupby("method", sort=False):
            lines.append({"experiment": name, "setting": setting, **summary(group)})
    return pd.DataFrame(lines)


def timing_table(profile: Profile) -> pd.DataFrame:
    """T4: seconds per image of each method, its starts included, of the experiments that ran."""
    folder = profile.results("timing")
    lines = []
    for name, experiment in sorted(profile.experiments.items()):
        optimize = read_seconds(folder, name, "optimize")
        certify = read_seconds(folder, name, "certify")
        if optimize is not None and certify is not None:
            for method in experiment.certified_methods:
                if method.name not in certify:  # it is newer than the stage's last run
                    continue
                spent = 0.0
                for needed in optimize:
                    if experiment.methods[needed] in experiment.methods.chain(method.name):
                        spent += optimize[needed]
                line = {
                    "experiment": name,
                    "method": method.label,
                    "optimize [s]": spent,
                    "certify [s]": certify[method.name],
                    "total [s]": spent + certify[method.name],
                }
                lines.append(line)
    columns = ["experiment", "method", "optimize [s]", "certify [s]", "total [s]"]
    return pd.DataFrame(lines, columns=columns)


def round_down(value: object, digits: int = 3) -> object:
    """A float as text with `digits` decimals, never above the value; nothing for NaN.

    Other objects as they are.

    Example:
        >>> round_down(0.9996)
        '0.999'
    """
    return _rounded(value, digits, ROUND_FLOOR)


def round_up(value: object, digits: int = 3) -> object:
    """Likewise, never below the value: the upper end of an interval."""
    return _rounded(value, digits, ROUND_CEILING)


def _rounded(value: object, digits: int, rounding: str) -> object:
    if value is pd.NA:
        return ""
    if not isinstance(value, float) or np.isinf(value):
        return value
    if np.isnan(value):
        return ""
    exact = Decimal(repr(float(value)))
    return str(exact.quantize(Decimal(1).scaleb(-digits), rounding=rounding))


def write_table(
    table: pd.DataFrame,
    path: Path,
    *,
    digits: int = 3,
    note: str = "",
    shown: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Write path.csv in full precision, path.md and path.tex rounded down; returns that table.

    note: a sentence under it; shown: what they show where it is not the columns of the CSV.
    """
    shown = table if shown is None else shown
    rounded = shown.copy().astype(object)
    align = []
    for column in shown.columns:
        if column == "sigma":  # a parameter, not a result
            rounded[column] = shown[column].map("{:g}".format)
        else:
            rounded[column] = [round_down(value, digits) for value in shown[column]]
        align.append("right" if shown[column].dtype.kind in "if" else "left")
    markdown = rounded.to_markdown(index=False, disable_numparse=True, colalign=align)
    styled = rounded.style.hide(axis="index").format(escape="latex")
    columns = "".join(side[0] for side in align)
    write_text(path.with_name(f"{path.name}.csv"), table.to_csv(index=False))
    latex = styled.to_latex(column_format=columns, hrules=True)
    if note:
        markdown += f"\n\n{note}"
        latex += f"\\par {note}\n"
    write_text(path.with_name(f"{path.name}.md"), markdown + "\n")
    write_text(path.with_name(f"{path.name}.tex"), latex)
    return rounded
