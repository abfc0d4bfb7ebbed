"""What the coverage stage writes agrees with rows, regions and memory; T5 by hand."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from ancer.perturbations.families import FAMILIES
from ancer.workspace.coverage.reading import COVERED, SMOOTHED, read_covered, read_smoothed, words
from ancer.workspace.coverage.table import accuracy_table, medians
from stages import EXPERIMENTS, ROOT, run

from ancer.regions.memory import Memory
from ancer.workspace.experiment import Experiment, Profile
from ancer.workspace.stages.coverage import strongest_pictures
from ancer.workspace.stages.memory import certificates
from ancer.workspace.tables import ALONE, WITH_MEMORY, certified_accuracy

EXPERIMENT = pytest.mark.parametrize("name", EXPERIMENTS)
GREY = [name for name in FAMILIES if FAMILIES[name].grey]


def covered_of(experiment):
    table = read_covered(experiment)
    return table.set_index(["method", "answer", "family", "idx"])


@pytest.mark.slow
@EXPERIMENT
def test_there_is_a_row_for_each_image_method_answer_and_family(profile, executed, name):
    e = Experiment.open(name, profile=profile)
    covered = read_covered(e)
    assert tuple(covered) == COVERED and list(covered["family"].unique()) == GREY
    rows = e.rows()
    answers = e.answers()
    for answer, table in ((ALONE, rows), (WITH_MEMORY, answers)):
        ours = covered[covered["answer"] == answer]
        for family in GREY:
            of_family = ours[ours["family"] == family]
            expected = table[["method", "idx", "label", "correct"]].reset_index(drop=True)
            found = of_family[["method", "idx", "label", "correct"]]
            key = ["method", "idx"]
            pd.testing.assert_frame_equal(
                found.sort_values(key, ignore_index=True),
                expected.sort_values(key, ignore_index=True),
            )
    assert (covered.loc[covered["correct"] == 0, "covered"] == 0).all()
    assert (covered["covered"] > 0).mean() > 0.3


@pytest.mark.slow
@EXPERIMENT
def test_pictures_at_it_lie_in_the_regions_alone_and_of_the_memory(profile, executed, name):
    e = Experiment.open(name, profile=profile)
    covered = covered_of(e)
    tried = 0
    for method in ("isotropic", "anisotropic"):
        with Memory(norm=e.norm) as memory:
            for certificate, _ in certificates(e, method):
                answered = memory.answer(certificate)
                regions = {ALONE: certificate.region, WITH_MEMORY: answered.region}
                for answer, region in regions.items():
                    for family in GREY:
                        severity = covered.loc[(method, answer, family, certificate.index)].covered
                        if severity > 0:
                            x = certificate.center[None]
                            y = FAMILIES[family](x, 0.999999 * severity)[0]
                            exact = FAMILIES[family](x, severity)[0]
                            linear = FAMILIES[family].linear
                            assert region.contains(y if linear else exact)
                            tried += 1
    assert tried > 50


@pytest.mark.slow
@EXPERIMENT
def test_the_smoothed_classifiers_accuracy_is_an_honest_share(profile, executed, name):
    e = Experiment.open(name, profile=profile)
    smoothed = read_smoothed(e)
    assert tuple(smoothed) == SMOOTHED and list(smoothed["family"].unique()) == GREY
    assert (smoothed["images"] == 3).all() and (smoothed["n"] == 10).all()
    for family, group in smoothed.groupby("family"):
        shown = e.parameters.coverage.families[family]
        assert group["severity"].tolist() == [0.0, *shown]
    assert set(3 * smoothed["accuracy"]) <= {0.0, 1.0, 2.0, 3.0}
    assert smoothed.loc[smoothed["severity"] == 0, "accuracy"].nunique() == 1


@pytest.mark.slow
def test_a_trial_leaves_the_profiles_coverage_alone(profile, executed):
    path = profile / f"results/coverage/{EXPERIMENTS[0]}.csv"
    before = path.read_bytes()
    for stage in ("certify", "memory", "coverage"):
        run(profile, stage, experiment=EXPERIMENTS[0], images=2, n=100)
    assert path.read_bytes() == before
    trial = pd.read_csv(profile / f".build/trial/images=2,n=100/results/coverage/{path.name}")
    assert trial["idx"].nunique() == 2


@pytest.mark.slow
def test_tables_hold_the_medians_and_the_shares(profile, executed):
    e = Experiment.open(EXPERIMENTS[0], profile=profile)
    covered = read_covered(e)
    whole = pd.read_csv(profile / "results/tables/T5.csv")
    assert list(whole["experiment"].unique()) == list(EXPERIMENTS)
    line = whole[(whole["experiment"] == e.name) & (whole["answer"] == ALONE)].iloc[0]
    group = covered[(covered["method"] == "fixed") & (covered["correct"] == 1)]
    for family in GREY:
        median = group.loc[group["family"] == family, "covered"].median()
        assert line[words(family)] == pytest.approx(median)
    text = (profile / f"results/tables/T5-{e.name}.md").read_text()
    assert "exact arithmetic" in text and "not certified: few draws" in text


# --- by hand

PROFILE = Profile.open(ROOT)


def hand_made():
    lines = []
    for method, answer, covered in (
        ("fixed", ALONE, [0.0, 0.1, 0.2, 0.3]),
        ("anisotropic", WITH_MEMORY, [0.0, 0.2, 0.25, 0.4]),
    ):
        for idx, severity in enumerate(covered):
            correct = int(idx > 0)
            lines.append((method, answer, idx, 7, correct, "brighter", severity))
            lines.append((method, answer, idx, 7, correct, "blur", 10 * severity))
    covered = pd.DataFrame(lines, columns=COVERED)
    own = []
    for family, scale in (("brighter", 1), ("blur", 10)):
        for severity, accuracy in ((0.0, 1.0), (0.2, 0.75), (0.3, 0.5)):
            own.append((family, scale * severity, 8, 50, accuracy))
    return covered, pd.DataFrame(own, columns=SMOOTHED)


def test_medians_are_over_the_images_that_are_right():
    covered, _ = hand_made()
    table = medians(covered, PROFILE.methods)
    assert list(table) == ["method", "answer", "brighter", "blur, pixels"]
    assert table["method"].tolist() == ["Fixed sigma", "Anisotropic (ANCER)"]
    assert table["brighter"].tolist() == [0.2, 0.25]
    assert table["blur, pixels"].tolist() == [2.0, 2.5]


def test_table_of_accuracies_by_hand():
    covered, smoothed = hand_made()
    table = accuracy_table(covered, smoothed, PROFILE.methods)
    assert list(table)[:5] == ["family", "severities", "method", "answer", "median covered"]
    accuracies = [f"accuracy at severity {k}" for k in (1, 2)]
    assert list(table)[5:] == accuracies
    of_family = table[table["family"] == "brighter"]
    assert set(of_family["severities"]) == {"0.2, 0.3"}
    assert of_family["method"].tolist() == ["Training noise", "Fixed sigma", "Anisotropic (ANCER)"]
    assert of_family["median covered"].tolist()[1:] == [0.2, 0.25]
    assert np.isnan(of_family["median covered"].iloc[0])
    assert of_family[accuracies].to_numpy().tolist() == [[0.75, 0.5], [0.5, 0.25], [0.75, 0.25]]
    assert certified_accuracy(covered.iloc[::2].head(4), [0.0], by="covered").tolist() == [0.75]


def test_pictures_are_of_the_first_image_that_all_methods_hold():
    e = PROFILE.experiments["digits-l2-025"]
    data = e.data.take(e.data.indices[:3])
    first, second, third = data.indices
    lines = []
    for method, right in (("fixed", {second, third}), ("isotropic", {first, second, third})):
        for idx in (third, second, first):
            for family, severity in (("brighter", 0.1), ("blur", 0.0)):
                line = (method, ALONE, idx, 0, int(idx in right), family, severity)
                lines.append(line)
    covered = pd.DataFrame(lines, columns=COVERED)
    shown = strongest_pictures(data, covered, ["fixed", "isotropic"])
    assert torch.equal(shown.image, data.images[1])
    assert shown.title == data.classes[int(data.labels[1])]
    severity, picture = shown.pictures["brighter"]["fixed"]
    assert severity == 0.1 and torch.equal(picture, (data.images[1] + 0.1).clamp(0, 1))
    assert torch.equal(shown.pictures["blur"]["isotropic"][1], data.images[1])
    assert strongest_pictures(data, covered, ["fixed", "best"]) is None


def test_provenance_names_the_rows(tmp_path):
    assert json.loads("{}") == {}
