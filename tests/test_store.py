"""The row store and the theta store: resume, key, lock, torn lines, and rows equal to an unbroken run's."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from ancer import store
from ancer.files import write_tensors
from ancer.noise import UniformNoise
from ancer.rows import best_row
from ancer.rows import row as row_of

KEY = "0123456789abcdef"


def row(method, idx):
    return {"method": method, "idx": idx, "radius": 0.1 + 0.2 * idx, "log_volume": float("-inf")}


def fill(path, key=KEY, methods=("fixed", "isotropic"), stop=None):
    """Append rows one by one; stop before the `stop`-th as a kill would (no clean-up, no finish)."""
    with store.RowStore(path, key=key) as rows:
        for method in methods:
            for i in rows.missing(method, range(4)):
                if stop is not None and len(rows.rows) == stop:
                    return rows.rows
                rows.append([row(method, i)], seconds=1.0)
        return rows.finish(methods=methods, indices=range(4), provenance={"key": key})


def test_finished_rows_are_full_precision_and_in_order(tmp_path):
    table, seconds = fill(tmp_path / "r.csv")
    assert seconds == {"fixed": 4.0, "isotropic": 4.0}
    read = store.read_rows(tmp_path / "r.csv")
    assert list(read["idx"]) == [0, 1, 2, 3] * 2
    assert list(read["radius"]) == [0.1 + 0.2 * i for i in range(4)] * 2  # exactly, 0.30000000000000004 included
    assert (read["log_volume"] == float("-inf")).all()
    assert json.loads((tmp_path / "r.json").read_text()) == {"key": KEY}
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"r.{KEY}.jsonl", "r.csv", "r.json"]


def test_finished_rows_are_found_again(tmp_path):
    """A run that is repeated for another reason computes nothing, and gives the same files and seconds."""
    _, seconds = fill(tmp_path / "r.csv")
    before = (tmp_path / "r.csv").read_bytes()
    with store.RowStore(tmp_path / "r.csv", key=KEY) as rows:
        assert rows.missing("fixed", range(4)) == [] == rows.missing("isotropic", range(4))
        assert rows.finish(methods=["fixed", "isotropic"], indices=range(4), provenance={"key": KEY})[1] == seconds
    assert (tmp_path / "r.csv").read_bytes() == before


@pytest.mark.parametrize("stop", range(8))
def test_killed_run_computes_only_what_is_missing_and_ends_byte_for_byte_the_same(tmp_path, stop):
    fill(tmp_path / "whole.csv")
    assert len(fill(tmp_path / "r.csv", stop=stop)) == stop
    with store.RowStore(tmp_path / "r.csv", key=KEY) as rows:
        assert len(rows.missing("fixed", range(4))) + len(rows.missing("isotropic", range(4))) == 8 - stop
    fill(tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_torn_last_line_is_dropped_and_computed_again(tmp_path):
    fill(tmp_path / "r.csv", stop=3)
    partial = tmp_path / f"r.{KEY}.jsonl"
    partial.write_bytes(partial.read_bytes()[:-7])
    with store.RowStore(tmp_path / "r.csv", key=KEY) as rows:
        assert rows.missing("fixed", range(4)) == [2, 3]
        rows.append([row("fixed", 2)], seconds=1.0)
    assert [json.loads(line)["idx"] for line in partial.read_text().splitlines()] == [0, 1, 2]


def test_other_key_neither_uses_nor_loses_rows(tmp_path):
    fill(tmp_path / "r.csv", stop=3)
    with store.RowStore(tmp_path / "r.csv", key="another") as rows:
        assert rows.missing("fixed", range(4)) == [0, 1, 2, 3]
    with store.RowStore(tmp_path / "r.csv", key=KEY) as rows:
        assert rows.missing("fixed", range(4)) == [3]


def test_key_changes_with_everything():
    base = {"n": 100, "alpha": 0.05, "noise": ["gaussian", 0.25]}
    keys = {store.key_of(**base)} | {
        store.key_of(**{**base, name: value}) for name, value in [("n", 101), ("alpha", 0.01), ("noise", ["u", 0.25])]
    }
    assert len(keys) == 4
    assert store.key_of(a=1, b=2) == store.key_of(b=2, a=1)


def test_second_run_is_refused_and_names_the_first(tmp_path):
    code = f"from ancer import store\nwith store.RowStore({str(tmp_path / 'r.csv')!r}, key='k'): pass"
    with store.RowStore(tmp_path / "r.csv", key=KEY):
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert other.returncode and f"is being written by process {os.getpid()} on" in other.stderr
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_lock_of_a_killed_run_is_free(tmp_path):
    code = (
        f"import os\nfrom ancer import store\nstore.RowStore({str(tmp_path / 'r.csv')!r}, key='k').__enter__()"
        "\nos.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    fill(tmp_path / "r.csv")


def test_full_disk_loses_no_finished_row(tmp_path, monkeypatch):
    fill(tmp_path / "r.csv", stop=2)

    def full(fd):
        raise OSError(28, "No space left on device")

    with store.RowStore(tmp_path / "r.csv", key=KEY) as rows:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"cannot write .*r\..*No space left.*what is finished is kept"):
            rows.append([row("fixed", 2)], seconds=1.0)
    monkeypatch.undo()
    fill(tmp_path / "r.csv")
    assert len(store.read_rows(tmp_path / "r.csv")) == 8


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where nobody may")
def test_read_only_folder_is_an_error_before_work(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=str(tmp_path)):
        fill(tmp_path / "r.csv")


CHUNKS = [[4, 9], [14, 19], [24]]


def theta_of(indices):
    return {"isotropic": torch.tensor(indices).float(), "anisotropic": torch.tensor(indices).float()[:, None] * 2}


def test_theta_store_resumes_and_joins(tmp_path):
    path = tmp_path / "theta.safetensors"
    with store.ThetaStore(path, key=KEY) as thetas:
        thetas.add(CHUNKS[1], theta_of(CHUNKS[1]), seconds={"isotropic": 1.0, "anisotropic": 2.0})
    with store.ThetaStore(path, key="another") as thetas:
        assert not thetas.has(CHUNKS[1])
    with store.ThetaStore(path, key=KEY) as thetas:
        assert [thetas.has(c) for c in CHUNKS] == [False, True, False]
        for c in (CHUNKS[2], CHUNKS[0]):
            thetas.add(c, theta_of(c), seconds={"isotropic": 1.0, "anisotropic": 2.0})
        assert thetas.finish(CHUNKS, provenance={}) == {"isotropic": 3.0, "anisotropic": 6.0}
    theta = store.read_theta(path, [24, 4])
    assert theta["isotropic"].tolist() == [24, 4] and theta["anisotropic"].tolist() == [[48], [8]]
    with pytest.raises(ValueError, match="no theta for image 5"):
        store.read_theta(path, [4, 5])


@pytest.mark.parametrize("lattice, snapped", [(None, 0.433), (1 / 16, 0.40625)])
def test_sampled_theta_is_the_one_certified_with_fixed_among_them(tmp_path, lattice, snapped):
    """Uniform noise on a lattice has theta at half-odd multiples of its step only: 0.433 becomes 6.5 / 16."""
    path, x = tmp_path / "theta.safetensors", torch.full((2, 1, 2, 2), 0.5)
    write_tensors(path, {"indices": torch.tensor([4, 9]), "isotropic": torch.tensor([0.433, 0.25])}, {})
    theta = store.read_sampled_theta(path, x, [9, 4], UniformNoise(0.433), lattice)
    assert list(theta) == ["fixed", "isotropic"] and theta["fixed"].shape == (2, 1, 1, 1)
    assert theta["fixed"].flatten().tolist() == pytest.approx([snapped] * 2, abs=1e-6)
    assert theta["isotropic"][1].item() == pytest.approx(snapped, abs=1e-6)


def test_missing_and_broken_files_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the certify stage"):
        store.read_rows(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match="run the optimize stage"):
        store.read_theta(tmp_path / "none.safetensors", [0])
    (tmp_path / "t.safetensors").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"t\.safetensors is truncated"):
        store.read_theta(tmp_path / "t.safetensors", [0])


def test_row_holds_the_certificate_in_full_precision():
    certificate = SimpleNamespace(
        index=4, prediction=1, p_a_lower=0.9, count=97, gap=1.2, radius=0.3, proxy_radius=0.6, box_proxy_radius=0.5,
        log_volume=-3.5, theta=torch.tensor([0.25, 1.0]), n=100, alpha=0.05, lattice=None,
    )  # fmt: skip
    made = row_of(certificate, method="anisotropic", label=2, seed=7, draws=110)
    assert (made["correct"], made["theta_min"], made["theta_gmean"], made["theta_max"]) == (0, 0.25, 0.5, 1.0)
    assert (made["candidate"], made["draws"], made["arithmetic"]) == ("anisotropic", 110, "not floating-point sound")
    assert pd.DataFrame([made]).notna().all().all()
    certificate.lattice = 1 / 16
    best = SimpleNamespace(certificate=certificate, names=("fixed", "isotropic"), alpha=0.1, draws=500)
    made = best_row(best, label=1, seed=7)
    assert (made["method"], made["candidate"], made["alpha"], made["draws"]) == ("best", "fixed", 0.1, 500)
    assert (made["correct"], made["arithmetic"]) == (1, "lattice 0.0625")
