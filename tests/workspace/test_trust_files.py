"""Every file knows what it belongs to: what was altered, mixed up or is of another run is refused,
with the notebook to run."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from stages import EXPERIMENTS, parameters, write_parameters
from torch import nn

from ancer._files import read_tensors, write_bytes, write_tensors
from ancer.workspace.digests import data_digests
from ancer.workspace.experiment import Experiment, Profile
from ancer.workspace.explorer.study import Study
from ancer.workspace.fingerprints import fingerprint
from ancer.workspace.report.site import write_report
from ancer.workspace.stages.certify import certify_images
from ancer.workspace.stages.memory import answer_queries
from ancer.workspace.stages.optimize import choose_theta
from ancer.workspace.stages.statistics import against_baseline
from ancer.workspace.stages.train import save_network, train_network
from ancer.workspace.stages.volumes import compare_regions
from ancer.workspace.store.rows import RowStore
from ancer.workspace.store.theta import ThetaStore
from ancer.workspace.tables.certified import both_answers

pytestmark = pytest.mark.slow
NAME = EXPERIMENTS[0]


@pytest.fixture
def attacked(executed, profile, tmp_path):
    """A copy of the finished small profile, to be damaged."""
    folder = tmp_path / "attacked"
    shutil.copytree(profile, folder)
    return folder


def memory_stage(folder):
    answer_queries(Experiment.open(NAME, profile=folder, stage="memory"))


def volumes_stage(folder):
    compare_regions(Profile.open(folder, stage="volumes"))


def figures_stage(folder):
    e = Profile.open(folder, stage="figures").experiments[NAME]
    e.rows(e.data)


def explorer(folder):
    Study(NAME, profile=folder)


def tables_stage(folder):
    both_answers(Profile.open(folder, stage="tables").experiments[NAME])


def statistics_stage(folder):
    against_baseline(Profile.open(folder, stage="statistics"))


READERS = {
    "memory": memory_stage,
    "volumes": volumes_stage,
    "figures": figures_stage,
    "explorer": explorer,
    "tables": tables_stage,
    "statistics": statistics_stage,
    "report": write_report,
}


def all_refuse(folder, readers, message):
    for name in readers:
        with pytest.raises(ValueError, match=message) as caught:
            READERS[name](folder)
        assert "notebook (dvc repro)" in str(caught.value), name


def test_what_is_whole_is_read_by_all(attacked):
    for read in READERS.values():
        read(attacked)


# --- theta, checkpoints, rows


def altered(path, change):
    """A file of tensors, with one of them changed and all else as it was."""
    tensors, metadata = read_tensors(path)
    change(tensors)
    write_tensors(path, tensors, metadata)


def times_three(tensors):
    tensors["anisotropic"] *= 3


def one_bit(tensors):
    tensors["anisotropic"].view(torch.int32).flatten()[0] ^= 1


@pytest.mark.parametrize("change", [times_three, one_bit])
def test_altered_theta_is_refused_by_all_that_read_it(attacked, change):
    altered(attacked / f"data/theta/{NAME}.safetensors", change)
    all_refuse(attacked, READERS, "certify notebook|optimize notebook")
    e = Experiment.open(NAME, profile=attacked, stage="certify")
    with pytest.raises(ValueError, match="not as it was written: run the optimize notebook"):
        certify_images(e)


def test_another_checkpoint_is_refused_by_all(attacked):
    other = attacked / f"data/checkpoints/{EXPERIMENTS[1]}.safetensors"
    shutil.copy(other, attacked / f"data/checkpoints/{NAME}.safetensors")
    all_refuse(attacked, READERS, "was made with checkpoint = .* run the certify notebook")
    e = Experiment.open(NAME, profile=attacked, stage="certify")
    with pytest.raises(ValueError, match="checkpoint = .* run the optimize notebook"):
        certify_images(e)


@pytest.mark.parametrize("column", ["gap", "radius", "prediction", "count"])
def test_a_number_edited_in_the_rows_is_refused_by_all(attacked, column):
    path = attacked / f"results/rows/{NAME}.csv"
    rows = pd.read_csv(path)
    rows.loc[rows["gap"].idxmax(), column] = rows[column].max() + 1
    path.write_text(rows.to_csv(index=False))
    all_refuse(attacked, READERS, "is not as it was written: run the certify notebook")


@pytest.mark.parametrize(
    "column",
    [
        "gap",
        "radius",
        "proxy_radius",
        "in_box_proxy_radius",
        "p_a_lower",
        "p_b_upper",
        "count",
        "rival",
        "n",
    ],
)
def test_numbers_that_votes_do_not_give_are_refused_though_the_sum_is_right(attacked, column):
    """Rows of a faulty program, say: gap and radii are computed again from the votes."""
    from ancer.workspace.store.provenance import content_of

    path = attacked / f"results/rows/{NAME}.csv"
    rows = pd.read_csv(path)
    line = rows["gap"].idxmax()
    rows[column] = rows[column].astype(float)
    rows.loc[line, column] = rows.loc[line, column] * 0.9 if column == "count" else 1e3
    path.write_text(rows.to_csv(index=False))
    beside = path.with_suffix(".json")
    record = json.loads(beside.read_text())
    beside.write_text(json.dumps({**record, "sha256": content_of(path)}))
    e = Experiment.open(NAME, profile=attacked)
    with pytest.raises(ValueError, match=rf"line {line + 2} of .* that its votes do not give"):
        e.rows()


@pytest.mark.parametrize(
    "place, value", [("n", 600), ("alpha", 0.01), ("n0", 50), ("looks", "always")]
)
def test_other_parameters_than_the_rows_are_refused(attacked, place, value):
    values = parameters(attacked)
    values["certify"][place] = value
    write_parameters(attacked, values)
    said = f"was made with {place} = .*, now it is {value!r}: run the certify"
    all_refuse(attacked, READERS, said)


# --- derived files


def test_rows_of_another_run_beside_old_answers_are_refused(attacked):
    """Notebooks run by hand: certify again with another seed, then tables without memory."""
    values = parameters(attacked)
    values["seed"] = 1
    write_parameters(attacked, values)
    for name in EXPERIMENTS:
        choose_theta(Experiment.open(name, profile=attacked, stage="optimize"))
        certify_images(Experiment.open(name, profile=attacked, stage="certify"))
    all_refuse(attacked, ["tables"], "was made with rows = .* run the memory notebook")
    with pytest.raises(ValueError, match="run the volumes notebook"):
        Profile.open(attacked, stage="figures").volumes()
    for name in EXPERIMENTS:
        answer_queries(Experiment.open(name, profile=attacked, stage="memory"))
    tables_stage(attacked)
    all_refuse(attacked, ["report"], "run the volumes notebook")
    volumes_stage(attacked)
    all_refuse(attacked, ["report"], "run the tables notebook")


@pytest.mark.parametrize(
    "path, notebook",
    [
        (f"results/memory/{NAME}.csv", "memory"),
        ("results/volumes.csv", "volumes"),
        ("results/tables/T1.csv", "tables"),
        ("results/figures/F3.png", "figures"),
        ("results/statistics/S3.svg", "statistics"),
    ],
)
def test_the_report_refuses_an_altered_result(attacked, path, notebook):
    with open(attacked / path, "ab") as file:
        file.write(b" ")
    all_refuse(attacked, ["report"], f"is not as it was written: run the {notebook} notebook")


# --- rows while a run lasts

ROW = {"method": "fixed", "radius": 0.1, "image": "a"}


def store_of(path, count=4):
    with RowStore(path, key="k") as store:
        for k in range(count):
            store.append([{**ROW, "idx": k, "radius": 0.25 + k}], seconds=1.0)
        return store.data


def test_a_flipped_bit_in_a_line_is_named_with_file_and_line_and_never_used(tmp_path):
    path = store_of(tmp_path / "r.csv")
    whole = path.read_bytes()
    with RowStore(tmp_path / "r.csv", key="k") as store:
        expected = store.rows
    noticed = 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            with RowStore(tmp_path / "r.csv", key="k") as store:
                # a bit of a line's end makes two lines one; of the last end, the line is torn
                assert all(row in expected for row in store.rows)
        except ValueError as error:
            noticed += 1
            assert f"of {path} was altered: remove the line" in str(error)
    assert noticed >= 8 * len(whole) - 16


def test_a_run_whose_data_was_removed_says_so_and_lets_nobody_in(tmp_path):
    """There is no lock file that could be removed: what is locked is the data."""
    with RowStore(tmp_path / "r.csv", key="k") as store:
        store.append([{**ROW, "idx": 0}], seconds=1.0)
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["r.k.jsonl", "r.k.jsonl.owner"]
        with pytest.raises(RuntimeError, match="is being written by process"):
            with RowStore(tmp_path / "r.csv", key="k"):
                pass
        store.owner.unlink()  # it only says who it is
        store.data.unlink()
        with pytest.raises(OSError, match="removed"):
            store.append([{**ROW, "idx": 1}], seconds=1.0)


# --- parts and links


def test_a_part_of_theta_writes_nowhere_else(tmp_path):
    """A tensor of a part may have any name: only those of methods become files."""
    store_path = tmp_path / "store/theta.safetensors"
    with ThetaStore(store_path, key="k", counts={"a": 1}) as store:
        store.add({0: "x"}, {"a": torch.ones(1)}, seconds={"a": 1.0})
        (part,) = store.parts.glob("*.safetensors")
        tensors = load_file(part)
        tensors["../../../evil"] = torch.ones(1)
        save_file(tensors, part, metadata={"ancer": "{}"})
        with pytest.raises(ValueError, match=r"evil.*expected \['a', 'indices'\]: remove it"):
            store.finish([{0: "x"}], provenance={})
    assert not list(tmp_path.rglob("evil*")) and not list(tmp_path.parent.glob("evil*"))


def test_a_link_that_waits_is_not_followed(tmp_path):
    """Whoever plants <path>.part decides not where we write."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in os.listdir(tmp_path):
        assert name == "victim"
    (tmp_path / "out.json.part").symlink_to(victim)
    write_bytes(tmp_path / "out.json", b"ours")
    assert victim.read_text() == "precious"
    assert (tmp_path / "out.json").read_bytes() == b"ours"


