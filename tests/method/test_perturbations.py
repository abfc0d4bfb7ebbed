"""Families of perturbations, and the severities that regions cover."""

import math

import pytest
import torch
from problems import HalfSpace

from ancer import Classifier, GaussianNoise, Region, certify
from ancer.perturbations.coverage import covered_severity
from ancer.perturbations.families import FAMILIES, families_for

SHAPES = [(1, 8, 8), (3, 16, 16)]


def pictures(shape, count=4, seed=0):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def cases():
    return [(shape, name) for shape in SHAPES for name in families_for(shape)]


def test_grey_images_have_no_colour_to_lose():
    assert set(families_for((3, 8, 8))) == set(FAMILIES)
    assert {"saturation", "cast", "hue"}.isdisjoint(families_for((1, 8, 8)))
    assert families_for((2,)) == {}  # points are no pictures


@pytest.mark.parametrize("shape, name", cases())
def test_pictures_stay_pictures_and_change_ever_more(shape, name):
    """In [0, 1], alike in any batch (to rounding), and farther at the last severity."""
    family = FAMILIES[name]
    x = pictures(shape)
    severities = family.severities
    assert list(severities) == sorted(set(severities)) and severities[0] > 0
    assert all(severities[0] <= s <= severities[-1] for s in family.shown)
    for severity in (severities[0], severities[len(severities) // 2], severities[-1]):
        y = family(x, severity)
        assert y.shape == x.shape and y.dtype == x.dtype
        assert y.min() >= 0 and y.max() <= 1
        torch.testing.assert_close(family(x[2:3], severity)[0], y[2], rtol=0, atol=1e-6)
    small = (family(x, severities[0]) - x).flatten(1).norm(dim=1)
    large = (y - x).flatten(1).norm(dim=1)
    assert (large > small).all()


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.linear])
def test_linear_families_are_linear(name):
    family = FAMILIES[name]
    x = pictures((3, 16, 16))
    assert family.severities[-1] == 1
    for s in (0.1, 0.37, 0.9):
        expected = x + s * (family(x, 1.0) - x)
        torch.testing.assert_close(family(x, s), expected, rtol=0, atol=1e-6)


def test_darkness_of_a_grey_image_in_closed_form():
    """All of 64 pixels move by s: 8 s < a, on the grid; of l1, 64 s < a."""
    x = torch.full((1, 1, 8, 8), 0.5)
    family = FAMILIES["darker"]
    for norm, size in ((2, 8), (1, 64)):
        axes = torch.full((1, 1, 1, 1), 1.3)
        expected = max(s for s in family.severities if size * s < 1.3)
        assert covered_severity(family, x, axes, norm).item() == expected
        nothing = torch.full((1, 1, 1, 1), 1e-75)
        assert covered_severity(family, x, nothing, norm).item() == 0


def test_what_a_linear_family_covers_is_what_a_fine_grid_finds():
    x = pictures((3, 16, 16))
    axes = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)) + 0.5
    for norm, name in ((2, "contrast"), (1, "saturation")):
        family = FAMILIES[name]
        scaled = axes * (30 if norm == 1 else 1)
        covered = covered_severity(family, x, scaled, norm)
        assert ((covered > 0) & (covered < 1)).any()
        for image, a, s in zip(x, scaled, covered.tolist(), strict=True):
            region = Region(image, a, norm)
            for factor, inside in ((0.999, True), (1.001, False)):
                if s * factor < 1:
                    y = family(image[None], s * factor)[0]
                    assert region.contains(y).item() == inside
    assert covered_severity(family, x, 1e6 * axes, 2).tolist() == [1.0] * 4


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("shape, name", cases())
def test_up_to_the_covered_severity_all_lies_inside_and_the_next_does_not(shape, name, norm):
    """Several regions an image at once, as one by one."""
    family = FAMILIES[name]
    x = pictures(shape)
    axes = torch.tensor([0.3, 1.0, 3.0]).reshape(3, 1, 1, 1, 1).expand(3, *x.shape)
    axes = axes * (math.sqrt(x[0].numel()) if norm == 1 else 1)
    covered = covered_severity(family, x, axes, norm)
    assert covered.shape == (3, 4) and (covered.diff(dim=0) >= 0).all()
    if family.linear:
        return
    for a, of_a in zip(axes, covered, strict=True):
        torch.testing.assert_close(covered_severity(family, x, a, norm), of_a)
        for image, axis, found in zip(x, a, of_a.tolist(), strict=True):
            region = Region(image, axis, norm)
            inside = [region.contains(family(image[None], s)[0]).item() for s in family.severities]
            first_out = inside.index(False) if False in inside else len(inside)
            assert found == ([0, *family.severities][first_out])


def test_the_class_holds_at_every_covered_severity():
    """A half-space that reads the brightness: at all covered severities its certified class is the
    smoothed one in closed form; the certificate fails with probability 0.001.
    """
    w = torch.ones(1, 8, 8)
    model = Classifier(HalfSpace(w / w.norm(), 0.4))
    x = torch.full((1, 1, 8, 8), 0.5)
    [c] = certify(model, x, GaussianNoise(0.25), n=10_000, alpha=0.001, seed=0)
    for name in families_for((1, 8, 8)):
        family = FAMILIES[name]
        covered = covered_severity(family, x, c.region.axes.expand_as(x), 2).item()
        for severity in (s for s in family.severities if s <= covered):
            assert model(family(x, severity)).argmax().item() == c.prediction
