"""The paper's profiles: their files agree with the default's and with the code, and ImageNet's runs
end to end."""

import inspect
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
from PIL import Image
from stages import ROOT, STAGES, compute, parameters, write_parameters

from ancer.measures import average_certified_radius, certified_accuracy
from ancer.models import networks, published
from ancer.noise.named import NOISES
from ancer.training import attacks, loop, losses
from ancer.workspace.experiment import Profile
from ancer.workspace.fingerprints import OF_ALL, OF_EXPERIMENT, write_fingerprints
from ancer.workspace.parameters.models import PublishedRecipe

PROFILES = sorted(path.parent for path in (ROOT / "profiles").glob("*/params.yaml"))
LOGS = ROOT / "../shared/published/cohen2019"
EACH = pytest.mark.parametrize("folder", PROFILES, ids=lambda folder: folder.name)


def test_profiles_are_those_of_the_paper():
    names = [folder.name for folder in PROFILES]
    assert names == [
        "cifar10",
        "cifar10-bases",
        "cifar10-l1",
        "cifar10-paper",
        "digits-l1",
        "imagenet",
        "imagenet-paper",
        "imagenet-sample",
    ]
    for folder in PROFILES:
        assert (folder / "dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()
        assert (folder / Profile.open(folder).parameters.root).resolve() == ROOT


@EACH
def test_each_profile_is_understood_by_the_code(folder, tmp_path):
    profile = Profile.open(folder)
    known = inspect.signature(loop.Recipe).parameters
    for e in profile.experiments.values():
        section = e.section
        assert networks.architecture(section.arch) and section.noise in NOISES
        if isinstance(e.recipe, PublishedRecipe):
            assert set(section.options) == {"file"}
            assert section.arch in published.SOURCES[e.recipe.source].networks
            continue
        recipe = e.recipe
        assert set(recipe.model_dump()) - {"every", "under", "seed", "then"} <= set(known)
        loss = losses.SCHEMES[recipe.scheme]
        assert set(section.options) <= set(inspect.signature(loss).parameters)
        assert section.options.get("attack", "pgd") in attacks.ATTACKS
        assert recipe.optimizer in loop.OPTIMIZERS and recipe.schedule in loop.SCHEDULES
        assert recipe.recipes(section.options)  # in their domains
    for e in profile.experiments.values():
        suited = [m for m in profile.methods if e.norm == 2 or e.methods.basis(m) == "pixels"]
        assert list(e.certified_methods) == (e.section.methods or suited)
    assert set(profile.parameters.ablations.experiments) <= set(profile.experiments)
    digests = {name: {"train": "a", "test": "b"} for name in profile.experiments}
    assert write_fingerprints(ROOT / "notebooks", profile.parameters, tmp_path, digests=digests)


@pytest.mark.parametrize("folder", [ROOT, *PROFILES], ids=lambda folder: folder.name)
def test_dvc_finds_a_stage_for_each_experiment(folder, tmp_path):
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(folder / name, tmp_path)
    dvc = [sys.executable, "-m", "dvc"]
    quiet = {"cwd": tmp_path, "check": True, "capture_output": True, "text": True}
    subprocess.run([*dvc, "init", "--no-scm", "-q"], **quiet)
    listed = subprocess.run([*dvc, "stage", "list", "--name-only"], **quiet).stdout.split()
    experiments = Profile.open(folder).experiments
    expected = {"sources", *OF_ALL}
    expected |= {f"{stage}@{name}" for stage in OF_EXPERIMENT for name in experiments}
    assert set(listed) == expected


def test_profiles_are_dvc_repositories_of_their_own():
    """So that one without results disturbs no other one's metrics and plots."""
    for folder in PROFILES:
        for name in (".dvcignore", ".dvc/.gitignore"):
            assert (folder / name).read_text() == (ROOT / name).read_text(), folder / name
        assert (folder / ".dvc/config").is_file()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_dvc_shows_a_fresh_clone_without_complaint(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    for command in (["metrics", "show"], ["metrics", "diff"], ["plots", "show"]):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *command],
            cwd=clone,
            check=True,
            capture_output=True,
            text=True,
        )
        assert "failed" not in done.stdout + done.stderr
    assert (clone / "dvc_plots/index.html").is_file()


def test_the_papers_grid():
    """SPEC 0: CIFAR-10 l2 at 0.12, 0.25, 0.5, l1 at 0.25, 0.5, 1; ImageNet at 0.25, 0.5, 1.

    N = 100,000, 500 images.
    """
    grids = {
        "cifar10-paper": ((0.12, 0.25, 0.5), {"resnet18", "wrn40_2"}),
        "imagenet-paper": ((0.25, 0.5, 1.0), {"resnet50"}),
    }
    for name, (l2, architectures) in grids.items():
        profile = Profile.open(ROOT / "profiles" / name)
        p = profile.parameters
        assert p.images == 500
        assert (p.certify.n, p.certify.n0, p.certify.alpha) == (100_000, 100, 0.001)
        sections = [e.section for e in profile.experiments.values()]
        found = {(s.noise, s.training, s.sigma) for s in sections}
        trainings = ("gaussian", "smoothadv", "macer")
        assert {f for f in found if f[0] == "gaussian"} == {
            ("gaussian", training, sigma) for training in trainings for sigma in l2
        }
        assert {f[2] for f in found if f[0] == "uniform"} == {0.25, 0.5, 1.0}
        assert {s.arch for s in sections} == architectures