# --- images


class Flat(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(3 * 8 * 8, classes)

    def forward(self, x):
        return self.head(x.flatten(1))


def folder_of_images(folder, seed=0):
    stream = np.random.default_rng(seed)
    for split, count in (("train", 8), ("test", 3)):
        for label, kind in enumerate(("cat", "dog")):
            for k in range(count):
                pixels = stream.integers(0, 120, (8, 8, 3)) + 120 * label
                path = folder / split / kind / f"{100 * label + k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture
def pictured(tmp_path):
    """A profile on a folder of images, through all stages of the experiment."""
    folder_of_images(tmp_path / "data/mine")
    p = parameters()
    p["images"] = 6
    p["certify"] |= {"n": 200, "n0": 20}
    p["ablations"]["experiments"] = []
    p["methods"] = {
        "fixed": {"label": "Fixed sigma"},
        "isotropic": {"theta": "ancer.optimize_isotropic", "start": "fixed", "draws": 50},
    }
    p["volumes"] = {"of": "isotropic", "against": ["fixed"]}
    p["figures"] |= {"ball": "fixed", "region": "isotropic"}
    p["coverage"]["methods"] = ["fixed", "isotropic"]
    p["train"]["augmentation"] |= {"epochs": 3, "batch_size": 8}
    p["experiments"] = {
        "mine": {
            "dataset": "data/mine",
            "arch": f"{__name__}:Flat",
            "noise": "gaussian",
            "sigma": 0.25,
            "training": "augmentation",
        }
    }
    write_parameters(tmp_path, p)
    stages(tmp_path)
    return tmp_path


def stages(folder):
    e = Experiment.open("mine", profile=folder)
    network, _ = train_network(e)
    save_network(e, network, {})
    choose_theta(Experiment.open("mine", profile=folder))
    certify_images(Experiment.open("mine", profile=folder))
    answer_queries(Experiment.open("mine", profile=folder))
    compare_regions(Profile.open(folder))


def replace_images(folder):
    """Other test images under the same names."""
    shutil.move(folder / "data/mine/train", folder / "kept")
    shutil.rmtree(folder / "data/mine")
    folder_of_images(folder / "data/mine", seed=1)
    shutil.rmtree(folder / "data/mine/train")
    shutil.move(folder / "kept", folder / "data/mine/train")


def fingerprints(folder):
    profile = Profile.open(folder)
    digests = data_digests(profile.folder, profile.parameters)
    notebooks = Path(__file__).parents[2] / "notebooks"
    found = {}
    for stage in ("train", "optimize", "certify", "memory"):
        found[stage] = fingerprint(notebooks, profile.parameters, stage, "mine", digests=digests)
    for stage in ("volumes", "figures", "statistics", "tables"):
        found[stage] = fingerprint(notebooks, profile.parameters, stage, digests=digests)
    return found


def test_images_replaced_under_the_same_names_are_noticed_by_all(pictured):
    before = fingerprints(pictured)
    rows = pd.read_csv(pictured / "results/rows/mine.csv")
    replace_images(pictured)
    after = fingerprints(pictured)
    assert {stage for stage in before if before[stage] != after[stage]} == set(before) - {"tables"}
    message = "was made for another image of that number: run the certify notebook"
    with pytest.raises(ValueError, match=message):
        answer_queries(Experiment.open("mine", profile=pictured))
    with pytest.raises(ValueError, match=message):
        compare_regions(Profile.open(pictured))
    with pytest.raises(ValueError, match=message):
        Study("mine", profile=pictured)
    with pytest.raises(ValueError, match="chosen for another image .* run the optimize notebook"):
        certify_images(Experiment.open("mine", profile=pictured))
    stages(pictured)
    again = pd.read_csv(pictured / "results/rows/mine.csv")
    assert (again["image"] != rows["image"]).all() and not again["count"].equals(rows["count"])


def test_moving_the_images_runs_nothing_again(pictured, monkeypatch):
    before = fingerprints(pictured)
    rows = (pictured / "results/rows/mine.csv").read_bytes()
    shutil.move(pictured / "data/mine", pictured / "elsewhere/mine")
    values = parameters(pictured)
    values["experiments"]["mine"]["dataset"] = "elsewhere/mine"
    write_parameters(pictured, values)
    assert fingerprints(pictured) == before

    def untouchable(*_, **__):
        pytest.fail("computed again")

    monkeypatch.setattr("ancer.workspace.stages.certify.certified_rows", untouchable)
    monkeypatch.setattr("ancer.workspace.stages.train.report_epochs", untouchable)
    monkeypatch.setattr("ancer.workspace.stages.optimize.propose", untouchable)
    stages(pictured)
    assert (pictured / "results/rows/mine.csv").read_bytes() == rows


def test_a_renamed_image_leads_to_an_error_whose_advice_helps(pictured):
    test = pictured / "data/mine/test/cat"
    (test / "1.png").rename(test / "50.png")
    with pytest.raises(ValueError, match="run the optimize stage"):
        certify_images(Experiment.open("mine", profile=pictured))
    choose_theta(Experiment.open("mine", profile=pictured))
    rows = certify_images(Experiment.open("mine", profile=pictured))
    assert 50 in set(rows["idx"]) and 1 not in set(rows["idx"])


def test_what_data_digests_remembers_is_of_the_files_as_they_are(pictured, monkeypatch):
    calls = []
    from ancer.workspace import digests

    real = digests.load
    monkeypatch.setattr(digests, "load", lambda *a, **k: calls.append(a) or real(*a, **k))
    profile = Profile.open(pictured)
    first = data_digests(profile.folder, profile.parameters)
    calls.clear()
    assert data_digests(profile.folder, profile.parameters) == first and not calls
    replace_images(pictured)
    second = data_digests(profile.folder, profile.parameters)
    assert second["mine"]["test"] != first["mine"]["test"]
    assert second["mine"]["train"] == first["mine"]["train"]
    shutil.rmtree(pictured / "data/mine")
    assert data_digests(profile.folder, profile.parameters)["mine"]["test"] == "missing"
