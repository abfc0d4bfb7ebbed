"""T1 and T2: the paper's tables of certified accuracy, and the headline numbers as metrics."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd

from ancer._files import write_text
from ancer.measures import (
    certified_accuracy,
    fallback_share,
    radii_of,
    summary_with_fallback,
)
from ancer.workspace.experiment import Experiment, Profile
from ancer.workspace.methods import Methods
from ancer.workspace.parameters.sections import Published
from ancer.workspace.tables.writing import round_down, write_table

ALONE = "certificate alone"
WITH_MEMORY = "with memory"
TABLES = {"T1": 2, "T2": 1}  # and the norm of each


def both_answers(experiment: Experiment) -> pd.DataFrame:
    """Certificates alone and answers with memory in one table, told apart by `answer`."""
    alone = experiment.rows().assign(answer=ALONE)
    answers = experiment.answers().assign(answer=WITH_MEMORY)
    return pd.concat([alone, answers])


def groups(
    names: Iterable[str], rows: Mapping[str, pd.DataFrame]
) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Experiment, method, answer and their rows, in the order of `names` and of the rows."""
    for name in names:
        for (method, answer), group in rows[name].groupby(["method", "answer"], sort=False):
            yield name, method, answer, group


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
    for name, method, answer, group in groups(experiments, rows):
        section = experiments[name].section
        line = {
            "training": section.training,
            "sigma": section.sigma,
            "method": methods[method].label,
            "answer": answer,
            "images": len(group),
        }
        for r, accuracy in zip(radii, certified_accuracy(group, radii), strict=True):
            line[f"r = {r:g}"] = accuracy
        line |= radii_of(group)
        line["fallback share"] = fallback_share(group, experiments[name].fallback)
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
            note = profile.caveats()
            write_table(best_over_sigma(each), folder / table, note=note)
            write_table(each, folder / f"{table}-each-sigma", note=note)
            written += [table, f"{table}-each-sigma"]
    return written


def write_metrics(profile: Profile, rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Write the headline numbers as DVC metrics: a file for each experiment, method and answer."""
    metrics = {}
    for name, method, answer, group in groups(rows, rows):
        label = f"{method}-with-memory" if answer == WITH_MEMORY else method
        metrics[name, label] = summary_with_fallback(group, profile.experiments[name].fallback)
        # what was not computed is none
        there = {what: value for what, value in metrics[name, label].items() if value == value}
        text = json.dumps(there, indent=2)
        write_text(profile.results("metrics") / name / f"{label}.json", text + "\n")
    return pd.DataFrame(metrics).T.map(round_down)
