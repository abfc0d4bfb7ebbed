"""The paper's metrics and tables from rows; tables round down, so that no printed number claims too much."""

import json
import sys
from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path

import numpy as np
import pandas as pd

METHODS = {
    "fixed": "Fixed sigma",
    "isotropic": "Isotropic",
    "anisotropic": "Anisotropic (ANCER)",
    "best": "Best, never worse",
}
NORMS = {"gaussian": 2, "uniform": 1}
MEANS = {"ACR": "radius", "AC-proxy-R": "proxy_radius", "AC-box-R": "box_proxy_radius"}


def certified_accuracy(rows: pd.DataFrame, radii: Sequence[float], *, by: str = "radius") -> np.ndarray:
    """Share of points that are correct with a radius >= r, for each r of `radii`.

    rows: with columns correct (0 or 1) and `by` ("radius", "proxy_radius" or "box_proxy_radius").
    """
    correct, radius = rows["correct"].to_numpy() == 1, rows[by].to_numpy()
    return np.array([(correct & (radius >= r)).mean() for r in radii])


def average_certified_radius(rows: pd.DataFrame, *, by: str = "radius") -> float:
    """ACR: mean over points of correct * radius (with by="proxy_radius": AC-proxy-R)."""
    return float((rows["correct"] * rows[by]).mean())


def summary(rows: pd.DataFrame) -> dict[str, float]:
    """Headline metrics of one method's rows."""
    return {
        "certified accuracy": float(rows["correct"].mean()),
        "abstained": float((rows["prediction"] == -1).mean()),
        **{name: average_certified_radius(rows, by=by) for name, by in MEANS.items()},
    }


def certified_table(experiments: dict, rows: dict[str, pd.DataFrame], radii: Sequence[float]) -> pd.DataFrame:
    """One line for each scheme, sigma and method: certified accuracy at each radius and the average radii.

    experiments: name -> its parameters (training, sigma); rows: name -> rows of all its methods, with a column
    `answer`: "certificate alone" or "with memory".
    """
    lines = []
    for name, experiment in experiments.items():
        for (method, answer), group in rows[name].groupby(["method", "answer"], sort=False):
            accuracy = zip(radii, certified_accuracy(group, radii), strict=True)
            lines.append(
                {
                    "training": experiment.training,
                    "sigma": experiment.sigma,
                    "method": METHODS[method],
                    "answer": answer,
                    **{f"r = {r:g}": value for r, value in accuracy},
                    **{mean: average_certified_radius(group, by=by) for mean, by in MEANS.items()},
                }
            )
    return pd.DataFrame(lines)


def published_table(published: Sequence[dict], radii: Sequence[float]) -> pd.DataFrame:
    """Lines like those of `certified_table` from what others published of fixed sigmas, their source as `answer`.

    published: entries with training, sigma, accuracy (radius -> certified accuracy), ACR and source.
    """
    return pd.DataFrame(
        {
            "training": entry["training"],
            "sigma": entry["sigma"],
            "method": METHODS["fixed"],
            "answer": f"published: {entry['source']}",
            **{f"r = {r:g}": entry["accuracy"].get(r, float("nan")) for r in radii},
            "ACR": entry["ACR"],
            "AC-proxy-R": entry["ACR"],  # of balls, the radius itself
        }
        for entry in published
    )


def best_over_sigma(table: pd.DataFrame) -> pd.DataFrame:
    """The paper's summary: for each scheme and method, every column's best value over sigma."""
    return table.drop(columns="sigma").groupby(["training", "method", "answer"], sort=False).max().reset_index()


def superset_table(volumes: pd.DataFrame) -> pd.DataFrame:
    """T3: share of points whose anisotropic region contains the other method's, both certified with one class.

    volumes: experiment, idx, against (the other method), comparable (0 or 1), superset (0 or 1), log_volume_gain.
    """
    lines = []
    for (experiment, against), group in volumes.groupby(["experiment", "against"], sort=False):
        both = group[group["comparable"] == 1]
        lines.append(
            {
                "experiment": experiment,
                "anisotropic against": METHODS[against],
                "points": len(group),
                "both certified, same class": len(both),
                "superset share": both["superset"].mean(),
                "larger volume share": (both["log_volume_gain"] > 0).mean(),
                "median ln volume ratio": both["log_volume_gain"].median(),
            }
        )
    return pd.DataFrame(lines)


def timing_table(folder: str | Path) -> pd.DataFrame:
    """T4: seconds per image of each method, from the files in results/timing that `store.save_seconds` wrote."""
    lines = {}
    for path in sorted(Path(folder).glob("*.optimize.json")) + sorted(Path(folder).glob("*.certify.json")):
        experiment, stage = path.name.removesuffix(".json").rsplit(".", 1)
        record = json.loads(path.read_text())
        for method in METHODS:
            line = lines.setdefault((experiment, method), {"experiment": experiment, "method": METHODS[method]})
            # the anisotropic optimizer starts from the isotropic one, so it needs that time too
            needed = {"fixed": [], "isotropic": ["isotropic"]}.get(method, ["isotropic", "anisotropic"])
            spent = record["seconds_per_image"]
            line[f"{stage} [s]"] = sum(spent[m] for m in needed) if stage == "optimize" else spent.get(method)
    table = pd.DataFrame([line for _, line in sorted(lines.items(), key=lambda item: item[0][0])])
    # without the experiments of which a stage has still to run
    table = table.reindex(columns=["experiment", "method", "optimize [s]", "certify [s]"]).dropna()
    return table.assign(**{"total [s]": table["optimize [s]"] + table["certify [s]"]})


def round_down(value: object, digits: int = 3) -> object:
    """A float as text with `digits` decimals, never above the value; nothing for NaN; other objects as they are."""
    if not isinstance(value, float) or not np.isfinite(value):
        return "" if value != value else value
    return str(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_FLOOR))


def write_table(table: pd.DataFrame, path: str | Path, *, digits: int = 3) -> pd.DataFrame:
    """Write path.csv in full precision, path.md and path.tex rounded down; returns the rounded table."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    keep = ["sigma"]  # a parameter, not a result
    rounded = table.copy().astype(object)
    for column in table.columns:
        rounded[column] = [f"{v:g}" if column in keep else round_down(v, digits) for v in table[column]]
    table.to_csv(f"{path}.csv", index=False)
    align = ["right" if table[c].dtype.kind in "if" else "left" for c in table.columns]
    Path(f"{path}.md").write_text(rounded.to_markdown(index=False, disable_numparse=True, colalign=align) + "\n")
    columns = "".join(a[0] for a in align)
    Path(f"{path}.tex").write_text(
        rounded.style.hide(axis="index").format(escape="latex").to_latex(column_format=columns, hrules=True)
    )
    return rounded


if __name__ == "__main__":
    write_table(timing_table(sys.argv[1]), Path(sys.argv[1]) / "T4", digits=4)
