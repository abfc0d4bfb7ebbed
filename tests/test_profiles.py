"""The paper's profiles: their files agree with the default's and with the code, and ImageNet's runs end to end."""

import inspect
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from stages import run

from ancer import networks, noise, pipeline, schemes, training
from ancer.results import average_certified_radius, certified_accuracy

ROOT = Path(__file__).parents[1]
PROFILES = sorted(path.parent for path in (ROOT / "profiles").glob("*/params.yaml"))
LOGS = ROOT / "../shared/published/cohen2019"


def setting(profile: Path, name: str, folder: Path):
    """The parameters of a profile with its line `<<: *quick` pointing to the setting `name`."""
    text = (profile / "params.yaml").read_text()
    assert text.count("\n<<: *quick\n") == 1, "the committed setting is quick"
    (folder / "params.yaml").write_text(text.replace("\n<<: *quick\n", f"\n<<: *{name}\n"))
    return pipeline.load_parameters(profile=folder)


def test_profiles_are_those_of_the_paper():
    assert [p.name for p in PROFILES] == ["cifar10", "imagenet"]
    for profile in PROFILES:
        assert (profile / "dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()


@pytest.mark.parametrize("name", ["quick", "paper"])
@pytest.mark.parametrize("profile", PROFILES, ids=lambda p: p.name)
def test_each_setting_is_understood_by_the_code(profile, name, tmp_path):
    p = setting(profile, name, tmp_path)
    known = inspect.signature(training.train).parameters
    for e in p.experiments.values():
        assert e.arch in networks.ARCHITECTURES and e.noise in noise.LAWS
        if e.recipe["scheme"] == "published":
            assert set(e.options) == {"file"}
            continue
        assert set(e.recipe) - {"every"} <= set(known)
        assert set(e.options) <= set(inspect.signature(schemes.SCHEMES[e.recipe["scheme"]]).parameters)
        assert e.options.get("attack", "pgd") in schemes.ATTACKS
        assert e.recipe["optimizer"] in training.OPTIMIZERS and e.recipe["schedule"] in training.SCHEDULES
    assert set(p.ablations.experiments) <= set(p.experiments)


def test_the_papers_grid(tmp_path):
    """SPEC 0: CIFAR-10 l2 at 0.12, 0.25, 0.5, l1 at 0.25, 0.5, 1; ImageNet at 0.25, 0.5, 1; N = 100,000, 500 images."""
    for profile, l2 in zip(PROFILES, [(0.12, 0.25, 0.5), (0.25, 0.5, 1.0)], strict=True):
        p = setting(profile, "paper", tmp_path)
        assert (p.images, p.certify.n, p.certify.n0, p.certify.alpha) == (500, 100_000, 100, 0.001)
        found = {(e.noise, e.training, e.sigma) for e in p.experiments.values()}
        assert {f for f in found if f[0] == "gaussian"} == {
            ("gaussian", t, s) for t in ("gaussian", "smoothadv", "macer") for s in l2
        }
        assert {f[2] for f in found if f[0] == "uniform"} == {0.25, 0.5, 1.0}
        assert {e.arch for e in p.experiments.values()} == (
            {"resnet18", "wrn40_2"} if profile.name == "cifar10" else {"resnet50"}
        )


def test_every_scheme_has_a_place_in_the_cifar_profile(tmp_path):
    p = setting(ROOT / "profiles/cifar10", "paper", tmp_path)
    assert {e.recipe["scheme"] for e in p.experiments.values()} == set(schemes.SCHEMES)


@pytest.mark.skipif(not LOGS.is_dir(), reason="the published logs are not beside this checkout")
@pytest.mark.parametrize("profile, network", [("cifar10", "resnet110"), ("imagenet", "resnet50")])
def test_published_rows_are_our_metrics_on_the_published_logs(profile, network):
    entries = [
        entry for entry in pipeline.load_parameters(profile=ROOT / "profiles" / profile).published
        if entry["source"].endswith("logs")
    ]
    assert len(entries) == 3
    for entry in entries:
        sigma = f"{entry['sigma']:.2f}"
        log = pd.read_csv(LOGS / f"{profile}_{network}_noise_{sigma}_sigma_{sigma}.tsv", sep="\t")
        radii = list(entry["accuracy"])
        assert certified_accuracy(log, radii).tolist() == pytest.approx(list(entry["accuracy"].values()), abs=1e-12)
        assert average_certified_radius(log) == pytest.approx(entry["ACR"], rel=1e-12)


@pytest.mark.slow
def test_imagenet_runs_end_to_end_on_a_small_folder(tmp_path):
    """224x224 crops of images of several sizes, ResNet-50 of random weights in the format of Cohen et al., tiny N."""
    text = (ROOT / "profiles/imagenet/params.yaml").read_text()
    p = yaml.safe_load(text)
    (name,) = [n for n in p["experiments"] if n.startswith("imagenet-gaussian")]
    p["experiments"] = {name: p["experiments"][name]}
    p |= {"images": 2, "every": 3}
    p["certify"] |= {"n0": 4, "n": 20}
    p["optimize"] |= {"search_draws": 4, "iterations": 2, "draws": 4}
    p["evaluate"]["batch_size"], p["statistics"] = 8, {"horizon": 100, "images": 1, "n": 20}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(p))
    generator = torch.Generator().manual_seed(0)
    for k in range(6):  # every third is 0 and 3: one of each class
        path = tmp_path / "data/imagenet/val" / f"n0000000{k // 3}" / f"ILSVRC2012_val_{k:08d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (240 + 20 * k, 300, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(path)
    import torchvision

    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = torchvision.models.resnet50(num_classes=2).state_dict()
    file = tmp_path / p["experiments"][name]["options"]["file"]
    file.parent.mkdir(parents=True)
    cohen = {"epoch": 90, "arch": "resnet50", "optimizer": {}}
    torch.save({**cohen, "state_dict": {f"1.module.{k}": v for k, v in state.items()}}, file)
    for stage in ("train", "optimize", "certify", "memory", "volumes", "tables", "figures"):
        run(tmp_path, stage, **({"experiment": name} if stage in ("train", "optimize", "certify", "memory") else {}))
    rows = pd.read_csv(tmp_path / "results/rows" / f"{name}.csv")
    assert rows["idx"].tolist() == [0, 3] * 4 and rows["label"].tolist() == [0, 1] * 4
    assert (rows["n"] == 20).all() and rows.notna().all().all()
    assert "ResNet-50, Cohen et al. 2019" in (tmp_path / "results/tables/T1.md").read_text()
