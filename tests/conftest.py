"""A small profile on which the whole pipeline has run, for tests of its results."""

import pytest
from stages import EXPERIMENTS, LAST, STAGES, run, small


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """What stays on one worker of pytest-xdist: a file, and all that the pipeline's runs serve."""
    for item in items:
        runs = {"executed", "lab", "browser"} & set(item.fixturenames)
        item.add_marker(pytest.mark.xdist_group("pipeline" if runs else item.path.stem))


@pytest.fixture(scope="session")
def profile(tmp_path_factory):
    return small(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="session")
def executed(profile):
    """All stages in order; name -> executed notebook."""
    done = {"toy": run(profile, "toy")}
    for stage in STAGES:
        for experiment in EXPERIMENTS:
            done[stage, experiment] = run(profile, stage, experiment=experiment)
    return {**done, **{stage: run(profile, stage) for stage in LAST}}
