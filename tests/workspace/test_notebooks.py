"""Every notebook runs top to bottom through papermill, in pipeline order, on a small profile."""

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
import papermill
import pytest
from stages import EXPERIMENTS, FOR_PEOPLE, LAST, ROOT, compute, parameters, run, write_parameters

from ancer.workspace.experiment import FILES, Experiment
from ancer.workspace.stages.certify import certify_images
from ancer.workspace.tables.certified import ALONE
from ancer.workspace.tables.intervals import interval_table

NAME = "digits-l2-025"
pytestmark = pytest.mark.slow


def test_all_notebooks_run_without_a_warning_a_time_or_a_random_id(executed):
    stages = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} - FOR_PEOPLE
    assert {key if isinstance(key, str) else key[0] for key in executed} == stages
    for path in executed.values():
        notebook = nbformat.read(path, as_version=4)
        ids = [f"cell-{k}" for k in range(len(notebook.cells))]
        assert [cell.id for cell in notebook.cells] == ids
        assert "papermill" not in notebook.metadata
        words = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        # formulas escaped once, not twice
        assert not [text for text in words if re.search(r"\\\\[a-z]{2}", text)]
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for output in [output for cell in code for output in cell.outputs]:
            assert output.output_type != "error" and output.get("name") != "stderr", output
            assert "s left" not in output.get("text", "")


def test_pipeline_makes_every_table_and_figure(profile, executed):
    results = profile / "results"
    of_rows = [f"tables/{name}" for name in ("T1", "T1-each-sigma", "T2", "T2-each-sigma")]
    for table in (*of_rows, "tables/T3", "tables/T6", "tables/T8", "coverage/T5", "coverage/T7"):
        for kind in ("md", "csv", "tex"):
            assert (results / f"{table}.{kind}").stat().st_size > 100
    of_experiment = [f"{figure}-{name}" for figure in ("F2", "F5") for name in EXPERIMENTS]
    names = [f"figures/{name}" for name in ["F3", "F4", "F7", "F10", *of_experiment]]
    names += [f"coverage/{figure}-{name}" for figure in ("F8", "F9") for name in EXPERIMENTS]
    names += ["toy/F1", "toy/F6"]
    names += [f"statistics/S{k}" for k in (1, 2, 3)]
    for figure in names:
        assert (results / f"{figure}.svg").exists()
        assert (results / f"{figure}.png").stat().st_size > 5000
    found = (results / "metrics/digits-l1-025").iterdir()
    metrics = {path.stem: json.loads(path.read_text()) for path in found}
    methods = {"fixed"}
    chosen = ("isotropic", "anisotropic", "best", "isotropic-paper", "anisotropic-paper")
    for method in chosen:
        methods |= {method, f"{method}-with-memory"}
    assert set(metrics) == methods
    assert all(of_one["ACR"] <= of_one["AC-proxy-R"] + 1e-12 for of_one in metrics.values())
    assert (results / "tables/T1.md").read_text().count("published: x") == 1
    T1 = pd.read_csv(results / "tables/T1.csv").set_index(["method", "answer"])
    assert T1.loc[("ANCER (paper)", "certificate alone"), "images"] == 2
    assert T1.loc[("Fixed sigma", "certificate alone"), "images"] == 6
    assert "published" not in (results / "tables/T2.md").read_text()
    ablation = pd.read_csv(results / "ablations/ablations.csv")
    assert ablation["setting"].tolist() == ["draws 10, iterations 2", "draws 2, kappa 0.0"]
    assert len(pd.read_csv(results / f"ablations/{NAME}.csv")) == 6
    rows = pd.read_csv(results / f"rows/{NAME}.csv")
    assert len(rows) == 40 and rows.notna().all().all()
    assert (rows["in_box_proxy_radius"] <= rows["proxy_radius"] + 1e-12).all()
    assert (rows["radius"] <= rows["proxy_radius"] + 1e-12).all()


def test_running_again_gives_the_same_bytes(profile, executed):
    """By papermill once more, and without it: the same files."""
    files = [path for path in profile.rglob("*") if path.is_file() and "timing" not in path.parts]
    # lines and parts hold seconds
    outputs = [path for path in files if not re.search(r"\.jsonl$|\.parts/", str(path))]
    before = {path: path.read_bytes() for path in outputs}
    shutil.rmtree(profile / "results")
    (profile / FILES["theta"].format(name=NAME)).unlink()
    (parts,) = (profile / "data/theta").glob(f"{NAME}.*.parts")
    shutil.rmtree(parts)
    for stage in ("optimize", "certify"):
        run(profile, stage, experiment=NAME)
    compute(profile, "certify", experiment="digits-l1-025")
    for experiment in EXPERIMENTS:
        compute(profile, "memory", experiment=experiment)
    compute(profile, "toy")
    for stage in LAST:
        compute(profile, stage)
    after = {path: path.read_bytes() for path in before}
    assert [path.name for path in before if before[path] != after[path]] == []


