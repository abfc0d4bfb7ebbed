"""The usual job in one call: the certificates are those of its parts, and a run goes on."""

import json
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ancer
from ancer import job as module
from ancer.certificates.remarks import remarks

BUDGET = {"n": 500, "alpha": 0.01, "seed": 3}
IMAGES = torch.rand(7, 1, 2, 2, generator=torch.Generator().manual_seed(0))


class Halves(nn.Module):
    """Which half of the image is lighter."""

    def forward(self, x):
        margin = 300 * (x[..., 0, :] - x[..., 1, :]).sum(dim=(1, 2))
        return torch.stack([margin, -margin], dim=1)


LABELS = Halves()(IMAGES).argmax(dim=1)
JOB = {"sigma": 0.2, "chunk": 3, "progress": False, **BUDGET}


def radii(certificates):
    return [c.radius for c in certificates]


@pytest.mark.filterwarnings("ignore:anisotropic")  # most abstain, of so few draws
def test_it_is_optimize_and_certify_in_one_call():
    found = ancer.evaluate(Halves(), IMAGES, LABELS, **JOB)
    assert list(found) == ["fixed", "isotropic", "anisotropic"]
    noise = ancer.GaussianNoise(0.2)
    planned = {"n": 500, "alpha": 0.01, "seed": 3}
    isotropic = ancer.optimize_isotropic(Halves(), IMAGES, noise, **planned)
    start = ancer.GaussianNoise(isotropic)
    anisotropic = ancer.optimize_anisotropic(Halves(), IMAGES, start, **planned)
    for method, theta in (("fixed", 0.2), ("isotropic", isotropic), ("anisotropic", anisotropic)):
        again = ancer.certify(Halves(), IMAGES, ancer.GaussianNoise(theta), **BUDGET)
        assert radii(found[method]) == radii(again)
    table = found.summary()
    assert list(table.index) == list(found) and table.loc["fixed", "images"] == 7
    assert table.loc["isotropic", "ACR"] == pytest.approx(np.mean(radii(found["isotropic"])))
    frame = found.to_frame()
    assert len(frame) == 21 and frame.columns[0] == "method"
    assert frame["label"].tolist() == 3 * LABELS.tolist()
    assert "fixed: <7 certificates" in repr(found) and "<table" in found._repr_html_()


@pytest.mark.parametrize("kind", ["array", "loader"])
def test_what_images_may_come_as(kind):
    wanted = ancer.evaluate(Halves(), IMAGES, LABELS, methods=["fixed"], **JOB)
    if kind == "array":
        given = (IMAGES.numpy(), LABELS.numpy())
    else:
        given = (DataLoader(TensorDataset(IMAGES, LABELS), batch_size=2),)
    found = ancer.evaluate(Halves(), *given, methods=["fixed"], **JOB)
    assert radii(found["fixed"]) == radii(wanted["fixed"])
    assert found.labels.tolist() == LABELS.tolist()


@pytest.mark.filterwarnings("ignore:anisotropic")
@pytest.mark.parametrize("noise", ["uniform", "splitting"])
def test_l1(noise):
    x = (IMAGES * 3).round() / 3
    more = {"lattice": 1 / 3, "exact": True, "noise": noise}
    found = ancer.evaluate(Halves(), x, **JOB, **more)
    assert {c.norm for c in found["anisotropic"]} == {1}
    assert {c.alpha for c in found["fixed"]} == {0.0 if noise == "splitting" else 0.01}
    assert "ACR" not in found.summary()  # without labels
    with pytest.raises(ValueError, match="certified accuracy needs labels"):
        found.plot()


@pytest.mark.filterwarnings("ignore:anisotropic")
def test_a_killed_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    whole = ancer.evaluate(Halves(), IMAGES, LABELS, **JOB)
    certify = module.certify
    calls = []

    def killed(*args, **more):
        calls.append(more["indices"])
        if len(calls) == 5:
            raise KeyboardInterrupt
        return certify(*args, **more)

    monkeypatch.setattr(module, "certify", killed)
    with pytest.raises(KeyboardInterrupt):
        ancer.evaluate(Halves(), IMAGES, LABELS, out=tmp_path, **JOB)
    found = ancer.evaluate(Halves(), IMAGES, LABELS, out=tmp_path, **JOB)
    assert len(calls) == 10  # nine parts, of which one was begun twice
    again = ancer.evaluate(Halves(), IMAGES, LABELS, out=tmp_path, **JOB)
    assert len(calls) == 10
    read = ancer.Results.load(tmp_path)
    for other in (found, again, read):
        assert list(other) == list(whole) and other.labels.tolist() == LABELS.tolist()
        for method in whole:
            assert radii(other[method]) == radii(whole[method])
    assert (tmp_path / "certificates.csv").read_text() == whole.to_frame().to_csv(index=False)
    axes = read.plot()
    assert [t.get_text() for t in axes.get_legend().get_texts()] == list(whole)
    plt.close(axes.figure)


