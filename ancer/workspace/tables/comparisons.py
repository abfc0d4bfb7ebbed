"""T3, T4, T8 and the ablations: methods, bounds and settings side by side."""

from collections.abc import Mapping

import pandas as pd

from ancer.confidence.looks import CLASSES
from ancer.measures import summary
from ancer.noise.law import Noise
from ancer.queries import gap_of_votes
from ancer.workspace.experiment import Profile
from ancer.workspace.methods import Methods
from ancer.workspace.store.timing import read_seconds

SHOWN = ("certified accuracy", "ACR", "AC-proxy-R", "median radius")  # of each kind of bound


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


def classes_table(profile: Profile) -> pd.DataFrame:
    """T8: certificates that bound one class, and two, from the same votes; no network is needed.

    Of the methods that are not the best of others, where votes are sampled and no rule stopped
    early.
    """
    lines = []
    for name, experiment in profile.experiments.items():
        rows = experiment.rows()
        if experiment.kind.deterministic or experiment.parameters.certify.stop is not None:
            continue
        for method, group in rows.groupby("method", sort=False):
            if experiment.methods[method].best_of is not None:
                continue
            line: dict[str, object] = {"experiment": name}
            line["method"] = experiment.methods[method].label
            for classes in CLASSES:
                for what, value in summary(_bounding(group, experiment.law, classes)).items():
                    if what in SHOWN:
                        line[f"{what}, {classes}"] = value
            lines.append(line)
    return pd.DataFrame(lines)


def _bounding(rows: pd.DataFrame, law: Noise, classes: str) -> pd.DataFrame:
    """Rows as they would be if certificates bounded so many classes."""
    count, rival = rows[["count", "rival"]].to_numpy().T
    n = int(rows["n"].max())  # of all: no rule stopped
    gap = gap_of_votes(law, count, rival, n, rows["alpha"].to_numpy(), classes)
    correct = ((rows["chosen"] == rows["label"]) & (gap > 0)).astype(int)
    sizes = {"radius": gap * rows["theta_min"], "proxy_radius": gap * rows["theta_gmean"]}
    return rows.assign(correct=correct, gap=gap, **sizes)


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
            for of_method, method in experiment.certified_methods.items():
                if of_method not in certify:  # it is newer than the stage's last run
                    continue
                spent = 0.0
                for needed in optimize:
                    if needed in experiment.methods.chain(of_method):
                        spent += optimize[needed]
                line = {
                    "experiment": name,
                    "method": method.label,
                    "optimize [s]": spent,
                    "certify [s]": certify[of_method],
                    "total [s]": spent + certify[of_method],
                }
                lines.append(line)
    columns = ["experiment", "method", "optimize [s]", "certify [s]", "total [s]"]
    return pd.DataFrame(lines, columns=columns)
