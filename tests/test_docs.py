"""Every Python block of the documentation runs, and gives what the page says it gives."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
import torch
from stages import ROOT
from torch import nn

import ancer

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.M | re.S)
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text())]
NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")


def a_readers_own(size: int) -> dict[str, object]:
    """What the pages take as given: a model, four pictures, and what came before."""
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(256, (4, 3, size, size), generator=stream) / 255
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 4))
    x = images[:2]
    return {
        "ancer": ancer,
        "model": model,
        "images": images,
        "labels": torch.tensor([0, 1, 2, 3]),
        "x": x,
        "f": ancer.Classifier(model),
        "noise": ancer.GaussianNoise(0.25),
        "isotropic": torch.full((2,), 0.3),
        "theta": torch.full_like(x, 0.3),
    }


def words(text: str) -> list[str]:
    """A text without its numbers, which differ between machines, and without its spaces."""
    return NUMBER.sub("#", text).replace("-", " ").split()


def run_block(code: str, names: dict[str, object]) -> str:
    """What a block shows: its last expression."""
    *before, last = ast.parse(code).body
    if not isinstance(last, ast.Expr):
        exec(code, names)
        return ""
    exec(compile(ast.Module(before, []), "<block>", "exec"), names)
    return str(eval(compile(ast.Expression(last.value), "<block>", "eval"), names))


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_code_blocks_run_and_give_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    names = a_readers_own(64 if page.stem == "own-model" else 32)
    blocks = BLOCK.findall(page.read_text())
    for code, expected in blocks:
        few = code.replace("100_000", "1_000").replace("10_000", "1_000")
        with torch.random.fork_rng():
            said = run_block(few.replace("epochs=80", "epochs=2"), names)
        if expected:
            assert words(said) == words(expected), f"{page.name} says\n{expected}, found\n{said}"


def test_every_public_name_is_in_the_reference():
    page = (ROOT / "docs/reference.md").read_text()
    listed = re.findall(r"^\.\. auto\w+:: ancer\.(\w+)$", page, re.M)
    assert sorted(listed) == sorted(name for name in ancer.__all__ if name != "__version__")


def test_every_page_is_in_the_contents():
    index = (ROOT / "docs/index.md").read_text()
    listed = set(re.findall(r"^([\w./*-]+)$", index, re.M))
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index", "README"}
    assert pages <= listed
    assert all(list(Path(ROOT / "docs").glob(f"{name}.*")) for name in listed if "/" not in name)


@pytest.mark.slow
def test_the_pages_are_made_without_a_warning_and_read_nothing_from_a_network(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going"]
    command += ["-c", "docs", "-D", "nb_execution_mode=off", ".", str(tmp_path)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not made.returncode, made.stderr
    for page in tmp_path.rglob("*.html"):
        fetched = re.findall(
            r"<(?:script|link|img)[^>]*?(?:src|href)=\"(https?://[^\"]+)", page.read_text()
        )
        assert not fetched, (page, fetched)
    assert "<math" in (tmp_path / "results/notebooks/toy.html").read_text()
