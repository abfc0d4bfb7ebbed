"""What is one's own - method, network, data - needs no edit of the library; trials of any value."""

import re
import shutil
import subprocess
import sys
import textwrap

import nbformat
import pandas as pd
import papermill
import pytest
import torch
from stages import ANCER, ROOT, compute, parameters, read_yaml, small, write_parameters
from torch import nn

from ancer.workspace.experiment import Experiment, Profile
from ancer.workspace.imports import PACKAGE
from ancer.workspace.methods import check_parameters, methods_of
from ancer.workspace.parameters.reading import OVERRIDES
from ancer.workspace.parameters.sections import rules_of

NAME = "digits-l2-025"
EVERY = ("images", "n", "alpha", "seed", "methods", "stop", "exact")
OWN = {
    "__init__.py": "",
    "methods.py": """
        import torch

        def grown(classifier, x, noise, *, seed, indices, strength=1.0):
            \"\"\"The start, larger.\"\"\"
            theta = noise.theta_for(x).flatten(1)[:, 0]
            return theta * strength
    """,
    "networks.py": """
        from torch import nn

        def build(classes):
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, classes))
    """,
    "data.py": """
        import torch
        from sklearn.datasets import load_digits
        from ancer.datasets.dataset import Split

        def halves(split, folder):
            \"\"\"Digits below and above 5.\"\"\"
            digits = load_digits()
            index = torch.arange(len(digits.target))[0 if split == "train" else 1 :: 2]
            images = torch.tensor(digits.images).float()[:, None] / 16
            labels = torch.tensor(digits.target >= 5).long()[index]
            read = lambda chosen: images[index[chosen]]
            return Split(labels, index, ["small", "large"], 1 / 16, read)
    """,
}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder outside the repository with a package and a profile of one's own."""
    folder = small(tmp_path_factory.mktemp("mine"), experiments=[NAME])
    package = folder / "own_package"
    package.mkdir()
    for name, text in OWN.items():
        (package / name).write_text(textwrap.dedent(text))
    p = parameters(folder)
    own_experiment = {
        "dataset": "own_package.data:halves",
        "arch": "own_package.networks:build",
        "methods": ["plain", "larger"],
    }
    p["experiments"] = {"mine": p["experiments"][NAME] | own_experiment}
    p["methods"] = {
        "plain": {"label": "Plain"},
        "larger": {
            "label": "Larger (ours)",
            "theta": "own_package.methods.grown",
            "start": "plain",
            "strength": 1.25,
        },
    }
    p["toy"]["methods"] = ["plain"]
    p["volumes"] = {"of": "larger", "against": ["plain"]}
    p["figures"] |= {"ball": "plain", "region": "larger"}
    p["statistics"]["method"] = "larger"
    p["coverage"]["methods"] = ["plain", "larger"]
    p["ablations"] = {"experiments": []}
    p["published"] = []
    return write_parameters(folder, p)


@pytest.mark.slow
def test_method_network_and_data_of_ones_own_reach_the_tables(own):
    for stage in ("train", "optimize", "certify", "memory"):
        compute(own, stage, experiment="mine")
    for stage in ("volumes", "tables", "figures"):
        compute(own, stage)
    table = pd.read_csv(own / "results/tables/T1.csv")
    assert set(table["method"]) == {"Plain", "Larger (ours)"}
    rows = pd.read_csv(own / "results/rows/mine.csv").set_index("method")
    ratio = rows.loc["larger", "theta_min"].mean() / rows.loc["plain", "theta_min"].mean()
    assert ratio == pytest.approx(1.25, rel=1e-6)
    assert set(rows["label"]) <= {0, 1}


@pytest.mark.slow
def test_a_file_of_weights_takes_the_place_of_training(own, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(own, folder, ignore=shutil.ignore_patterns(".build", "results", "data"))
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 7}, folder / "net.pt")
    p = parameters(folder)
    p["train"]["theirs"] = {"scheme": "weights", "normalize": "none"}
    p["experiments"]["mine"] |= {"training": "theirs", "options": {"file": "net.pt"}}
    write_parameters(folder, p)
    for stage in ("train", "optimize", "certify"):
        compute(folder, stage, experiment="mine")
    module = Experiment.open("mine", profile=folder).network()
    ours = {name.removeprefix("net."): tensor for name, tensor in module.state_dict().items()}
    for name, tensor in network.state_dict().items():
        assert torch.equal(ours[name], tensor)
    p["experiments"]["mine"]["options"] = {}
    with pytest.raises(ValueError, match="experiments.mine.options: must name the file"):
        Profile.open(write_parameters(folder, p))


@pytest.mark.parametrize(
    "section, value, message",
    [
        ("arch", "torchvision:resnet18", None),
        ("arch", "torchvision:resnet19", "no classifier 'resnet19': did you mean 'resnet1"),
        ("arch", "own_packge.networks:build", "No module named 'own_packge'"),
        ("classes", ["a", "b"], None),
        ("convert", True, None),
        ("convert", "yes", "convert: found 'yes', expected true or false"),
        ("dataset", "torchvision:MNIST", None),
        ("dataset", "torchvision:MINST", "did you mean 'torchvision:MNIST'"),
    ],
)
def test_networks_and_data_are_checked_by_name_before_any_work(tmp_path, section, value, message):
    p = parameters()
    p["experiments"][NAME][section] = value
    folder = write_parameters(tmp_path, p)
    if message is None:
        check_parameters(Profile.open(folder).parameters)
        return
    with pytest.raises(ValueError, match=message):
        check_parameters(Profile.open(folder).parameters)


