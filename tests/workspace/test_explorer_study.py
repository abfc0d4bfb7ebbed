"""What the explorer shows agrees with the rows, the regions and the memory."""

import math
import shutil
import threading

import pytest
import torch
from stages import EXPERIMENTS

from ancer.workspace.explorer.images import Explorer
from ancer.workspace.explorer.moons import Moons
from ancer.workspace.explorer.study import DIRECTIONS, Study
from ancer.workspace.store.rows import read_rows

pytestmark = pytest.mark.slow
EXPERIMENT = pytest.mark.parametrize("name", EXPERIMENTS)
NAME = "digits-l2-025"
METHODS = ("fixed", "isotropic", "anisotropic", "best")
IN_COSINES = ("shaped", "one-theta")


@EXPERIMENT
def test_regions_are_those_of_the_rows(profile, executed, name):
    study = Study(name, profile=profile)
    rows = read_rows(profile / f"results/rows/{name}.csv")
    for k in range(6):
        look = study.look(k)
        of_image = rows[rows["idx"] == study.data.indices[k]]
        paper = ("isotropic-paper", "anisotropic-paper")  # of the first two images alone
        ours = [*METHODS, *(paper if k < 2 else ())]
        assert [m for m in look.regions if m not in IN_COSINES] == ours
        assert (set(IN_COSINES) <= set(look.regions)) == (name == NAME)  # l2 alone
        for method, region in look.regions.items():
            (row,) = of_image[of_image["method"] == method].to_dict("records")
            assert (region is None) == (row["prediction"] == -1)
            if region is not None:
                assert region.radius == pytest.approx(row["radius"], rel=1e-9)
                assert region.proxy_radius == pytest.approx(row["proxy_radius"], rel=1e-9)


@EXPERIMENT
@pytest.mark.parametrize("kind", DIRECTIONS)
def test_reach_is_where_the_region_ends(profile, executed, name, kind):
    study = Study(name, profile=profile)
    for k in range(6):
        look = study.look(k)
        u = look.direction(kind, "anisotropic", other=(k + 1) % 6)
        assert u.flatten().norm(p=study.law.norm).item() == pytest.approx(1)
        for method in METHODS:
            reach = look.reach(method, u)
            if 0 < reach < math.inf:
                assert look.scaled_size(method, look.moved(u, 0.999 * reach)) < 1
                assert look.scaled_size(method, look.moved(u, 1.001 * reach)) > 1 - 1e-6
                assert reach < look.limit(u)
            elif reach == math.inf:  # pixels end at 0 and 1 before the region does
                assert look.scaled_size(method, look.moved(u, 1e9)) < 1
            else:
                assert look.regions[method] is None
            assert 0 <= look.moved(u, 5.0).min() and look.moved(u, 5.0).max() <= 1


def test_families_reach_as_far_as_their_region_covers(profile, executed):
    """On their grid: the covered severity lies inside; the slider goes on to one that does not."""
    look = Study(NAME, profile=profile).look(2)
    assert "blur" in look.study.families and "hue" not in look.study.families
    ended = 0
    for kind, family in look.study.families.items():
        assert look.direction(kind, "anisotropic") is family
        assert torch.equal(look.moved(family, 0.0), look.x)
        for method in METHODS:
            reach = look.reach(method, family)
            if 0 < reach < math.inf:
                assert look.scaled_size(method, look.moved(family, reach)) < 1 + 1e-6
                assert reach < look.limit(family) <= family.severities[-1]
                ended += 1
    assert ended > 5


def test_inside_a_region_the_smoothed_network_keeps_its_class(profile, executed):
    """The promise, at half the way to the end of the region in each direction.

    (A batch of votes errs near its end.)
    """
    study = Study(NAME, profile=profile)
    tried = 0
    for k in range(6):
        look = study.look(k)
        for kind in DIRECTIONS:
            u = look.direction(kind, "isotropic", other=(k + 1) % 6)
            for method in METHODS:
                reach = look.reach(method, u)
                if reach > 0:
                    half = min(reach, look.limit(u)) / 2
                    votes = look.votes(method, look.moved(u, half))
                    assert votes.argmax() == look.rows[method]["prediction"]
                    tried += 1
    assert tried > 60


