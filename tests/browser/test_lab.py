"""JupyterLab as people use it: every notebook opened and run from the menu, stopped, run again."""

import shutil

import pandas as pd
import pytest
from stages import ROOT, parameters, write_parameters

pytestmark = pytest.mark.slow


def test_lab_opens_on_the_index(browser, lab):
    page = browser.new_page()
    page.goto(f"{lab.address}?token=t", timeout=60_000)
    page.wait_for_selector(
        ".jp-Notebook h1:visible:has-text('certified robustness')", timeout=60_000
    )
    assert page.url.endswith("/lab/tree/notebooks/index.ipynb")
    page.wait_for_timeout(3000)
    assert not page.locator("text=Jupyter news").count()  # nobody is asked about news
    # its links open the notebooks
    page.locator(".jp-RenderedMarkdown a:visible", has_text="certify").first.click()
    page.wait_for_selector(".jp-Notebook h1:has-text('Certify')", timeout=60_000)
    page.close()


def test_every_notebook_runs_from_the_menu(ran):
    assert set(ran) | {"explore"} == {p.stem for p in (ROOT / "notebooks").glob("*.ipynb")}
    for name, (notebook, foreign) in ran.items():
        cells = [c for c in notebook.cells if c.cell_type == "code"]
        assert all(c.execution_count for c in cells), name
        outputs = [output for cell in cells for output in cell.outputs]
        for output in outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", (name, output)
        assert not foreign, (name, foreign)


def test_a_kernel_that_is_stopped_loses_nothing(ran, lab, opened):
    p = parameters(lab.folder)
    slow = {
        **p,
        "images": 30,
        "certify": {**p["certify"], "n": 10_000},
        "tasks": {"optimize": 31, "certify": 3},
    }
    write_parameters(lab.folder, slow)
    results = lab.folder / "results"
    kept = lab.folder / "kept"
    shutil.copytree(results, kept)
    notebook = opened("optimize")
    notebook.run()
    notebook.close()
    notebook = opened("certify")
    before = set((results / "rows").glob("*.jsonl"))
    notebook.menu("Run", "Run All Cells")
    new = []
    while not new or new[0].read_bytes().count(b"\n") < 6:
        notebook.page.wait_for_timeout(20)
        new = [path for path in (results / "rows").glob("*.jsonl") if path not in before]
    progress = notebook.page.locator(".jp-OutputArea-output", has_text="of 30 images").first
    progress.wait_for(timeout=120_000)  # what a user sees while it runs
    notebook.menu("Kernel", "Interrupt Kernel")
    notebook.wait(idle=True)
    notebook.page.wait_for_timeout(500)
    outputs = [output for cell in notebook.saved().cells for output in cell.get("outputs", [])]
    stopped = [output.ename for output in outputs if output.output_type == "error"]
    lines = new[0].read_bytes()
    methods = [m for m in p["methods"] if not m.endswith("-paper")]
    expected = 30 * len(methods) + 2 * 2  # of the paper's two optimizers two images each
    assert stopped == ["KeyboardInterrupt"] and 6 <= lines.count(b"\n") < expected
    notebook.run()
    assert new[0].read_bytes().startswith(lines[: lines.rfind(b"\n") + 1])
    assert len(pd.read_csv(results / "rows/digits-l2-025.csv")) == expected
    notebook.close()
    write_parameters(lab.folder, p)
    shutil.rmtree(results)
    kept.rename(results)
    for stage in ("optimize", "certify"):  # what is finished is found again
        notebook = opened(stage)
        notebook.run()
        notebook.close()
