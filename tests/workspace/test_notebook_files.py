"""The notebooks' files: stripped and short, parameters as stages pass them, the same each time."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import nbformat
import pytest
from jupyterlab_server.config import get_federated_extensions
from stages import ANCER, FOR_PEOPLE, ROOT, read_yaml
from traitlets.config import Config

from ancer.workspace import notebooks

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PIPELINE = read_yaml(ROOT / "dvc.yaml")["stages"]
STAGES = set(PIPELINE) - {"sources", "report"}  # which are no notebooks
TEST_NOTEBOOKS = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(path):
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def command(stage):
    """What runs a stage; nothing for notebooks that are for people alone."""
    if stage not in STAGES:
        return ""
    found = PIPELINE[stage].get("do", PIPELINE[stage])["cmd"]
    return found[0] if isinstance(found, list) else found


@pytest.fixture
def used(tmp_path):
    """A notebook as JupyterLab saves it after it was run."""
    path = tmp_path / "used.ipynb"
    notebook = nbformat.read(ROOT / "notebooks/toy.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.id = "x" + cell.id
        cell.metadata["collapsed"] = True
        if cell.cell_type == "code":
            cell.outputs = [nbformat.v4.new_output("stream", text="hello")]
            cell.execution_count = 3
    notebook.metadata["language_info"] = {"name": "python", "version": "3.12.1"}
    nbformat.write(notebook, path)
    return path


def test_there_is_a_notebook_for_each_stage():
    assert {path.stem for path in NOTEBOOKS} == STAGES | FOR_PEOPLE


@TEST_NOTEBOOKS
def test_notebook_is_stripped_short_and_defines_nothing(path):
    notebook = nbformat.read(path, as_version=4)
    committed = path.read_text()
    nbformat.validate(notebook)
    assert notebooks.stripped_text(committed) == committed
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) <= 12
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    for node in ast.walk(ast.parse(code(path))):
        defines = isinstance(node, ast.FunctionDef | ast.ClassDef)
        assert not defines, f"{path.name} defines {node.name}"


@TEST_NOTEBOOKS
def test_notebook_parameters_are_those_that_the_stage_passes(path):
    notebook = nbformat.read(path, as_version=4)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if path.stem == "quickstart":  # of no profile
        assert not tagged
        return
    (cell,) = tagged
    assignments = [node for node in ast.parse(cell.source).body if isinstance(node, ast.Assign)]
    names = {target.id for node in assignments for target in node.targets}
    passed = set(re.findall(r"-[pry] (\w+)", command(path.stem)))
    assert passed <= names and "profile" in names
    chosen_by_hand = path.stem == "bases"
    assert ("experiment" in passed or chosen_by_hand) == ("experiment" in names)
    # papermill infers no type where a comment holds one
    comments = [line.split("#", 1)[1] for line in cell.source.splitlines() if "#" in line]
    assert all("=" not in comment for comment in comments)


@TEST_NOTEBOOKS
def test_notebook_sees_the_parameters_of_its_own_stage(path):
    named = set(re.findall(r'stage="(\w+)"', code(path)))
    assert named == ({path.stem} if path.stem in STAGES else set())


def test_a_stripped_notebook_is_the_committed_one(used):
    assert notebooks.strip_file(used)
    assert used.read_bytes() == (ROOT / "notebooks/toy.ipynb").read_bytes()
    assert not notebooks.strip_file(used)


def test_what_is_no_notebook_is_not_stripped():
    with pytest.raises(ValueError, match="no notebook of format 4: open it in JupyterLab and save"):
        notebooks.stripped_text('{"nbformat": 3, "worksheets": []}')


def test_command_strips_and_says_whether_it_had_to(used, tmp_path):
    clean = tmp_path / "clean.ipynb"
    shutil.copy(ROOT / "notebooks/certify.ipynb", clean)
    arguments = [ANCER, "strip", str(used), str(clean)]
    first = subprocess.run(arguments, capture_output=True, text=True)
    assert (first.returncode, first.stdout) == (1, f"stripped {used}\n")
    second = subprocess.run(arguments, capture_output=True, text=True)
    assert (second.returncode, second.stdout) == (0, "")
    assert used.read_bytes() == (ROOT / "notebooks/toy.ipynb").read_bytes()
    assert clean.read_bytes() == (ROOT / "notebooks/certify.ipynb").read_bytes()


def test_a_run_of_a_notebook_is_no_difference_and_never_committed(used, tmp_path):
    """By the filter that `make` sets. (git status goes by the size of a file until it is added.)"""
    clone = tmp_path / "clone"
    git = ["git", "-C", str(clone)]
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    filtered = f"{shlex.quote(ANCER)} strip -"
    subprocess.run([*git, "config", "filter.notebooks.clean", filtered], check=True)
    shutil.copy(used, clone / "notebooks/toy.ipynb")
    assert not subprocess.run([*git, "diff", "--quiet"]).returncode
    subprocess.run([*git, "add", "-A"], check=True)
    status = [*git, "status", "--short"]
    assert not subprocess.run(status, check=True, capture_output=True, text=True).stdout
    makefile = (ROOT / "Makefile").read_text()
    assert "git config filter.notebooks.clean '.venv/bin/ancer strip -'" in makefile


def test_the_pipelines_kernels_are_not_spoken_to_over_a_network(tmp_path):
    cell = nbformat.v4.new_code_cell("get_ipython().kernel.parent.transport")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, tmp_path / "in.ipynb")
    command = [sys.executable, "-m", "papermill", "--engine", "ancer", "in.ipynb", "out.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "WARNING" not in done.stderr
    (output,) = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[0].outputs
    assert "ipc" in output.data["text/plain"]


def test_a_stripped_notebook_becomes_a_script(used):
    notebooks.strip_file(used)
    arguments = [sys.executable, "-m", "nbconvert", "--to", "script", str(used)]
    subprocess.run(arguments, check=True, capture_output=True)
    script = used.with_suffix(".py")
    assert script.is_file()
    ast.parse(script.read_text())
    assert "from ancer.workspace.stages.toy import train_moons" in script.read_text()


def test_progress_counts_images_and_says_how_long_all_took(capsys):
    yielded = []
    for chunk in notebooks.progress([[4, 9], [14]], "certify", 3):
        yielded.append(chunk)
    said = capsys.readouterr().out
    assert yielded == [[4, 9], [14]]
    assert re.search(r"certify: 2 of 3 images, [\d.]+ a second, \d+ s left", said)
    assert re.search(r"certify: done, 3 images in \d+ s, [\d.]+ a second\n$", said)
    items = [("a", 2), ("b", 3)]
    assert list(notebooks.progress(items, "x", 5, lambda item: item[1], "http://h")) == items
    said = capsys.readouterr().out
    assert "x: 2 of 5 images" in said and "s left, dashboard: http://h\n" in said
    assert re.search(r"x: done, 5 images in \d+ s, [\d.]+ a second\n$", said)


def test_epochs_are_reported_with_the_losses(capsys):
    losses = []
    report = notebooks.report_epochs(2, losses)
    report(1, 0.5)
    assert "epoch 1 of 2: loss 0.500" in capsys.readouterr().out
    report(2, 0.25)
    assert losses == [0.5, 0.25]
    assert re.search(r"train: done, 2 epochs in \d+ s, ", capsys.readouterr().out)


def test_the_pipeline_keeps_no_time_and_no_link_to_the_next_notebook():
    last = nbformat.v4.new_output("stream", text="certify: done, 3 images in 4 s, 0.8 a second\n")
    code = nbformat.v4.new_code_cell("certify()", outputs=[last])
    links = nbformat.v4.new_markdown_cell("next", metadata={"tags": ["remove-cell"]})
    (kept,) = notebooks.repeatable(nbformat.v4.new_notebook(cells=[code, links])).cells
    assert kept.outputs[0].text == "certify: done\n"


def test_notebooks_lead_to_each_other_in_the_order_of_the_index():
    table = nbformat.read(ROOT / "notebooks/index.ipynb", as_version=4).cells[1].source
    order = re.findall(r"\[\w+\]\((\w+)\.ipynb\)", table)
    for before, name, after in zip(["", *order], order, [*order[1:], ""], strict=False):
        links = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4).cells[-1].source
        assert re.findall(r"\((\w+)\.ipynb\)", links) == ["index", *filter(None, [before, after])]


@pytest.mark.parametrize("size, expected", [(2, [[0, 1], [2, 3], [4]]), (9, [[0, 1, 2, 3, 4]])])
def test_chunks_are_consecutive_and_at_most_so_long(size, expected):
    assert notebooks.chunked(list(range(5)), size) == expected
    assert notebooks.chunked([], size) == []


@pytest.mark.parametrize("folder", ["plain", "wä (x) [b] c*"])
def test_jupyterlab_finds_the_extensions_in_every_folder(tmp_path, monkeypatch, folder):
    """What draws widgets is found where the environment's name looks like a pattern too."""
    extensions = tmp_path / folder / "share/jupyter/labextensions"
    (extensions / "anywidget").mkdir(parents=True)
    about = {"name": "anywidget", "version": "1", "jupyterlab": {}}
    (extensions / "anywidget/package.json").write_text(json.dumps(about))
    config = Config()
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(sys, "prefix", str(tmp_path / folder))
    exec((ROOT / "jupyter_lab_config.py").read_text(), {"get_config": lambda: config})
    extra = config.LabApp.get("extra_labextensions_path", [])
    assert list(get_federated_extensions([*extra, str(extensions)])) == ["anywidget"]