def test_killed_certification_resumes_to_the_same_bytes(profile, executed):
    """SIGKILL to the process group of papermill half-way; the kernel dies with it."""
    rows = f"results/rows/{NAME}.csv"
    whole = (profile / rows).read_bytes()
    slow = profile.parent / "killed"
    shutil.copytree(profile, slow)
    shutil.rmtree(slow / "results")
    p = parameters(profile)
    p["certify"]["n"] = 20_000  # long enough to be killed in the middle
    write_parameters(slow, p)
    command = [sys.executable, "-m", "papermill", "--engine", "ancer"]
    command += [str(ROOT / "notebooks/certify.ipynb"), str(slow / "out.ipynb")]
    command += ["-p", "experiment", NAME]
    quiet = {"cwd": slow, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, start_new_session=True, **quiet)
    deadline = time.monotonic() + 120
    while not _finished_rows(slow) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = _finished_rows(slow)
    assert 0 < kept < 28, "the kill came too late to test anything"
    subprocess.run(command, check=True, **quiet)
    resumed = (slow / rows).read_bytes()
    shutil.rmtree(slow / "results")
    compute(slow, "certify", experiment=NAME)
    assert resumed == (slow / rows).read_bytes()
    assert resumed != whole  # a changed parameter (n) reuses no row


def _finished_rows(folder):
    lines = (folder / "results/rows").glob("*.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in lines)


def test_what_a_cell_prints_is_one_output(tmp_path):
    """A busy machine's kernel sends it in pieces; the executed notebook has the same bytes."""
    source = "import time\nprint('a', flush=True)\ntime.sleep(1)\nprint('b', flush=True)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(notebook, tmp_path / "in.ipynb")
    papermill.execute_notebook(
        tmp_path / "in.ipynb", tmp_path / "out.ipynb", engine_name="ancer", kernel_name="python3"
    )
    (cell,) = nbformat.read(tmp_path / "out.ipynb", 4).cells
    assert [output.text for output in cell.outputs] == ["a\nb\n"]


def test_several_seeds_repeat_certification_and_others_use_the_first(profile, executed, tmp_path):
    """Rows of the first seed are reused; T6 shows how far ACR moves with the others."""
    repeated = tmp_path / "repeated"
    shutil.copytree(profile, repeated)
    p = parameters(profile)
    p["certify"]["seeds"] = 2
    write_parameters(repeated, p)
    once = Experiment.open(NAME, profile=profile)
    twice = Experiment.open(NAME, profile=repeated)
    lines = next((repeated / "results/rows").glob(f"{NAME}.*.jsonl"))
    before = lines.read_bytes()
    certify_images(twice)
    assert lines.read_bytes().startswith(before)
    pd.testing.assert_frame_equal(twice.rows(), once.rows())
    both = twice.all_rows()
    bounds = {}
    for seed, rows in both.groupby("seed"):
        bounds[seed] = rows["p_a_lower"].to_numpy()
        assert len(rows) == len(once.rows())
    assert list(bounds) == [0, 1] and (bounds[0] != bounds[1]).any()
    table = interval_table({NAME: twice}, {NAME: twice.rows().assign(answer=ALONE)})
    assert (table["seeds"] == 2).all() and (table["its standard deviation"] > 0).any()
    assert "seeds" not in interval_table({NAME: once}, {NAME: once.rows().assign(answer=ALONE)})


def test_overrides_leave_the_profiles_results_alone(profile, executed):
    rows = f"results/rows/{NAME}.csv"
    before = (profile / rows).read_bytes()
    compute(profile, "certify", experiment=NAME, images=2, n=100)
    assert (profile / rows).read_bytes() == before
    assert len(pd.read_csv(profile / ".build/trial/images=2,n=100" / rows)) == 16


def test_by_hand_the_profiles_results_stay_and_nothing_is_made_twice(profile, executed):
    """Without the pipeline's engine, as JupyterLab runs a notebook."""
    (profile / f"results/rows/{NAME}.csv").touch()
    before = {path: path.stat().st_mtime_ns for path in (profile / "results").rglob("*.*")}
    compute(profile, "certify", experiment=NAME, output=None)
    made = profile / ".build/hand/results/rows"
    for path in (profile / "results/rows").glob(f"{NAME}.*"):
        assert (made / path.name).read_bytes() == path.read_bytes()  # no line was added
    assert not list(made.glob("digits-l1*"))
    compute(profile, "memory", experiment=NAME, output=None)
    after = {path: path.stat().st_mtime_ns for path in (profile / "results").rglob("*.*")}
    assert after == before
    compute(profile, "memory", experiment=NAME, output="results")
    answers = profile / f"results/memory/{NAME}.csv"
    assert answers.stat().st_mtime_ns > before[answers]
    with pytest.raises(Exception, match="output must be \"results\" or None .*, found 'result'"):
        compute(profile, "memory", experiment=NAME, output="result")
    shutil.rmtree(profile / ".build/hand")


def test_bad_parameters_of_papermill_are_named(profile):
    with pytest.raises(Exception, match="no parameter 'experimnet': did you mean 'experiment'"):
        run(profile, "optimize", experimnet=NAME)
    with pytest.raises(Exception, match="unknown experiment 'digits-l3'"):
        compute(profile, "optimize", experiment="digits-l3")
    message = "digits has 359 test images with every = 1, found images = 100000"
    with pytest.raises(Exception, match=message):
        compute(profile, "optimize", images=100_000)


def test_stages_before_their_inputs_say_what_to_run(profile, executed, tmp_path):
    shutil.copy(profile / "params.yaml", tmp_path)
    with pytest.raises(Exception, match="no checkpoint at .*: run the train stage"):
        compute(tmp_path, "optimize")
    shutil.copytree(profile / "data/checkpoints", tmp_path / "data/checkpoints")
    with pytest.raises(Exception, match="no theta at .*: run the optimize stage"):
        compute(tmp_path, "certify")
    with pytest.raises(Exception, match="no .*rows.*: run the certify notebook"):
        compute(tmp_path, "figures")