def test_every_scheme_has_a_place_in_the_cifar_profile():
    profile = Profile.open(ROOT / "profiles/cifar10-paper")
    assert {e.recipe.scheme for e in profile.experiments.values()} == set(losses.CLASSIFIERS)


@EACH
def test_methods_are_those_of_the_default_profile(folder):
    methods = Profile.open(folder).methods
    default = Profile.open(ROOT).methods
    in_pixels = [name for name in default if default[name].basis == "pixels"]
    for name in set(in_pixels) & set(methods):
        method = default[name]
        assert methods[name].theta is method.theta
        assert methods[name].start == method.start
        if folder.name != "cifar10-bases":  # where pixels are one basis of many
            assert methods[name].label == method.label
            assert methods[name].best_of == method.best_of
    # the paper's optimizers take hours an image of ImageNet without a GPU
    few = [name for name in in_pixels if not name.endswith("-paper")]
    if folder.name == "cifar10-l1":  # nothing is sampled: the best of several proves nothing new
        few.remove("best")
    if folder.name == "imagenet-sample":  # hours without a GPU too: three methods
        few.remove("best")
    small = folder.name in (
        "imagenet",
        "imagenet-sample",
        "cifar10-bases",
        "cifar10-l1",
        "digits-l1",
    )
    assert [name for name in methods if name in in_pixels] == (few if small else in_pixels)


@pytest.mark.skipif(not LOGS.is_dir(), reason="the published logs are not beside this checkout")
@pytest.mark.parametrize("name, network", [("cifar10", "resnet110"), ("imagenet", "resnet50")])
def test_published_rows_are_our_metrics_on_the_published_logs(name, network):
    parameters = Profile.open(ROOT / "profiles" / name).parameters
    entries = [entry for entry in parameters.published if entry.source.endswith("logs")]
    assert len(entries) == 3
    for entry in entries:
        sigma = f"{entry.sigma:.2f}"
        log = pd.read_csv(LOGS / f"{name}_{network}_noise_{sigma}_sigma_{sigma}.tsv", sep="\t")
        accuracy = certified_accuracy(log, list(entry.accuracy)).tolist()
        assert accuracy == pytest.approx(list(entry.accuracy.values()), abs=1e-12)
        assert average_certified_radius(log) == pytest.approx(entry.ACR, rel=1e-12)


def test_the_papers_profiles_have_the_same_published_rows():
    for name in ("cifar10", "imagenet"):
        ours = Profile.open(ROOT / "profiles" / name).parameters.published
        paper = Profile.open(ROOT / "profiles" / f"{name}-paper").parameters.published
        assert ours == paper and len(ours) >= 3


@pytest.mark.slow
def test_imagenet_runs_end_to_end_on_a_small_folder(tmp_path, monkeypatch):
    """224x224 crops of images of several sizes, tiny N.

    ResNet-50 of random weights in the format of Cohen et al.
    """
    folder = ROOT / "profiles/imagenet"
    p = parameters(folder)
    (name,) = [name for name in p["experiments"] if name.startswith("imagenet-gaussian")]
    p["experiments"] = {name: p["experiments"][name]}
    p |= {"images": 2, "every": 3}
    del p["methods"]["best"]
    p["certify"] |= {"n0": 4, "n": 12}
    p["methods"]["isotropic"] |= {"draws": 4, "scales": [0.5, 1.0, 2.0]}
    p["methods"]["anisotropic"] |= {"search_draws": 4, "iterations": 2, "draws": 4}
    # bfloat16 takes many times as long where the processor has none
    p["evaluate"] |= {"batch_size": 4, "dtype": "float32"}
    p["statistics"] = {"horizon": 100, "images": 1, "n": 20}
    p["coverage"] = {"families": ["darker", "jpeg"], "images": 1, "n": 4}
    p["published"] = str(folder / p["published"])
    write_parameters(tmp_path, p)
    stream = torch.Generator().manual_seed(0)
    for k in range(6):  # every third is 0 and 3: one of each class
        wnid = f"n0000000{k // 3}"
        path = tmp_path / "data/imagenet/val" / wnid / f"ILSVRC2012_val_{k:08d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (240 + 20 * k, 300, 3)
        pixels = torch.randint(0, 256, size, generator=stream, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(path)
    import torchvision

    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = torchvision.models.resnet50(num_classes=2).state_dict()
    file = tmp_path / p["experiments"][name]["options"]["file"]
    file.parent.mkdir(parents=True)
    cohen = {"epoch": 90, "arch": "resnet50", "optimizer": {}}
    cohen["state_dict"] = {f"1.module.{key}": value for key, value in state.items()}
    torch.save(cohen, file)
    monkeypatch.setattr("ancer.workspace.stages.train.COPIES", 4)
    for stage in STAGES:
        compute(tmp_path, stage, experiment=name)
    for stage in ("volumes", "tables", "figures"):
        compute(tmp_path, stage)
    rows = pd.read_csv(tmp_path / "results/rows" / f"{name}.csv")
    assert rows["idx"].tolist() == [0, 3] * 3 and rows["label"].tolist() == [0, 1] * 3
    assert (rows["n"] == 12).all() and rows.notna().all().all()
    assert "ResNet-50, Cohen et al. 2019" in (tmp_path / "results/tables/T1.md").read_text()