def test_all_images_may_be_asked_for(tmp_path):
    p = parameters()
    p["images"] = "all"
    experiment = Experiment.open(NAME, profile=write_parameters(tmp_path, p))
    assert len(experiment.data) == 359
    assert experiment.methods.images("fixed", 359) == 359


def test_a_change_of_ones_own_function_makes_other_fingerprints(own, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(own, folder)

    def prints():
        command = [ANCER, "sources", str(ROOT / "notebooks"), "--profile", str(folder)]
        subprocess.run(command, check=True)

    one = folder / ".build/fingerprints"
    prints()
    before = {path: path.read_text() for path in one.rglob("mine.json")}
    own_file = folder / "own_package/methods.py"
    own_file.write_text(own_file.read_text().replace("theta * strength", "theta * strength * 1"))
    prints()
    changed = {path.parent.name for path in before if path.read_text() != before[path]}
    assert changed == {"optimize"}


def test_nothing_but_the_defaults_names_a_method():
    """In string literals; the defaults are those of params.yaml's sections and of `evaluate`."""
    names = "|".join(map(re.escape, parameters()["methods"]))
    literal = re.compile(rf"""["'](?:{names})["']""")
    found = {}
    for path in PACKAGE.rglob("*.py"):
        lines = [line for line in path.read_text().splitlines() if literal.search(line)]
        if lines:
            found[path.relative_to(PACKAGE).as_posix()] = lines
    kinds = found.pop("regions/_records.py")  # files of a memory, not methods
    assert len(kinds) == 1 and kinds[0].startswith("KINDS = ")
    assert set(found) == {"workspace/parameters/sections.py", "job.py"}


# --- methods of fewer images


@pytest.mark.slow
def test_a_slow_method_runs_on_the_first_images_alone(profile, executed):
    experiment = Experiment.open(NAME, profile=profile)
    rows = experiment.rows()
    per_method = rows.groupby("method")["idx"].apply(list).to_dict()
    assert per_method["anisotropic-paper"] == per_method["fixed"][:2]
    assert len(per_method["anisotropic"]) == 6
    first = experiment.data.take(experiment.data.indices[:2])
    assert "anisotropic-paper" in experiment.theta(first)
    assert "anisotropic-paper" not in experiment.theta(experiment.data)
    answers = experiment.answers()
    assert (answers["method"] == "anisotropic-paper").sum() == 2


def test_a_method_runs_on_no_more_images_than_its_start(tmp_path):
    p = parameters()
    p["methods"]["isotropic-paper"]["images"] = 7
    methods = methods_of(Profile.open(write_parameters(tmp_path, p)).parameters)
    assert methods.images("anisotropic-paper", 200) == 7
    assert methods.images("anisotropic-paper", 5) == 5
    assert methods.images("fixed", 200) == methods.images("best", 200) == 200


def test_images_of_a_method_without_theta_are_refused(tmp_path):
    p = parameters()
    p["methods"]["fixed"]["images"] = 7
    with pytest.raises(ValueError, match="methods.fixed: without theta .* images"):
        Profile.open(write_parameters(tmp_path, p))


# --- trials


def test_every_notebook_takes_what_people_vary():
    for stage in ("train", "optimize", "certify", "memory", "volumes", "tables", "coverage"):
        notebook = nbformat.read(ROOT / f"notebooks/{stage}.ipynb", as_version=4)
        given = next(c.source for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
        wanted = {*EVERY, "sigma"} if "experiment =" in given else set(EVERY)
        assert wanted <= set(re.findall(r"^(\w+) = ", given, re.MULTILINE)), stage
    assert {*EVERY, "sigma"} == set(OVERRIDES)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"n": "abc"}, "certify.n: found 'abc', expected a whole number"),
        ({"n": True}, "certify.n: found True, expected a whole number"),
        ({"n": 0}, "certify.n: found 0, expected a number >= 1"),
        ({"n": 10}, "n = 10 draws can never certify at alpha = 0.001.* at least 11"),
        ({"n": 10.5}, "certify.n: found 10.5"),
        ({"alpha": 1}, "certify.alpha: found 1"),
        ({"sigma": -1}, f"experiments.{NAME}.sigma: found -1"),
        ({"seed": -1}, "seed: found -1"),
        ({"methods": ["fixde"]}, "certify.methods: found 'fixde', did you mean 'fixed'"),
        ({"methods": "fixed"}, "certify.methods: found 'fixed', expected a list"),
        ({"stop": "improvment 0.05"}, "stop: found 'improvment', did you mean 'improvement'"),
        ({"stop": "improvement"}, "stop: improvement takes a number"),
        ({"stop": "improvement -1", "methods": ["fixed"]}, "improvement takes a number.*> 0"),
        ({"stop": "improvement 0.05"}, "'best' is the best of several"),
        ({"exact": "yes"}, "certify.exact: found 'yes', expected true or false"),
        ({"images": 0}, "images: found 0"),
    ],
)
def test_what_is_given_is_checked_as_if_it_stood_in_the_file(given, message):
    with pytest.raises(ValueError, match=message):
        Experiment.open(NAME, profile=ROOT, stage="certify", **given)


