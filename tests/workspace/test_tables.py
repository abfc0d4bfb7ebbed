"""Metrics and tables on rows whose answers are known by hand."""

import json
import subprocess
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from stages import ANCER, ROOT, parameters, write_parameters

from ancer.bases.basis import PIXELS
from ancer.confidence.looks import Looks
from ancer.datasets.dataset import Dataset
from ancer.noise.law import gap_of
from ancer.noise.sampled import LAWS
from ancer.regions.region import Region
from ancer.workspace.experiment import Profile
from ancer.workspace.parameters.sections import Published
from ancer.workspace.stages import coverage as coverage_stage
from ancer.workspace.tables import certified, comparisons, coverage, writing


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
    assert writing.round_down(value, digits) == text
    assert float(writing.round_down(value, digits)) <= value


def test_round_down_on_random_numbers():
    for value in np.random.default_rng(0).uniform(0, 3, 1000):
        rounded = float(writing.round_down(float(value)))
        assert rounded <= value < rounded + 0.001 + 1e-12


@pytest.fixture
def profile(tmp_path):
    """Two experiments of one scheme, a and b, with sigma 0.25 and 0.5."""
    p = parameters()
    base = p["experiments"]["digits-l2-025"]
    p["experiments"] = {"a": base, "b": {**base, "sigma": 0.5}}
    p["ablations"]["experiments"] = []
    return Profile.open(write_parameters(tmp_path, p))


ROWS = pd.DataFrame(
    {
        "label": [1, 1, 0, 0],
        "prediction": [1, 2, -1, 0],
        "correct": [1, 0, 0, 1],
        "radius": [0.5, 9.0, 0.0, 1.0],
        "proxy_radius": [0.7, 9.0, 0.0, 1.5],
        "in_box_proxy_radius": [0.6, 1.0, 0.0, 1.0],
    }
)


def rows_of(radius):
    pairs = [("fixed", certified.ALONE), ("anisotropic", certified.WITH_MEMORY)]
    base = pd.concat([ROWS.assign(method=m, answer=a) for m, a in pairs])
    return base.assign(radius=base["radius"] * radius)


def both(profile, radii, a=1.0, b=0.6):
    rows = {"a": rows_of(a), "b": rows_of(b)}
    experiments = {}
    for name, experiment in profile.experiments.items():
        experiments[name] = SimpleNamespace(section=experiment.section, fallback=1)
    return certified.certified_table(experiments, rows, radii, profile.methods)


def test_tables_take_the_best_over_sigma_column_by_column(profile):
    each = both(profile, [0, 0.55])
    assert list(each["sigma"]) == [0.25, 0.25, 0.5, 0.5]
    assert list(each["r = 0.55"]) == [0.25, 0.25, 0.25, 0.25]
    assert list(each["ACR"]) == pytest.approx([0.375, 0.375, 0.225, 0.225])
    best = certified.best_over_sigma(each)
    assert list(best["method"]) == ["Fixed sigma", "Anisotropic (ANCER)"]
    assert list(best["ACR"]) == [0.375, 0.375]


def test_published_lines_stand_beside_ours_and_leave_out_what_they_do_not_say(profile, tmp_path):
    entry = Published(
        norm=2, training="augmentation", sigma=0.5, source="X 2019", accuracy={0: 0.7}, ACR=0.5
    )
    other = entry.model_copy(update={"sigma": 0.25, "ACR": 0.4})
    published = certified.published_table([entry, other], [0, 0.55], "Fixed sigma")
    assert list(published["method"]) == ["Fixed sigma"] * 2
    table = pd.concat([both(profile, [0, 0.55]), published], ignore_index=True)
    best = certified.best_over_sigma(table).set_index("answer")
    theirs = best.loc["published: X 2019", ["ACR", "AC-proxy-R", "r = 0"]]
    assert theirs.tolist() == [0.5, 0.5, 0.7]
    assert list(best.loc[certified.ALONE, ["ACR"]]) == [0.375]
    writing.write_table(table, tmp_path / "T")
    lines = (tmp_path / "T.md").read_text().splitlines()
    line = next(line for line in lines if "X 2019" in line)
    assert [cell.strip() for cell in line.split("|")[5:9]] == ["", "0.700", "", "0.500"]
    assert len(certified.published_table([], [0], "Fixed sigma")) == 0