def test_a_run_of_other_arguments_is_refused(tmp_path):
    ancer.evaluate(Halves(), IMAGES, LABELS, methods=["fixed"], out=tmp_path, **JOB)
    for change, named in (({"n": 600}, "n"), ({"sigma": 0.3}, "sigma"), ({"chunk": 2}, "chunk")):
        with pytest.raises(ValueError, match=f"holds a run with other {named}: give another"):
            ancer.evaluate(
                Halves(), IMAGES, LABELS, methods=["fixed"], out=tmp_path, **{**JOB, **change}
            )
    with pytest.raises(ValueError, match="holds a run with other images"):
        ancer.evaluate(Halves(), 1 - IMAGES, LABELS, methods=["fixed"], out=tmp_path, **JOB)
    with pytest.raises(ValueError, match="holds a run with other model, probe"):
        other = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        ancer.evaluate(other, IMAGES, LABELS, methods=["fixed"], out=tmp_path, **JOB)
    assert "methods" in json.loads((tmp_path / "run.json").read_text())
    with pytest.raises(FileNotFoundError, match="no run at"):
        ancer.Results.load(tmp_path / "fixed")


def test_methods_of_ones_own():
    def narrow(classifier, x, noise, *, seed, indices):
        assert isinstance(classifier, ancer.Classifier) and next(iter(indices)) % 3 == 0
        return noise.theta_for(x).flatten() / 2

    methods = {"plain": None, "narrow": narrow, "again": narrow}
    found = ancer.evaluate(Halves(), IMAGES, LABELS, methods=methods, **JOB)
    for method, theta in (("plain", 0.2), ("narrow", 0.1), ("again", 0.1)):
        assert {c.theta.item() for c in found[method]} == {np.float32(theta)}


def test_fixed_is_the_training_noise_wherever_it_stands():
    found = ancer.evaluate(Halves(), IMAGES, LABELS, methods=["isotropic", "fixed"], **JOB)
    assert {c.theta.item() for c in found["fixed"]} == {np.float32(0.2)}
    assert len({c.theta.item() for c in found["isotropic"]}) > 1


def test_a_list_and_functions_of_the_same_names_are_two_runs(tmp_path):
    """Methods of a list start from one another, functions from the training noise."""
    ancer.evaluate(Halves(), IMAGES, methods=["fixed"], out=tmp_path, **JOB)
    with pytest.raises(ValueError, match="holds a run with other chained"):
        ancer.evaluate(Halves(), IMAGES, methods={"fixed": None}, out=tmp_path, **JOB)


def test_a_call_that_failed_before_any_certificate_leaves_no_run(tmp_path):
    with pytest.raises(ValueError, match="is not on the lattice"):
        ancer.evaluate(Halves(), IMAGES, methods=["fixed"], exact=True, out=tmp_path, **JOB)
    found = ancer.evaluate(Halves(), IMAGES, methods=["fixed"], out=tmp_path, **JOB)
    assert len(found["fixed"]) == 7


def test_a_run_keeps_numbers_of_numpy_and_images_with_gradients(tmp_path):
    numbers = {"n": np.int64(500), "alpha": np.float32(0.01), "seed": np.int8(3)}
    numbers |= {"sigma": torch.tensor(0.2), "chunk": np.int64(3), "exact": np.bool_(False)}
    images = IMAGES.clone().requires_grad_()
    job = {**JOB, **numbers, "methods": ["fixed"], "out": tmp_path}
    found = ancer.evaluate(Halves(), images, LABELS, **job)
    again = ancer.Results.load(tmp_path)
    assert radii(again["fixed"]) == radii(found["fixed"])


