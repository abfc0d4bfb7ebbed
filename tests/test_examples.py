"""The examples of docstrings run and give what they say."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import ancer

PACKAGE = Path(ancer.__file__).parent


def module_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(("ancer", *[part for part in parts if part != "__init__"]))


MODULES = [module_of(path) for path in sorted(PACKAGE.rglob("*.py"))]
# the explorer needs its widgets, and a browser
MODULES = [name for name in MODULES if not name.startswith("ancer.workspace.explorer")]


def examples_of(name):
    """The docstrings of a module that hold examples."""
    found = doctest.DocTestFinder().find(importlib.import_module(name), name)
    return [test for test in found if test.examples]


EXAMPLES = [test for name in MODULES for test in examples_of(name)]


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_example(test, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    public = {name: getattr(ancer, name) for name in ancer.__all__}
    test = doctest.DocTest(
        test.examples,
        {"torch": torch, "nn": nn, "ancer": ancer, **public, **test.globs},
        test.name,
        test.filename,
        test.lineno,
        test.docstring,
    )
    said = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        results = runner.run(test, out=said.append)
    assert results.attempted and not results.failed, "".join(said)


def test_every_public_name_has_an_example():
    for name in ancer.__all__:
        if name not in ("__version__", "ABSTAIN"):
            assert ">>>" in getattr(ancer, name).__doc__, name


CALLABLES = [name for name in ancer.__all__ if callable(getattr(ancer, name))]
SECTIONS = ["Args", "Returns", "Guarantee", "Raises", "Example"]


def parts_of(docstring):
    """What stands under each heading."""
    parts = re.split(r"^(\w+):\n", docstring, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", CALLABLES)
def test_every_public_docstring_says_each_argument(name):
    parts = parts_of(inspect.getdoc(getattr(ancer, name)))
    assert list(parts) == [section for section in SECTIONS if section in parts]
    if inspect.isfunction(getattr(ancer, name)):
        assert "Returns" in parts
    if name == "Recipe":  # each field of it has a docstring of its own
        return
    said = re.findall(r"^ {4}(\w[\w, ]*):", parts["Args"], flags=re.MULTILINE)
    named = {argument for line in said for argument in line.split(", ")}
    assert named == set(inspect.signature(getattr(ancer, name)).parameters)
