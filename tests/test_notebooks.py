"""Every notebook runs top to bottom through papermill, in pipeline order, on a small profile of its own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pandas as pd
import pytest
import yaml
from stages import LAST, ROOT, run

FOR_PEOPLE = {"explore", "index"}  # run in a browser: tests/browser
pytestmark = pytest.mark.slow


def test_all_notebooks_run_without_a_warning_a_time_or_a_random_id(executed):
    stages = {p.stem for p in (ROOT / "notebooks").glob("*")} - FOR_PEOPLE
    assert {k if isinstance(k, str) else k[0] for k in executed} == stages
    for path in executed.values():
        notebook = nbformat.read(path, as_version=4)
        assert [c.id for c in notebook.cells] == [f"cell-{k}" for k in range(len(notebook.cells))]
        assert "papermill" not in notebook.metadata
        words = [c.source for c in notebook.cells if c.cell_type == "markdown"]
        assert not [w for w in words if re.search(r"\\\\[a-z]{2}", w)]  # formulas escaped once, not twice
        for output in [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]:
            assert output.output_type != "error" and output.get("name") != "stderr", output
            assert "s left" not in output.get("text", "")


def test_pipeline_makes_every_table_and_figure(profile, executed):
    results = profile / "results"
    for table in ("T1", "T1-each-sigma", "T2", "T2-each-sigma", "T3"):
        for kind in ("md", "csv", "tex"):
            assert (results / "tables" / f"{table}.{kind}").stat().st_size > 100
    names = ["F3", "F4", "F7"] + [f"{f}-{e}" for f in ("F2", "F5") for e in ("digits-l2-0.25", "digits-l1-0.25")]
    names = [f"figures/{n}" for n in names] + ["toy/F1", "toy/F6"] + [f"statistics/S{k}" for k in (1, 2, 3)]
    for figure in names:
        assert (results / f"{figure}.svg").exists() and (results / f"{figure}.png").stat().st_size > 5000
    metrics = {f.stem: json.loads(f.read_text()) for f in (results / "metrics/digits-l1-0.25").iterdir()}
    methods = {
        "fixed",
        *(f"{m}{answer}" for m in ("isotropic", "anisotropic", "best") for answer in ("", "-with-memory")),
    }
    assert set(metrics) == methods and all(m["ACR"] <= m["AC-proxy-R"] + 1e-12 for m in metrics.values())
    assert (results / "tables/T1.md").read_text().count("published: x") == 1
    assert "published" not in (results / "tables/T2.md").read_text()
    ablation = pd.read_csv(results / "ablations/ablations.csv")
    assert ablation["setting"].tolist() == ["draws 10, iterations 2", "draws 2, kappa 0.0"]
    assert len(pd.read_csv(results / "ablations/digits-l2-0.25.csv")) == 6
    rows = pd.read_csv(results / "rows/digits-l2-0.25.csv")
    assert len(rows) == 24 and rows.notna().all().all()
    assert (rows["box_proxy_radius"] <= rows["proxy_radius"] + 1e-12).all()
    assert (rows["radius"] <= rows["proxy_radius"] + 1e-12).all()


def test_running_again_gives_the_same_bytes(profile, executed, tmp_path):
    outputs = [p for p in profile.rglob("*") if p.is_file() and "timing" not in p.parts]
    before = {p: p.read_bytes() for p in outputs if not re.search(r"\.jsonl$|\.parts/", str(p))}  # they hold seconds
    shutil.rmtree(profile / "results")
    (profile / "data/theta/digits-l2-0.25.safetensors").unlink()
    (parts,) = (profile / "data/theta").glob("digits-l2-0.25.*.parts")
    shutil.rmtree(parts)
    run(profile, "optimize", experiment="digits-l2-0.25")
    for experiment in ("digits-l2-0.25", "digits-l1-0.25"):
        run(profile, "certify", experiment=experiment)
        run(profile, "memory", experiment=experiment)
    run(profile, "toy")
    for stage in LAST:
        run(profile, stage)
    after = {p: p.read_bytes() for p in before}
    assert [p.name for p in before if before[p] != after[p]] == []


def test_killed_certification_resumes_to_the_same_bytes(profile, executed):
    """SIGKILL to the process group of papermill half-way; the kernel dies with it."""
    rows = profile / "results/rows/digits-l2-0.25.csv"
    whole = rows.read_bytes()
    p = yaml.safe_load((profile / "params.yaml").read_text())
    slow = profile.parent / "killed"
    shutil.copytree(profile, slow)
    shutil.rmtree(slow / "results")
    p["certify"]["n"] = 20_000  # long enough to be killed in the middle
    (slow / "params.yaml").write_text(yaml.safe_dump(p))
    command = [sys.executable, "-m", "papermill", "--engine", "ancer", str(ROOT / "notebooks/certify.ipynb")]
    command += [str(slow / "out.ipynb"), "-p", "experiment", "digits-l2-0.25"]
    process = subprocess.Popen(command, cwd=slow, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not _finished_rows(slow) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = _finished_rows(slow)
    assert 0 < kept < 24, "the kill came too late to test anything"
    subprocess.run(command, cwd=slow, check=True, stderr=subprocess.DEVNULL)
    resumed = (slow / "results/rows/digits-l2-0.25.csv").read_bytes()
    shutil.rmtree(slow / "results")
    subprocess.run(command, cwd=slow, check=True, stderr=subprocess.DEVNULL)
    assert resumed == (slow / "results/rows/digits-l2-0.25.csv").read_bytes()
    assert resumed != whole  # a changed parameter (n) reuses no row


def _finished_rows(folder):
    return sum(p.read_bytes().count(b"\n") for p in (folder / "results/rows").glob("*.jsonl"))


def test_overrides_leave_the_profiles_results_alone(profile, executed):
    before = (profile / "results/rows/digits-l2-0.25.csv").read_bytes()
    run(profile, "certify", experiment="digits-l2-0.25", images=2, n=100)
    assert (profile / "results/rows/digits-l2-0.25.csv").read_bytes() == before
    assert len(pd.read_csv(profile / ".build/trial/results/rows/digits-l2-0.25.csv")) == 8


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"experiment": "digits-l3"}, "unknown experiment 'digits-l3'"),
        ({"experimnet": "digits-l2-0.25"}, "unknown parameter -p experimnet"),
        ({"images": 100_000}, "digits has 359 test images with every = 1, found images = 100000"),
    ],
)
def test_bad_parameters_of_papermill_are_named(profile, parameters, message):
    with pytest.raises(Exception, match=message):
        run(profile, "optimize", **parameters)


def test_stages_before_their_inputs_say_what_to_run(profile, executed, tmp_path):
    shutil.copy(profile / "params.yaml", tmp_path)
    with pytest.raises(Exception, match="no checkpoint at .*: run the train stage"):
        run(tmp_path, "optimize")
    shutil.copytree(profile / "data/checkpoints", tmp_path / "data/checkpoints")
    with pytest.raises(Exception, match="no theta at .*: run the optimize stage"):
        run(tmp_path, "certify")
    with pytest.raises(Exception, match="no rows at .*: run the certify stage"):
        run(tmp_path, "figures")
