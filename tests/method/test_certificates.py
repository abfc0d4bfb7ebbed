"""Certificates of several images: as a sequence, in numbers, as a curve, on the disk."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import ancer
from ancer.bases import Dense, basis_named
from ancer.certificates.many import FILE, TABLE

BUDGET = {"n": 1000, "alpha": 0.001, "seed": 0}
X = torch.tensor([[0.9, 0.1], [0.1, 0.8], [0.5, 0.5], [0.3, 0.9]])
LABELS = [0, 1, 0, 0]  # the third abstains, the last is wrong


class Halves(nn.Module):
    """Which of two pixels is larger."""

    def forward(self, x):
        return 100 * x.flatten(1)[:, :2]


@pytest.fixture(scope="module")
def found():
    return ancer.certify(Halves(), X, ancer.GaussianNoise(0.25), indices=[5, 6, 7, 8], **BUDGET)


def test_they_are_a_sequence(found):
    assert isinstance(found, ancer.Certificates) and len(found) == 4
    assert isinstance(found[1:], ancer.Certificates) and found[1:][0] is found[1]
    assert [c.index for c in found[:1] + found[2:]] == [5, 7, 8]
    assert found[-1] in found and found[0] not in found[1:]
    assert repr(found).startswith("<4 certificates, 1 abstain, mean radius 0.")
    assert repr(found[:0]) == "<0 certificates, 0 abstain, mean radius 0>"


def test_a_certificate_is_one_line(found):
    for c in found:
        line = str(c)
        assert "\n" not in line and line == repr(c) and len(line) < 160
        assert f"image {c.index}: " in line and "n = 1,000, alpha = 0.001" in line
    assert "class 0, l2 radius 0." in str(found[0]) and "abstains" in str(found[2])
    bound = float(str(found[0]).partition("p_A >= ")[2].partition(",")[0])
    assert found[0].p_a_lower - 1e-4 < bound <= found[0].p_a_lower  # rounded down


def test_the_table_holds_what_they_say(found):
    frame = found.to_frame(LABELS)
    assert frame["index"].tolist() == [5, 6, 7, 8]
    assert frame["label"].tolist() == LABELS
    assert frame["correct"].tolist() == [1, 1, 0, 0]
    for c, row in zip(found, frame.to_dict("records"), strict=True):
        for name in ("prediction", "gap", "radius", "proxy_radius", "log_volume", "n", "alpha"):
            assert row[name] == getattr(c, name)
        assert row["theta_min"] == row["theta_max"] == 0.25 and row["norm"] == 2
        assert row["basis"] == "pixels" and row["arithmetic"] == "not floating-point sound"
    assert "label" not in found.to_frame()
    assert "<table" in found._repr_html_()


def test_the_summary_in_numbers(found):
    radii = [c.radius for c in found]
    plain = found.summary()
    assert plain["images"] == 4 and plain["abstained"] == 0.25
    assert plain["mean radius"] == pytest.approx(np.mean(radii))
    numbers = found.summary(torch.tensor(LABELS))
    assert numbers["certified accuracy"] == 0.5
    assert numbers["ACR"] == pytest.approx((radii[0] + radii[1]) / 4)
    # over the two classes: of 0 one of three images is right, of 1 the only one
    assert numbers["balanced ACR"] == pytest.approx((radii[0] / 3 + radii[1]) / 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_theta_over_the_image(channels):
    x = torch.rand(1, channels, 4, 5, generator=torch.Generator().manual_seed(0))
    theta = 0.1 + x
    (c,) = ancer.certify(Halves(), x, ancer.GaussianNoise(theta), **BUDGET)
    figure = c.plot()
    image, shown, _ = (ax.images[0].get_array() if ax.images else None for ax in figure.axes)
    assert np.allclose(shown, theta[0].mean(dim=0))
    assert image.shape[:2] == (4, 5)
    plt.close(figure)


def test_what_is_no_picture_has_no_plot(found):
    with pytest.raises(ValueError, match=r"a plot is of pictures .* found shape \(2,\) in basis"):
        found[0].plot()


@pytest.mark.parametrize("labels", [[0, 1], [0.0, 1.0, 0.0, 0.0], torch.zeros(4, 1).long()])
def test_labels_that_do_not_fit_are_named(found, labels):
    for call in (found.to_frame, found.summary, found.plot):
        with pytest.raises(ValueError, match="labels must be 4 whole numbers, one a certificate"):
            call(labels)


def test_the_curve_is_the_certified_accuracy(found):
    ax = found.plot(LABELS, label="fixed")
    (line,) = ax.get_lines()
    radii, shares = line.get_data()
    assert radii[-1] == radii[-2] and shares[-1] == 0  # down to 0 at the largest
    steps = dict(zip(radii[:-1], shares[:-1], strict=True))
    for c in found[:2]:
        reached = np.mean([k.radius >= c.radius for k in found[:2]]) * 0.5
        assert steps[c.radius] == reached
    assert steps[0.0] == 0.5 and "(l2)" in ax.get_xlabel()
    assert found.plot(LABELS, by="proxy_radius", ax=ax) is ax and len(ax.get_lines()) == 2
    ax.plot([9.0], [0.5])
    assert ax.get_xlim()[1] > 9  # a farther curve is seen whole
    plt.close(ax.figure)
    with pytest.raises(ValueError, match="by must be one of .*found 'volume'"):
        found.plot(LABELS, by="volume")


def same(a, b):
    tensors = ("center", "theta")
    plain = {name: value for name, value in vars(a).items() if name not in tensors}
    assert plain == {name: value for name, value in vars(b).items() if name not in tensors}
    for name in tensors:
        one, other = getattr(a, name), getattr(b, name)
        assert one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.parametrize("kind", ["one number", "anisotropic", "uniform", "exact", "cosines"])
def test_they_are_read_as_they_were_written(tmp_path, kind):
    x = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    theta = 0.1 + x
    noise, more = {
        "one number": (ancer.GaussianNoise(0.25), {}),
        "anisotropic": (ancer.GaussianNoise(theta), {}),
        "uniform": (ancer.UniformNoise(theta), {}),
        "exact": (ancer.GaussianNoise(theta), {"exact": True, "lattice": 1 / 16}),
        "cosines": (ancer.GaussianNoise(theta, basis=basis_named("dct", (1, 2, 2))), {}),
    }[kind]
    if kind == "exact":
        x = (16 * x).round() / 16
    found = ancer.certify(Halves(), x, noise, **BUDGET, **more)
    found.save(tmp_path / "run")
    back = ancer.Certificates.load(tmp_path / "run")
    assert len(back) == 3
    for a, b in zip(found, back, strict=True):
        same(a, b)
    assert pd.read_csv(tmp_path / "run" / TABLE)["radius"].tolist() == [c.radius for c in found]
    # and they say the same to `predict`
    ancer.predict(Halves(), x, noise, n=100, evaluation=back[0].evaluation, **more)


def test_a_basis_of_ones_own_is_given_again(tmp_path):
    turn = torch.linalg.qr(torch.rand(2, 2, dtype=torch.float64))[0]
    basis = Dense(turn, (2,), name="mine")
    noise = ancer.GaussianNoise(torch.tensor([[0.2, 0.4]]), basis=basis)
    found = ancer.certify(Halves(), X[:1], noise, **BUDGET)
    found.save(tmp_path)
    (back,) = ancer.Certificates.load(tmp_path, basis=basis)
    same(found[0], back)
    other = Dense(torch.eye(2, dtype=torch.float64), (2,), name="mine")
    with pytest.raises(ValueError, match=r"theta is in the basis mine .*: give basis="):
        ancer.Certificates.load(tmp_path, basis=other)
    with pytest.raises(ValueError, match=r"basis 'mine', which its name .* load\(folder, basis="):
        ancer.Certificates.load(tmp_path)


def test_where_there_are_none_it_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no certificates at .*{FILE}: give the folder"):
        ancer.Certificates.load(tmp_path)


def test_metrics_batch_after_batch_are_those_of_all(found):
    accuracy = ancer.CertifiedAccuracy(0.1)
    acr = ancer.AverageCertifiedRadius()
    proxy = ancer.AverageCertifiedRadius(by="proxy_radius")
    for metric in (accuracy, acr, proxy):
        with pytest.raises(ValueError, match="no certificates yet"):
            metric.compute()
        metric.update(found[:3], LABELS[:3])
        metric.update(found[3:], torch.tensor(LABELS[3:]))
    numbers = found.summary(LABELS)
    assert accuracy.compute() == 0.5
    assert acr.compute() == pytest.approx(numbers["ACR"])
    assert proxy.compute() == pytest.approx(numbers["AC-proxy-R"])
    assert ancer.CertifiedAccuracy().radius == 0.0
    acr.reset()
    acr.update(found[:1], LABELS[:1])
    assert acr.compute() == found[0].radius
    with pytest.raises(ValueError, match="labels must be 4 whole numbers"):
        acr.update(found, [0, 1])
    with pytest.raises(ValueError, match="radius must be >= 0, found nan"):
        ancer.CertifiedAccuracy(math.nan)
    with pytest.raises(ValueError, match="by must be 'radius' or 'proxy_radius', found 'x'"):
        ancer.AverageCertifiedRadius(by="x")


def test_a_radius_that_is_not_known_is_no_zero():
    """In-box radii of cosines of a whole image: of the one that abstains 0, of the other none."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0], [-1.0]]).expand(2, 256) / 256)
        net[1].bias.copy_(torch.tensor([-0.5, 0.5]))
    x = torch.tensor([0.5, 0.9]).reshape(2, 1, 1, 1).expand(2, 1, 16, 16)
    theta = torch.linspace(0.1, 0.3, 256).reshape(1, 1, 16, 16)
    noise = ancer.GaussianNoise(theta, basis=basis_named("dct", (1, 16, 16)))
    certificates = ancer.certify(net, x, noise, n=300)
    assert [c.prediction for c in certificates] == [-1, 0]
    assert math.isnan(certificates.summary()["mean in_box_proxy_radius"])
    assert certificates.summary()["mean radius"] > 0
    with pytest.raises(ValueError, match="in_box_proxy_radius is not computed for 1 images"):
        certificates.plot([0, 0], by="in_box_proxy_radius")


def test_no_label_is_no_class(found):
    """-1 would count an abstention as right."""
    for call in (found.summary, found.to_frame, found.plot):
        with pytest.raises(ValueError, match="labels must be class numbers >= 0, found -1"):
            call([-1, 0, 0, 0])
    with pytest.raises(ValueError, match="labels must be class numbers >= 0, found -1"):
        ancer.CertifiedAccuracy(0.0).update(found, [-1] * 4)
