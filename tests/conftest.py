"""A small profile on which the whole pipeline has run, for tests of its results.

With several workers (pytest -n) each file is one worker's, and so are all tests of that profile and
all of one JupyterLab: what is costly is made once. What takes longest begins first, so that no
worker is left alone with it.
"""

import re
from functools import cache

import pytest
from stages import EXPERIMENTS, LAST, ROOT, STAGES, compute, run, small
from xdist.scheduler import LoadScopeScheduling

LONG = [
    "browser",
    "pipeline",
    "tests/workspace/test_kills.py",
    "tests/workspace/test_bases_pipeline.py",
    "tests/workspace/test_profiles.py",
]


@pytest.fixture(scope="session")
def profile(tmp_path_factory):
    return small(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="session")
def executed(profile):
    """All stages in order; name -> executed notebook, of the first experiment."""
    done = {"toy": run(profile, "toy")}
    first, second = EXPERIMENTS
    for stage in STAGES:
        done[stage, first] = run(profile, stage, experiment=first)
        compute(profile, stage, experiment=second)
    return {**done, **{stage: run(profile, stage) for stage in LAST}}


@cache
def group_of(file):
    """The files that one worker runs together with this one: its own name where it stands alone."""
    if file.startswith("tests/browser/"):
        return "browser"
    takes_all_stages = re.search(r"def \w+\([^)]*\bexecuted\b", (ROOT / file).read_text())
    return "pipeline" if takes_all_stages else file


class ByGroup(LoadScopeScheduling):
    """Gives tests to workers by groups of files."""

    def _split_scope(self, nodeid):
        return group_of(nodeid.split("::")[0])


def pytest_xdist_make_scheduler(config, log):
    return ByGroup(config, log)


def pytest_collection_modifyitems(config, items):
    """The longest groups come first."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: group_of(item.location[0]) not in LONG)
