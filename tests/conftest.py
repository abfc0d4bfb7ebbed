"""A small profile on which the whole pipeline has run, for tests of its results."""

import pytest
from stages import EXPERIMENTS, LAST, STAGES, run, small


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