def test_written_tables_agree_and_round_down(profile, tmp_path):
    each = both(profile, [0, 0.5], b=0.9999)
    writing.write_table(each, tmp_path / "T1")
    read = pd.read_csv(tmp_path / "T1.csv")
    assert read["ACR"].tolist() == each["ACR"].tolist()  # the CSV is exact
    markdown = (tmp_path / "T1.md").read_text()
    # 0.3749625 rounded down
    assert "| 0.374 |" in markdown.replace("  ", " ").replace("  ", " ")
    latex = (tmp_path / "T1.tex").read_text()
    assert "0.374" in latex and r"\toprule" in latex and latex.count(r"\\") == len(each) + 1


def test_superset_share_is_over_comparable_points(profile):
    volumes = pd.DataFrame(
        {
            "experiment": ["a"] * 4,
            "against": ["fixed"] * 4,
            "idx": range(4),
            "comparable": [1, 1, 1, 0],
            "superset": pd.array([1, 0, 1, None], dtype="Int64"),
            "log_volume_gain": [2.0, -1.0, 5.0, None],
            "in_box_log_volume_gain": [1.0, -1.0, 0.5, None],
        }
    )
    (line,) = comparisons.superset_table(volumes, "anisotropic", profile.methods).to_dict("records")
    assert line["anisotropic against"] == "Fixed sigma"
    assert line["points"] == 4 and line["both certified, same class"] == 3
    assert line["superset share"] == pytest.approx(2 / 3)
    assert line["median ln volume ratio"] == 2.0 and line["inside the box"] == 0.5


def test_timing_adds_the_isotropic_start_to_the_anisotropic_method(profile):
    """And to the best of several all of theirs, each once."""
    folder = profile.results("timing")
    folder.mkdir(parents=True)
    total = [4.0, 5.0, 7.0, 7.0]
    ran = ["fixed", "isotropic", "anisotropic", "best"]  # the other two are newer
    optimize = {"isotropic": 1.0, "anisotropic": 2.0}
    certify = dict.fromkeys(ran, 4.0)
    (folder / "a.optimize.json").write_text(json.dumps({"seconds_per_image": optimize}))
    assert len(comparisons.timing_table(profile)) == 0  # certification has still to run
    (folder / "a.certify.json").write_text(json.dumps({"seconds_per_image": certify}))
    assert comparisons.timing_table(profile)["total [s]"].tolist() == total
    subprocess.run([ANCER, "timing"], cwd=profile.folder, check=True)
    written = pd.read_csv(folder / "T4.csv")
    assert written["total [s]"].tolist() == total
    assert written["method"].tolist() == [profile.methods[name].label for name in ran]
    assert "7.0000" in (folder / "T4.md").read_text()


COLUMNS = ["ACR", "balanced ACR", "AC-proxy-R", "AC-in-box-R"]


@pytest.mark.parametrize("table", ["T1", "T2"])
def test_readme_shows_the_numbers_of_the_committed_tables(table):
    """Of each method, certificates alone; of T1 in the first half of the columns."""
    committed = pd.read_csv(ROOT / f"results/tables/{table}.csv")
    alone = committed[committed["answer"] == certified.ALONE]
    readme = (ROOT / "README.md").read_text()
    assert f"(results/tables/{table}.md)" in readme
    shown = {}
    for line in readme.splitlines():
        label, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if label in set(alone["method"]):
            shown[label] = cells[:4] if table == "T1" else cells[4:]
    expected = {}
    for _, line in alone.iterrows():
        expected[line["method"]] = [writing.round_down(line[column]) for column in COLUMNS]
    assert shown == expected


COMMITTED = [*(ROOT / "results/rows").glob("*.csv"), *ROOT.glob("profiles/*/results/rows/*.csv")]


