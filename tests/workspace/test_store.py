"""The row store and the theta store: resume, key, lock, torn lines, rows of an unbroken run."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from stages import parameters, write_parameters
from torch import nn

from ancer._files import sha256_of
from ancer.bases import basis_named
from ancer.certificates.certificate import Certificate
from ancer.certification import certify
from ancer.confidence.bounds import clopper_pearson
from ancer.models import checkpoints
from ancer.models.networks import build
from ancer.noise.sampled import GaussianNoise
from ancer.smoothing import SmoothedClassifier
from ancer.workspace.experiment import Experiment
from ancer.workspace.fingerprints import key_of
from ancer.workspace.store.columns import best_row, check_numbers, votes_of
from ancer.workspace.store.columns import row as row_of
from ancer.workspace.store.rows import RowStore, read_rows
from ancer.workspace.store.theta import ThetaStore, read_theta

KEY = "0123456789abcdef"


IMAGES = {0: "a", 1: "b", 2: "c", 3: "d"}  # number -> digest


def row(method, idx):
    numbers = {"radius": 0.1 + 0.2 * idx, "log_volume": float("-inf")}
    return {"method": method, "seed": 0, "idx": idx, "image": IMAGES[idx], **numbers}


def fill(path, key=KEY, methods=("fixed", "isotropic"), stop=None):
    """Append rows one by one; stop before the `stop`-th as a kill would (no clean-up)."""
    with RowStore(path, key=key) as rows:
        for method in methods:
            for i in rows.missing(method, IMAGES, 0):
                if stop is not None and len(rows.rows) == stop:
                    return rows.rows
                rows.append([row(method, i)], seconds=1.0)
        return rows.finish(
            images=dict.fromkeys(methods, IMAGES), seeds=[0], provenance={"key": key}
        )


def test_finished_rows_are_full_precision_and_in_order(tmp_path):
    table, seconds = fill(tmp_path / "r.csv")
    assert seconds == {"fixed": 4.0, "isotropic": 4.0}
    read = read_rows(tmp_path / "r.csv")
    assert list(read["idx"]) == [0, 1, 2, 3] * 2
    # exactly, 0.30000000000000004 included
    assert list(read["radius"]) == [0.1 + 0.2 * i for i in range(4)] * 2
    assert (read["log_volume"] == float("-inf")).all()
    record = {"key": KEY, "sha256": sha256_of(tmp_path / "r.csv")}
    assert json.loads((tmp_path / "r.json").read_text()) == record
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [f"r.{KEY}.jsonl", "r.csv", "r.json"]


def test_finished_rows_are_found_again(tmp_path):
    """A run repeated for another reason computes nothing, and gives the same files and seconds."""
    _, seconds = fill(tmp_path / "r.csv")
    before = (tmp_path / "r.csv").read_bytes()
    with RowStore(tmp_path / "r.csv", key=KEY) as rows:
        assert rows.missing("fixed", IMAGES, 0) == [] == rows.missing("isotropic", IMAGES, 0)
        images = dict.fromkeys(["fixed", "isotropic"], IMAGES)
        _, again = rows.finish(images=images, seeds=[0], provenance={"key": KEY})
        assert again == seconds
    assert (tmp_path / "r.csv").read_bytes() == before


@pytest.mark.parametrize("stop", range(8))
def test_killed_run_computes_only_what_is_missing_and_ends_byte_for_byte_the_same(tmp_path, stop):
    fill(tmp_path / "whole.csv")
    assert len(fill(tmp_path / "r.csv", stop=stop)) == stop
    with RowStore(tmp_path / "r.csv", key=KEY) as rows:
        missing = rows.missing("fixed", IMAGES, 0) + rows.missing("isotropic", IMAGES, 0)
        assert len(missing) == 8 - stop
    fill(tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_torn_last_line_is_dropped_and_computed_again(tmp_path):
    fill(tmp_path / "r.csv", stop=3)
    partial = tmp_path / f"r.{KEY}.jsonl"
    partial.write_bytes(partial.read_bytes()[:-7])
    with RowStore(tmp_path / "r.csv", key=KEY) as rows:
        assert rows.missing("fixed", IMAGES, 0) == [2, 3]
        rows.append([row("fixed", 2)], seconds=1.0)
    lines = partial.read_text().splitlines()
    assert [json.loads(line.partition(" ")[2])["idx"] for line in lines] == [0, 1, 2]


def test_other_key_neither_uses_nor_loses_rows(tmp_path):
    fill(tmp_path / "r.csv", stop=3)
    with RowStore(tmp_path / "r.csv", key="another") as rows:
        assert rows.missing("fixed", IMAGES, 0) == [0, 1, 2, 3]
    with RowStore(tmp_path / "r.csv", key=KEY) as rows:
        assert rows.missing("fixed", IMAGES, 0) == [3]


def test_key_changes_with_everything():
    base = {"n": 100, "alpha": 0.05, "noise": ["gaussian", 0.25]}
    keys = {key_of(**base)}
    for name, value in [("n", 101), ("alpha", 0.01), ("noise", ["u", 0.25])]:
        keys.add(key_of(**{**base, name: value}))
    assert len(keys) == 4
    assert key_of(a=1, b=2) == key_of(b=2, a=1)


def test_second_run_is_refused_and_names_the_first(tmp_path):
    path = str(tmp_path / "r.csv")
    code = "from ancer.workspace.store.rows import RowStore\n"
    code += f"with RowStore({path!r}, key={KEY!r}): pass"
    command = [sys.executable, "-c", code]
    with RowStore(path, key=KEY):
        other = subprocess.run(command, capture_output=True, text=True)
    assert other.returncode
    assert f"is being written by process {os.getpid()} on" in other.stderr
    assert subprocess.run(command).returncode == 0


def test_lock_of_a_killed_run_is_free(tmp_path):
    path = str(tmp_path / "r.csv")
    code = "import os\nfrom ancer.workspace.store.rows import RowStore\n"
    code += f"RowStore({path!r}, key='k').__enter__()\nos.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    fill(tmp_path / "r.csv")


def test_full_disk_loses_no_finished_row(tmp_path, monkeypatch):
    fill(tmp_path / "r.csv", stop=2)

    def full(fd):
        raise OSError(28, "No space left on device")

    message = r"cannot write .*r\..*No space left.*what is finished is kept"
    with RowStore(tmp_path / "r.csv", key=KEY) as rows:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=message):
            rows.append([row("fixed", 2)], seconds=1.0)
    monkeypatch.undo()
    fill(tmp_path / "r.csv")
    assert len(read_rows(tmp_path / "r.csv")) == 8


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where nobody may")
def test_read_only_folder_is_an_error_before_work(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=str(tmp_path)):
        fill(tmp_path / "r.csv")


CHUNKS = [{4: "a", 9: "b"}, {14: "c", 19: "d"}, {24: "e"}]
METHODS = ["isotropic", "anisotropic"]


def theta_of(images):
    numbers = torch.tensor(list(images)).float()
    return {"isotropic": numbers, "anisotropic": numbers[:, None] * 2}


COUNTS = dict.fromkeys(METHODS, sum(map(len, CHUNKS)))


def test_theta_store_resumes_and_joins(tmp_path):
    path = tmp_path / "theta.safetensors"
    seconds = {"isotropic": 1.0, "anisotropic": 2.0}
    with ThetaStore(path, key=KEY, counts=COUNTS) as thetas:
        thetas.add(CHUNKS[1], theta_of(CHUNKS[1]), seconds=seconds)
    with ThetaStore(path, key="another", counts=COUNTS) as thetas:
        assert not thetas.has(CHUNKS[1])
    with ThetaStore(path, key=KEY, counts=COUNTS) as thetas:
        assert [thetas.has(chunk) for chunk in CHUNKS] == [False, True, False]
        for chunk in (CHUNKS[2], CHUNKS[0]):
            thetas.add(chunk, theta_of(chunk), seconds=seconds)
        assert thetas.finish(CHUNKS, provenance={}) == {"isotropic": 3.0, "anisotropic": 6.0}
    theta = read_theta(path, {24: "e", 4: "a"}, METHODS)
    assert theta["isotropic"].tolist() == [24, 4]
    assert theta["anisotropic"].tolist() == [[48], [8]]
    with pytest.raises(ValueError, match="no theta for image 5"):
        read_theta(path, {4: "a", 5: "b"}, METHODS)
    with pytest.raises(ValueError, match="image 4 .* chosen for another image of that number"):
        read_theta(path, {4: "b"}, METHODS)
    with pytest.raises(ValueError, match="no theta of method fixed"):
        read_theta(path, {4: "a"}, ["fixed"])


def with_theta(folder, methods, tensors):
    """An experiment of uniform noise with lambda = 0.433, and a file of theta for two images."""
    p = parameters()
    p["experiments"] = {"a": {**p["experiments"]["digits-l1-025"], "sigma": 0.433 / 3**0.5}}
    p["experiments"]["a"]["method_options"] = {}
    p["ablations"]["experiments"] = []
    p["methods"] = {name: p["methods"][name] for name in methods}
    p["volumes"] = {"of": "isotropic", "against": ["fixed"]}
    p["figures"] |= {"ball": "fixed", "region": "isotropic"}
    p["coverage"]["methods"] = ["fixed"]
    e = Experiment.open("a", profile=write_parameters(folder, p))
    first, second, *_ = e.data.indices
    data = e.data.take([first, second])
    checkpoints.save(
        e.target("checkpoint"),
        build("digits_cnn", 10),
        arch="digits_cnn",
        classes=10,
        provenance={},
    )
    noise = [e.section.noise, e.section.sigma]
    provenance = {"checkpoint": e.sha256("checkpoint"), "noise": noise}
    with ThetaStore(e.target("theta"), key="k", counts=dict.fromkeys(tensors, 2)) as store:
        store.add(data.digest_of, tensors, seconds={})
        store.finish([data.digest_of], provenance=provenance)
    return e, e.data.take([second, first])


@pytest.mark.parametrize("lattice, snapped", [(None, 0.433), (1 / 16, 0.40625)])
def test_sampled_theta_is_the_one_certified_with_fixed_among_them(tmp_path, lattice, snapped):
    """Uniform noise on a lattice has theta at half-odd multiples of its step only.

    0.433 becomes 6.5 / 16.
    """
    isotropic = torch.tensor([0.433, 0.25])
    e, data = with_theta(tmp_path, ["fixed", "isotropic"], {"isotropic": isotropic})
    theta = e.theta(data, lattice)
    assert list(theta) == ["fixed", "isotropic"] and theta["fixed"].shape == (2, 1, 1, 1)
    assert theta["fixed"].flatten().tolist() == pytest.approx([snapped] * 2, abs=1e-6)
    assert theta["isotropic"][1].item() == pytest.approx(snapped, abs=1e-6)
    # what certificates hold
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    exact = lattice is not None
    budget = {"n": 20, "alpha": 0.1, "seed": 0, "exact": exact, "lattice": data.lattice}
    for name, chosen in {"fixed": e.law, "isotropic": type(e.law)(isotropic.flip(0))}.items():
        certificates = certify(linear, data.images, chosen, **budget)
        for certificate, sampled in zip(certificates, theta[name], strict=True):
            assert torch.equal(certificate.theta, sampled)


def test_theta_that_a_function_has_still_to_choose_is_never_replaced_by_another(tmp_path):
    """A method added after the optimize stage ran is not certified with the training noise."""
    methods = ["fixed", "isotropic", "anisotropic"]
    e, data = with_theta(tmp_path, methods, {"isotropic": torch.tensor([0.433, 0.25])})
    with pytest.raises(ValueError, match="anisotropic.*run the optimize stage"):
        e.theta(data)


def test_missing_and_broken_files_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the certify stage"):
        read_rows(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match="run the optimize stage"):
        read_theta(tmp_path / "none.safetensors", {0: "a"}, METHODS)
    (tmp_path / "t.safetensors").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"t\.safetensors is truncated"):
        read_theta(tmp_path / "t.safetensors", {0: "a"}, METHODS)


def test_row_holds_the_certificate_in_full_precision():
    certificate = Certificate(
        index=4,
        chosen=1,
        prediction=1,
        p_a_lower=0.9,
        p_b_upper=0.05,
        gap=1.2,
        center=torch.zeros(2),
        theta=torch.tensor([0.25, 1.0]),
        norm=2,
        votes={3: 1, 1: 97, 0: 2},
        n=100,
        alpha=0.05,
    )
    image = "0123456789abcdef"
    about = {"image": image, "seed": 7, "classes": "two"}
    made = row_of(certificate, method="anisotropic", label=2, draws=110, **about)
    assert made["image"] == image
    thetas = (made["theta_min"], made["theta_gmean"], made["theta_max"])
    assert made["correct"] == 0 and thetas == (0.25, 0.5, 1.0)
    assert (made["candidate"], made["draws"]) == ("anisotropic", 110)
    assert made["arithmetic"] == "not floating-point sound"
    assert (made["votes"], made["classes"], made["chosen"]) == ("0:2 1:97 3:1", "two", 1)
    assert votes_of(made["votes"]) == certificate.votes
    assert pd.DataFrame([made]).notna().all().all()
    certificate = replace(certificate, lattice=1 / 16)
    names = ("fixed", "isotropic")
    best = SimpleNamespace(certificate=certificate, names=names, alpha=0.1, draws=500)
    made = best_row(best, method="best", label=1, **about)
    assert (made["method"], made["candidate"]) == ("best", "fixed")
    assert (made["alpha"], made["draws"]) == (0.1, 500)
    assert (made["correct"], made["arithmetic"]) == (1, "lattice 0.0625")


def test_theta_of_the_first_images_alone(tmp_path):
    """A slow method has fewer; a chunk that it does not reach holds none of its."""
    path = tmp_path / "theta.safetensors"
    total = sum(map(len, CHUNKS))
    counts = {"isotropic": total, "anisotropic": len(CHUNKS[0])}
    with ThetaStore(path, key=KEY, counts=counts) as thetas:
        for chunk in CHUNKS:
            theta = theta_of(chunk)
            if chunk is not CHUNKS[0]:
                del theta["anisotropic"]
            thetas.add(chunk, theta, seconds={})
        thetas.finish(CHUNKS, provenance={})
    first = dict(CHUNKS[0])
    assert len(read_theta(path, first, METHODS)["anisotropic"]) == len(first)
    with pytest.raises(ValueError, match=f"anisotropic for the first {len(first)} images only"):
        read_theta(path, dict(CHUNKS[1]), ["anisotropic"])


GIVEN_UP = {"method": "best", "candidate": "fixed", "idx": 0, "prediction": -1, "count": 30}
GIVEN_UP |= {"n": 60, "alpha": 0.001, "p_a_lower": 0.0, "gap": 0.0, "radius": 0.0}
GIVEN_UP |= {"basis": "pixels", "classes": "two", "chosen": 2, "rival": 20, "p_b_upper": 1.0}
GIVEN_UP |= {"votes": "0:10 1:20 2:30"}
GIVEN_UP |= {"proxy_radius": 0.0, "in_box_proxy_radius": 0.0, "theta_min": 0.5, "theta_gmean": 0.5}
GIVEN_UP |= {"theta_rms": 0.5}


@pytest.mark.parametrize(
    "changed, refused",
    [
        ({}, False),  # all of several were given up: it claims nothing, of fewer votes
        ({"method": "fixed"}, True),
        ({"prediction": 3}, True),
        ({"p_a_lower": 0.2}, True),
        ({"radius": 0.1}, True),
        ({"n": 200}, True),
        ({"count": 20}, True),  # not the votes of the class that was chosen
        ({"votes": "0:10 1:20 2:31"}, True),
    ],
)
def test_fewer_votes_are_those_of_a_best_that_claims_nothing(changed, refused):
    rows = pd.DataFrame([{**GIVEN_UP, **changed}])
    best_of = {"best": {"fixed": 0.5, "other": 0.5}}
    provenance = {"n": 100, "alpha": 0.001, "looks": "planned", "best_of": best_of}
    if not refused:
        check_numbers(rows, GaussianNoise, provenance, "r.csv")
        return
    with pytest.raises(ValueError, match="line 2 of r.csv .* its votes do not give"):
        check_numbers(rows, GaussianNoise, provenance, "r.csv")


@pytest.mark.parametrize("theta, refused", [(0.1, False), (0.5, True)])
def test_a_gap_may_lose_what_rounding_to_the_lattice_of_a_basis_costs(theta, refused):
    """A picture of 224x224 in cosines, as `Queries` has it: 0.059 of the gap at theta 0.1."""
    noise = GaussianNoise(0.1, basis=basis_named("dct8", (3, 224, 224)))
    x = torch.zeros(1, 3, 224, 224)
    (cost,) = SmoothedClassifier(nn.Identity(), noise, lattice=1 / 255).queries(x).rounding
    assert cost == pytest.approx(0.0592, abs=1e-4)
    lower = float(clopper_pearson(100, 100, 0.9 * 0.001))
    gap = GaussianNoise(1.0).gap(torch.tensor(lower, dtype=torch.float64)).item() - cost
    votes = {"prediction": 2, "count": 100, "rival": 0, "n": 100, "votes": "2:100"}
    sizes = dict.fromkeys(("radius", "proxy_radius", "in_box_proxy_radius"), theta * gap)
    sizes |= {"theta_min": theta, "theta_gmean": theta, "theta_rms": theta}
    bounds = {"p_a_lower": lower, "p_b_upper": 1 - lower, "gap": gap, "basis": "dct8"}
    row = GIVEN_UP | {"method": "fixed"} | votes | bounds | sizes
    provenance = {"n": 100, "alpha": 0.001, "looks": "planned", "best_of": {}}
    refusal = pytest.raises(ValueError, match="its votes do not give") if refused else nullcontext()
    with refusal:
        check_numbers(pd.DataFrame([row]), GaussianNoise, provenance, "r.csv")


@pytest.mark.parametrize("rms, refused", [(1000.0, False), (0.5, True)])
def test_bounds_may_lose_what_long_axes_cost_on_a_lattice(rms, refused):
    """All of 100 votes: 3e-5 below the bound that they give is what 3,072 coordinates of theta
    around 350 cost on steps of 2^-16.
    """
    lower = float(clopper_pearson(100, 100, 0.9 * 0.001)) - 3e-5
    gap = GaussianNoise(1.0).gap(torch.tensor(lower, dtype=torch.float64)).item()
    votes = {"prediction": 2, "count": 100, "rival": 0, "n": 100, "votes": "2:100"}
    sizes = dict.fromkeys(("radius", "proxy_radius", "in_box_proxy_radius"), 0.5 * gap)
    bounds = {"p_a_lower": lower, "p_b_upper": 1 - lower, "gap": gap}
    row = GIVEN_UP | {"method": "fixed", "theta_rms": rms} | votes | bounds | sizes
    provenance = {"n": 100, "alpha": 0.001, "looks": "planned", "best_of": {}}
    refusal = pytest.raises(ValueError, match="its votes do not give") if refused else nullcontext()
    with refusal:
        check_numbers(pd.DataFrame([row]), GaussianNoise, provenance, "r.csv")