def test_gradient_lowers_the_margin(profile, executed):
    look = Study(NAME, profile=profile).look(2)
    u = look.direction("gradient", "fixed")
    before = look.network(look.moved(u, 0.0))
    after = look.network(look.moved(u, 0.3))
    assert after[before.argmax()] < before.max()


def test_what_is_no_direction_is_said(profile, executed):
    look = Study(NAME, profile=profile).look(2)
    message = "no direction towards 'another image' here: choose another image"
    with pytest.raises(ValueError, match=message):
        look.direction("another image", "fixed", other=2)
    with pytest.raises(ValueError, match="must be one of random, gradient, .* found 'up'"):
        look.direction("up", "fixed")


def test_moons_answer_through_their_memory(profile, executed):
    moons = Moons(profile=profile)
    assert moons.landscape(2, 5).shape == (5, 5)
    for norm in (1, 2):
        certificate = moons.certify(norm, torch.tensor([[0.5, 0.3]]))["anisotropic"][0]
        others, answer = moons.answers(norm, certificate)
        assert len(others) == 12
        assert answer.event in ("kept", "shrunk", "point", "inherited", "abstained")
        again = moons.answers(norm, certificate)[1]  # asking stores nothing
        assert (again.prediction, again.event) == (answer.prediction, answer.event)
        assert again.conflicts == answer.conflicts


def test_a_control_moved_while_another_is_at_work_waits(profile, executed):
    """JupyterLab tells a kernel of two controls in two threads: none is lost."""
    explorer = Explorer(profile)
    working, finish = threading.Event(), threading.Event()
    move = explorer._move

    def slowly():
        working.set()
        assert finish.wait(60)
        move()

    explorer._move = slowly
    first = threading.Thread(target=setattr, args=(explorer.method, "value", "fixed"))
    first.start()
    assert working.wait(60)
    second = threading.Thread(target=setattr, args=(explorer.direction, "value", "gradient"))
    second.start()
    second.join(0.2)
    finish.set()
    first.join(60)
    second.join(60)
    look = explorer._study.look(0)
    assert torch.equal(explorer._u, look.direction("gradient", "fixed"))
    explorer._move = move
    explorer.direction.value = "random"  # and goes on
    assert torch.equal(explorer._u, look.direction("random", "fixed"))


def test_before_the_stages_it_says_what_to_run(profile, tmp_path):
    (tmp_path / "params.yaml").write_bytes((profile / "params.yaml").read_bytes())
    with pytest.raises(FileNotFoundError, match="no .*rows.*: run the certify notebook"):
        Study(NAME, profile=tmp_path)
    message = r"no network at .*: run the toy stage \(dvc repro toy\) first"
    with pytest.raises(FileNotFoundError, match=message):
        Moons(profile=tmp_path)


def test_images_are_filtered_as_the_rows_say(profile, executed):
    explorer = Explorer(profile)
    rows = read_rows(profile / f"results/rows/{NAME}.csv")
    for method in ("fixed", "isotropic-paper"):
        explorer.method.value = method
        of = rows[rows["method"] == method]
        numbers = {index: k for k, index in enumerate(explorer._study.data.indices)}
        wanted = {
            "all, in order": of["idx"],
            "abstains": of["idx"][of["prediction"] == -1],
            "wrong": of["idx"][(of["prediction"] != -1) & (of["correct"] == 0)],
            "largest regions first": of.sort_values("proxy_radius", ascending=False)["idx"],
        }
        for shown, indices in wanted.items():
            explorer.shown.value = shown
            found = [thumbnail["number"] for thumbnail in explorer.image.thumbnails]
            assert found == [numbers[index] for index in indices], (method, shown)
        explorer.shown.value = "all, in order"


def test_experiments_that_were_not_made_say_so(profile, executed, tmp_path):
    folder = tmp_path / "profile"
    shutil.copytree(profile, folder)
    (folder / f"results/rows/{EXPERIMENTS[1]}.csv").unlink()
    labels = [label for label, _ in Explorer(folder).experiment.options]
    assert labels == [NAME, f"{EXPERIMENTS[1]} (not made yet)"]