@pytest.mark.parametrize("path", sorted(COMMITTED), ids=lambda path: path.stem)
def test_best_is_never_worse_than_fixed_at_its_share_on_any_image_of_the_committed_rows(path):
    """The bound of fixed at its share of alpha, from the same votes."""
    rows = pd.read_csv(path)
    provenance = json.loads(path.with_suffix(".json").read_text())
    if not provenance["best_of"]:
        pytest.skip("no best of several is certified there")
    fixed = rows[rows["method"] == "fixed"].set_index("idx")
    best = rows[rows["method"] == "best"].set_index("idx")
    if provenance["noise"][0] == "splitting":  # without chance there is nothing to share
        assert (best["alpha"] == 0).all()
        assert (best["proxy_radius"] >= fixed["proxy_radius"]).all()
        return
    level = provenance["alpha"] * provenance["best_of"]["best"]["fixed"]
    plan = Looks.once(provenance["n"])
    count, rival = fixed[["count", "rival"]].to_numpy().T
    lower, upper = plan.bounds(count, rival, plan.n, level, provenance["classes"]["best"])
    # less the slack
    gap = gap_of(LAWS[provenance["noise"][0]](1.0), lower - 1e-7, upper + 1e-7).clip(0)
    assert (best["proxy_radius"] >= fixed["theta_gmean"] * gap).all() and (gap > 0).mean() > 0.5
    assert (best["alpha"] == fixed["alpha"]).all() and (best["draws"] <= 3 * fixed["draws"]).all()


@pytest.mark.parametrize("path", sorted(COMMITTED), ids=lambda path: path.stem)
def test_noise_of_the_committed_rows_is_on_a_lattice(path):
    rows = pd.read_csv(path)
    step = 1 / 16 if path.stem.startswith("digits") else 1 / 255
    rotated = rows["basis"] != "pixels"  # on the coefficients' lattice
    assert set(rows["arithmetic"][~rotated]) == {f"lattice {step:.17g}"}
    assert set(rows["arithmetic"][rotated]) <= {f"lattice {2**-16:.17g}"}


def test_t5_medians_are_of_correct_images_and_certified_shares_of_all(profile):
    """Four images, one of them wrong; observed beside the certificates alone."""
    alone = pd.DataFrame(
        {
            "method": "fixed",
            "answer": certified.ALONE,
            "idx": range(4),
            "correct": [1, 1, 1, 0],
            "darker": [0.01, 0.05, 0.3, 0.5],
        }
    )
    covered = {"a": pd.concat([alone, alone.assign(answer=certified.WITH_MEMORY, darker=0.0)])}
    line = {"method": "fixed", "family": "darker", "images": 4}
    seen = [{**line, "severity": s, "accuracy": a} for s, a in ((0.01, 1.0), (0.05, 0.75))]
    experiments = {"a": SimpleNamespace(methods=profile.methods)}
    first, second = coverage.median_table(experiments, covered).to_dict("records")
    assert first["correct images"] == 3 and first["darker (of white)"] == 0.05
    assert second["darker (of white)"] == 0
    table = coverage.accuracy_table(experiments, covered, {"a": pd.DataFrame(seen)})
    first, second = table.to_dict("records")
    assert first["severities"] == "0.01, 0.05, 0.2" and first["images"] == 4
    assert [first[f"certified, {k}"] for k in (1, 2, 3)] == [0.75, 0.5, 0.25]
    assert [first["observed, 1"], first["observed, 2"]] == [1.0, 0.75]
    assert np.isnan([first["observed, 3"], second["observed, 1"]]).all()
    assert [second[f"certified, {k}"] for k in (1, 2, 3)] == [0, 0, 0]


def test_where_there_is_no_region_nothing_is_covered(monkeypatch, tmp_path):
    """Exactly 0, also along a line: an abstention covers no severity."""
    x = torch.full((2, 1, 8, 8), 0.5)
    x[:, :, ::2] = 0.25
    region = Region(x[1].double(), torch.full((1, 8, 8), 0.5), 2)
    found = [(("a", "alone", 0), -1, 3, None), (("a", "alone", 1), 3, 3, region)]
    monkeypatch.setattr(coverage_stage, "_regions", lambda experiment: iter(found))
    labels = torch.tensor([3, 3])
    experiment = SimpleNamespace(
        name="e",
        data=Dataset("e", x, labels, torch.arange(2), list("0123456789"), lattice=None),
        norm=2,
        basis=lambda method: PIXELS,
        parameters=SimpleNamespace(coverage=SimpleNamespace(families=["contrast", "darker"])),
        profile=SimpleNamespace(results=lambda kind: tmp_path),
    )
    table = coverage_stage.covered_severities(experiment).set_index("idx")
    assert table.loc[0, ["contrast", "darker"]].tolist() == [0.0, 0.0]
    assert table.loc[1, "contrast"] > 0.1 and table.loc[1, "darker"] > 0.05
