"""Metrics and tables on rows whose answers are known by hand."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from ancer import results
from ancer.confidence import clopper_pearson
from ancer.noise import LAWS

ROOT = Path(__file__).parents[1]

ROWS = pd.DataFrame(
    {
        "prediction": [1, 2, -1, 0],
        "correct": [1, 0, 0, 1],
        "radius": [0.5, 9.0, 0.0, 1.0],
        "proxy_radius": [0.7, 9.0, 0.0, 1.5],
        "box_proxy_radius": [0.6, 1.0, 0.0, 1.0],
    }
)


def test_certified_accuracy_counts_correct_points_at_least_that_far():
    accuracy = results.certified_accuracy(ROWS, [0, 0.5, 0.5000001, 1.0, 1.1])
    assert accuracy.tolist() == [0.5, 0.5, 0.25, 0.25, 0.0]
    assert results.certified_accuracy(ROWS, [1.2], by="proxy_radius").tolist() == [0.25]


def test_average_radii_ignore_wrong_predictions():
    assert results.summary(ROWS) == {
        "certified accuracy": 0.5,
        "abstained": 0.25,
        "ACR": 0.375,
        "AC-proxy-R": 0.55,
        "AC-box-R": 0.4,
    }


@pytest.mark.parametrize(
    "value, digits, text",
    [
        (0.9996, 3, "0.999"),
        (0.57, 3, "0.570"),  # 0.57 * 1000 is 569.9999999999999 in floating point
        (0.12551, 3, "0.125"),
        (1.0, 3, "1.000"),
        (-0.0001, 3, "-0.001"),
        (1e-9, 3, "0.000"),
    ],
)
def test_round_down_never_claims_more(value, digits, text):
    assert results.round_down(value, digits) == text
    assert float(results.round_down(value, digits)) <= value


def test_round_down_on_random_numbers():
    for value in np.random.default_rng(0).uniform(0, 3, 1000):
        rounded = float(results.round_down(float(value)))
        assert rounded <= value < rounded + 0.001 + 1e-12


EXPERIMENTS = {
    "a": SimpleNamespace(training="augmentation", sigma=0.25, noise="gaussian"),
    "b": SimpleNamespace(training="augmentation", sigma=0.5, noise="gaussian"),
}


def rows_of(radius):
    pairs = [("fixed", "certificate alone"), ("anisotropic", "with memory")]
    base = pd.concat([ROWS.assign(method=m, answer=a) for m, a in pairs])
    return base.assign(radius=base["radius"] * radius)


def test_tables_take_the_best_over_sigma_column_by_column():
    each = results.certified_table(EXPERIMENTS, {"a": rows_of(1.0), "b": rows_of(0.6)}, [0, 0.55])
    assert list(each["r = 0.55"]) == [0.25, 0.25, 0.25, 0.25]
    assert list(each["ACR"]) == pytest.approx([0.375, 0.375, 0.225, 0.225])
    best = results.best_over_sigma(each)
    assert list(best["method"]) == ["Fixed sigma", "Anisotropic (ANCER)"] and list(best["ACR"]) == [0.375, 0.375]


def test_published_lines_stand_beside_ours_and_leave_out_what_they_do_not_say(tmp_path):
    entry = {"norm": 2, "training": "augmentation", "sigma": 0.5, "source": "X 2019", "accuracy": {0: 0.7}, "ACR": 0.5}
    published = results.published_table([entry, {**entry, "sigma": 0.25, "ACR": 0.4}], [0, 0.55])
    each = results.certified_table(EXPERIMENTS, {"a": rows_of(1.0), "b": rows_of(0.6)}, [0, 0.55])
    table = pd.concat([each, published], ignore_index=True)
    best = results.best_over_sigma(table).set_index("answer")
    assert best.loc["published: X 2019", ["ACR", "AC-proxy-R", "r = 0"]].tolist() == [0.5, 0.5, 0.7]
    assert list(best.loc["certificate alone", ["ACR"]]) == [0.375]
    results.write_table(table, tmp_path / "T")
    line = next(x for x in (tmp_path / "T.md").read_text().splitlines() if "X 2019" in x)
    assert [cell.strip() for cell in line.split("|")[5:8]] == ["0.700", "", "0.500"]
    assert len(results.published_table([], [0])) == 0


def test_written_tables_agree_and_round_down(tmp_path):
    each = results.certified_table(EXPERIMENTS, {"a": rows_of(1.0), "b": rows_of(0.9999)}, [0, 0.5])
    results.write_table(each, tmp_path / "T1")
    read = pd.read_csv(tmp_path / "T1.csv")
    assert read["ACR"].tolist() == each["ACR"].tolist()  # the CSV is exact
    markdown = (tmp_path / "T1.md").read_text()
    assert "| 0.374 |" in markdown.replace("  ", " ").replace("  ", " ")  # 0.3749625 rounded down
    latex = (tmp_path / "T1.tex").read_text()
    assert "0.374" in latex and r"\toprule" in latex and latex.count(r"\\") == len(each) + 1


def test_superset_share_is_over_comparable_points():
    volumes = pd.DataFrame(
        {
            "experiment": ["a"] * 4,
            "against": ["fixed"] * 4,
            "idx": range(4),
            "comparable": [1, 1, 1, 0],
            "superset": pd.array([1, 0, 1, None], dtype="Int64"),
            "log_volume_gain": [2.0, -1.0, 5.0, None],
        }
    )
    (line,) = results.superset_table(volumes).to_dict("records")
    assert line["points"] == 4 and line["both certified, same class"] == 3
    assert line["superset share"] == pytest.approx(2 / 3) and line["median ln volume ratio"] == 2.0


def test_timing_adds_the_isotropic_start_to_the_anisotropic_method(tmp_path):
    (tmp_path / "a.optimize.json").write_text(json.dumps({"seconds_per_image": {"isotropic": 1.0, "anisotropic": 2.0}}))
    assert len(results.timing_table(tmp_path)) == 0  # certification has still to run
    (tmp_path / "a.certify.json").write_text(
        json.dumps({"seconds_per_image": {"fixed": 4.0, "isotropic": 4.0, "anisotropic": 4.0}})
    )
    assert results.timing_table(tmp_path)["total [s]"].tolist() == [4.0, 5.0, 7.0]


@pytest.mark.parametrize("table", ["T1", "T2"])
def test_readme_shows_the_committed_tables(table):
    assert (ROOT / f"results/tables/{table}.md").read_text().strip() in (ROOT / "README.md").read_text()


COMMITTED = [*(ROOT / "results/rows").glob("*.csv"), *ROOT.glob("profiles/*/results/rows/*.csv")]


@pytest.mark.parametrize("path", sorted(COMMITTED), ids=lambda p: p.stem)
def test_best_is_never_worse_than_fixed_at_its_share_on_any_image_of_the_committed_rows(path):
    """The bound of fixed at its share of alpha, from the same votes."""
    rows = pd.read_csv(path)
    provenance = json.loads(path.with_suffix(".json").read_text())
    fixed, best = (rows[rows["method"] == m].set_index("idx") for m in ("fixed", "best"))
    bound = clopper_pearson(fixed["count"], provenance["n"], provenance["alpha"] * provenance["shares"]["fixed"])
    gap = LAWS[provenance["noise"][0]](1.0).gap(torch.from_numpy(bound - 1e-7)).clamp(min=0).numpy()  # less the slack
    assert (best["proxy_radius"] >= fixed["theta_gmean"] * gap).all() and (gap > 0).mean() > 0.5
    assert (best["alpha"] == fixed["alpha"]).all() and (best["draws"] <= 3 * fixed["draws"]).all()
    step = 1 / 16 if path.stem.startswith("digits") else 1 / 255
    assert set(rows["arithmetic"]) == {f"lattice {step:.17g}"}