def test_of_an_unfinished_run_what_all_methods_have_is_read(tmp_path):
    job = {**JOB, "methods": ["fixed", "isotropic"], "out": tmp_path}
    whole = ancer.evaluate(Halves(), IMAGES, LABELS, **job)
    (tmp_path / "isotropic/00000006/certificates.safetensors").unlink()
    read = ancer.Results.load(tmp_path)
    assert read.labels.tolist() == LABELS[:6].tolist()
    for method in whole:
        assert radii(read[method]) == radii(whole[method][:6])
    assert (read.summary()["images"] == 6).all()
    (tmp_path / "fixed/00000000/certificates.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="nothing is finished at"):
        ancer.Results.load(tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"methods": "fixed"}, r"methods must be several names, found 'fixed': \['fixed'\]"),
        ({"methods": []}, "methods must name one or more of fixed, isotropic, anisotropic"),
        ({"methods": ["isotropc"]}, "unknown method 'isotropc'.*isotropic"),
        ({"methods": {"a/b": None}}, "a method's name is letters.* found 'a/b'"),
        ({"noise": "gauss"}, "unknown noise 'gauss'.*gaussian"),
        ({"chunk": 0}, "chunk must be >= 1, found 0"),
        ({"n": 0}, "n must be .*found .*0"),
        ({"sigma": -1}, "must be .*> 0"),
        ({"labels": [0, 1]}, r"found 7 images and labels of shape \(2,\)"),
        ({"labels": [0.5] * 7}, "labels must be 7 whole numbers"),
        ({"labels": [0] * 6 + [-1]}, "labels must be class numbers >= 0, found -1"),
        ({"labels": [1] * 6 + [2]}, "label 2 is outside the model's 2 classes"),
        ({"methods": {"fixed"}}, "methods must be in an order, found {'fixed'}"),
        ({"methods": ["anisotropic", "isotropic"]}, "name it before anisotropic"),
        ({"methods": {"mine": "isotropic"}}, r"methods\['mine'\] must be a function or None"),
        ({"exact": True, "lattice": None}, "exact=True needs the step of the images' lattice"),
    ],
)
def test_bad_arguments_are_named_before_any_work(change, message):
    given = {"labels": LABELS, **JOB, **change}
    with pytest.raises(ValueError, match=message):
        ancer.evaluate(Halves(), IMAGES, **given)
    loader = DataLoader(TensorDataset(IMAGES, LABELS))
    with pytest.raises(ValueError, match="labels come with the batches of a DataLoader"):
        ancer.evaluate(Halves(), loader, LABELS, **JOB)


@pytest.mark.parametrize(
    "given, message",
    [
        ("photos/", "images must be a tensor, an array or DataLoader.*, found str"),
        (None, "images must be a tensor, an array or DataLoader.*, found NoneType"),
        (TensorDataset(IMAGES, LABELS), "DataLoader.dataset, batch_size=100., found TensorDataset"),
        (DataLoader(TensorDataset(IMAGES)), "batches must be .images, labels., a number an image"),
        (DataLoader(TensorDataset(IMAGES, LABELS, LABELS)), "batches must be .images, labels."),
        (DataLoader(TensorDataset(IMAGES, LABELS[:, None])), "batches must be .images, labels."),
        ((IMAGES, LABELS), "batches must be .images, labels., .* Found tuple"),
        (DataLoader(TensorDataset(IMAGES[:0], LABELS[:0])), "the DataLoader has no batch"),
    ],
)
def test_what_gives_no_images_with_labels_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        ancer.evaluate(Halves(), given, **JOB)


class Constant(nn.Module):
    def forward(self, x):
        return torch.tensor([[0.0, 2.0]]).expand(len(x), 2)


class Coin(nn.Module):
    """Looks at one pixel alone, which noise moves to either side."""

    def forward(self, x):
        margin = 1000 * (x.flatten(1)[:, :1] - 0.5)
        return torch.cat([margin, -margin], dim=1)


def test_what_means_little_is_said_once():
    with pytest.warns(UserWarning) as said:
        ancer.evaluate(Constant(), IMAGES, methods=["fixed"], **{**JOB, "sigma": 3.0})
    texts = [str(warning.message) for warning in said]
    assert len(texts) == 2
    assert texts[0].startswith("fixed: all 7 images are certified as class 1: radii say nothing")
    assert texts[1].startswith(r"fixed: 7 of 7 regions hold every image of [0, 1]^n")
    middle = torch.full((6, 1, 2, 2), 0.5)
    with pytest.warns(UserWarning, match="6 of 6 images abstain, their class has 5.% of the votes"):
        ancer.evaluate(Coin(), middle, methods=["fixed"], **JOB)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ancer.evaluate(Halves(), IMAGES, LABELS, methods=["fixed"], **JOB)
    assert remarks(found["fixed"]) == [] and remarks(ancer.Certificates(())) == []