def test_what_is_given_takes_the_place_of_the_files_and_writes_elsewhere():
    given = {"n": 1e3, "alpha": 0.01, "sigma": 0.5, "seed": 3, "exact": False, "images": 4}
    given |= {"methods": ["fixed"], "stop": "improvement 0.05, hopeless 0.5"}
    e = Experiment.open(NAME, profile=ROOT, stage="certify", **given)
    section = e.parameters.certify
    assert (section.n, section.alpha, section.exact) == (1000, 0.01, False)
    assert (e.section.sigma, e.law.theta.item(), e.parameters.seed) == (0.5, 0.5, 3)
    assert list(e.certified_methods) == ["fixed"] and e.lattice is None
    assert [type(rule).__name__ for rule in rules_of(section.stop)] == ["Improvement", "Hopeless"]
    assert e.profile.output.parent == ROOT / ".build/trial"
    assert re.fullmatch("[A-Za-z0-9.,=_-]+", e.profile.output.name)


def test_a_certificate_of_eleven_draws_is_possible():
    """At .9 of alpha = .001, which the class has beside the runner-up."""
    assert Profile.open(ROOT, n=11).parameters.certify.n == 11


@pytest.mark.slow
def test_a_trial_reads_what_a_trial_wrote(profile, executed):
    """Another sigma: its theta is not the profile's, and certify says so until it is there."""
    given = {"experiment": NAME, "sigma": 0.3, "images": 2, "methods": ["fixed", "isotropic"]}
    with pytest.raises(Exception, match="made with noise = .*0.25.*0.3.*run the optimize notebook"):
        compute(profile, "certify", **given)
    for stage in ("optimize", "certify", "memory"):
        compute(profile, stage, **given)
    (folder,) = (profile / ".build/trial").glob("*sigma=0.3*")
    rows = pd.read_csv(folder / f"results/rows/{NAME}.csv")
    assert rows.groupby("method", sort=False).size().to_dict() == {"fixed": 2, "isotropic": 2}
    assert rows["theta_min"][0] == pytest.approx(0.3)
    assert len(pd.read_csv(folder / f"results/memory/{NAME}.csv")) == 2


@pytest.mark.slow
def test_rows_that_stopped_early_say_how_many_draws(profile, executed):
    given = {"experiment": NAME, "images": 3, "methods": ["fixed"], "n": 5000}
    compute(profile, "certify", **given, stop="improvement 0.2, hopeless 0")
    (folder,) = (profile / ".build/trial").glob("*stop=*")
    e = Experiment.open(NAME, profile=profile, images=3, methods=["fixed"], n=5000,
                        stop="improvement 0.2, hopeless 0")  # fmt: skip
    rows = e.rows(e.data)
    n0 = e.parameters.certify.n0
    assert (rows["draws"] == rows["n"] + n0).all() and (rows["n"] < 5000).any()
    assert read_yaml(profile / "params.yaml")["certify"].get("stop") is None
    assert folder == e.profile.output


@pytest.mark.slow
def test_a_misspelt_parameter_is_refused_by_any_engine(profile, executed, tmp_path):
    before = (profile / f"results/rows/{NAME}.csv").read_bytes()
    given = {"experiment": NAME, "profile": str(profile), "imagse": 2}
    with pytest.raises(Exception, match="no parameter 'imagse': did you mean 'images'"):
        papermill.execute_notebook(
            ROOT / "notebooks/certify.ipynb", tmp_path / "out.ipynb", given, progress_bar=False
        )
    assert (profile / f"results/rows/{NAME}.csv").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("how", ["-f", "-y", "-p"])
def test_papermills_own_ways_to_give_values(profile, executed, tmp_path, how):
    (tmp_path / "given.yaml").write_text("images: 1\nn: 200\nmethods: [fixed]\n")
    given = {
        "-f": ["-f", str(tmp_path / "given.yaml")],
        "-y": ["-y", "{images: 1, n: 200, methods: [fixed]}"],
        "-p": ["-p", "images", "1", "-p", "n", "2e2", "-y", "methods: [fixed]"],
    }[how]
    command = [sys.executable, "-m", "papermill", str(ROOT / "notebooks/certify.ipynb")]
    command += [str(tmp_path / "out.ipynb"), "-r", "experiment", NAME, *given]
    shutil.rmtree(profile / ".build/trial", ignore_errors=True)
    subprocess.run(command, check=True, cwd=profile, capture_output=True)
    (folder,) = (profile / ".build/trial").iterdir()
    assert len(pd.read_csv(folder / f"results/rows/{NAME}.csv")) == 1
