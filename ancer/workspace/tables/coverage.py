"""T5: which severities of what happens to pictures the regions cover."""

from collections.abc import Mapping

import pandas as pd

from ancer.measures import certified_accuracy
from ancer.perturbations.families import FAMILIES
from ancer.workspace.experiment import Experiment
from ancer.workspace.tables.certified import ALONE, groups
from ancer.workspace.tables.writing import present


def median_table(
    experiments: Mapping[str, Experiment], covered: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """T5: the median covered severity over correct images, a column a family.

    covered: as of `stages.coverage.covered_severities`. Families are named with their unit.
    """
    lines = []
    for name, method, answer, group in groups(experiments, covered):
        correct = group[group["correct"] == 1]
        line = {
            "experiment": name,
            "method": experiments[name].methods[method].label,
            "answer": answer,
            "correct images": len(correct),
        }
        for family in present(group, FAMILIES):
            line[FAMILIES[family].heading] = correct[family].median()
        lines.append(line)
    return pd.DataFrame(lines)


def accuracy_table(
    experiments: Mapping[str, Experiment],
    covered: Mapping[str, pd.DataFrame],
    observed: Mapping[str, pd.DataFrame],
) -> pd.DataFrame:
    """T5, accuracy: at three severities a family, certified and observed (of fewer images)."""
    lines = []
    for name, experiment in experiments.items():
        seen = observed[name].set_index(["method", "family", "severity"])["accuracy"]
        for family in present(covered[name], FAMILIES):
            for _, method, answer, group in groups([name], covered):
                line = {
                    "experiment": name,
                    "family": FAMILIES[family].heading,
                    "method": experiment.methods[method].label,
                    "answer": answer,
                    "images": len(group),
                }
                shown = FAMILIES[family].shown
                line["severities"] = ", ".join(map("{:g}".format, shown))
                certified = certified_accuracy(group, shown, by=family)
                for k, accuracy in enumerate(certified.tolist(), start=1):
                    line[f"certified, {k}"] = accuracy
                for k, severity in enumerate(shown, start=1):
                    line[f"observed, {k}"] = float("nan")
                    if answer == ALONE:
                        accuracy = seen.get((method, family, severity), float("nan"))
                        line[f"observed, {k}"] = accuracy
                lines.append(line)
    return pd.DataFrame(lines)
