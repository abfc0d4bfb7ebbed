"""Regions shaped to perturbations, and one theta for all images."""

import math

import pytest
import torch
from problems import HalfSpace

from ancer import GaussianNoise, certify, optimize_anisotropic, optimize_dataset
from ancer.bases import basis_named
from ancer.bases.basis import PIXELS
from ancer.classifier import Classifier
from ancer.optimization.anisotropic import log_reach
from ancer.perturbations.coverage import covered_severity
from ancer.perturbations.families import FAMILIES, families_for
from ancer.perturbations.shares import energy_shares, perturbations_of

SHAPE = (1, 8, 8)
DCT = basis_named("dct8", SHAPE)
LIGHT = {"brighter": 0.2, "darker": 0.2}


def images(count=4, seed=0):
    stream = torch.Generator().manual_seed(seed)
    return torch.randint(4, 13, (count, *SHAPE), generator=stream) / 16


def striped():
    """A half-space along one cosine, which says nothing of brightness."""
    unit = torch.zeros(SHAPE)
    unit[0, 3, 2] = 1
    w = DCT.back(unit)
    return Classifier(HalfSpace(w, 0.3, steepness=20.0), batch_size=2000)


# --- shares of energy


def test_brightness_of_a_grey_image_is_its_mean_alone():
    x = torch.full((2, *SHAPE), 0.5)
    shares = energy_shares(DCT, x, perturbations_of(LIGHT))
    assert shares[:, 0, 0, 0].tolist() == pytest.approx([1, 1])
    flat = energy_shares(PIXELS, x, perturbations_of(LIGHT))
    torch.testing.assert_close(flat, torch.full_like(flat, 1 / 64))


def test_shares_are_means_over_the_perturbations_that_change_something():
    x = images()
    functions = perturbations_of({"brighter": 0.1, "blur": 0.5})
    both = energy_shares(DCT, x, functions)
    each = [energy_shares(DCT, x, [f]) for f in functions]
    torch.testing.assert_close(both, sum(each) / 2)
    torch.testing.assert_close(both.flatten(1).sum(dim=1), torch.ones(4, dtype=torch.float64))
    assert torch.equal(energy_shares(DCT, x, [*functions, lambda y: y]), both)
    assert energy_shares(DCT, x, [lambda y: y]).eq(0).all()
    assert energy_shares(DCT, x, []).eq(0).all()


def twice_as_dark(x, severity):
    return x * (1 - severity)


def test_perturbations_by_name_and_of_ones_own():
    x = images(1)
    (by_name,) = perturbations_of({f"{__name__}:twice_as_dark": 0.5})
    assert torch.equal(by_name(x), x / 2)
    assert perturbations_of([torch.sqrt])[0] is torch.sqrt
    (blur,) = perturbations_of({"blur": 0.5})
    assert torch.equal(blur(x), FAMILIES["blur"](x, 0.5))
    with pytest.raises(ValueError, match="did you mean 'brighter'"):
        perturbations_of({"bright": 0.5})
    with pytest.raises(ValueError, match="severity of blur must be > 0, found 0"):
        perturbations_of({"blur": 0})


def test_reach_is_the_gap_over_the_scaled_size():
    """A perturbation whose energy has these shares leaves the region at exp(log_reach) * gap."""
    theta = 0.1 + torch.rand(1, 64, generator=torch.Generator().manual_seed(0))
    u = torch.randn(1, 64, generator=torch.Generator().manual_seed(1))
    u /= u.norm()
    reach = log_reach(u.square(), theta.log()).exp()
    assert (reach * u / theta).norm().item() == pytest.approx(1, rel=1e-5)


# --- shaping


@pytest.mark.parametrize("basis", [PIXELS, DCT], ids=["pixels", "dct8"])
def test_a_region_reaches_farther_towards_what_it_is_shaped_to(basis):
    """In both bases; in cosines, where brightness is a coordinate, much."""
    x = images()
    w = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3)) / 8
    f = Classifier(HalfSpace(w, 0.4, steepness=20.0), batch_size=2000)
    noise = GaussianNoise(0.25, basis=basis)
    options = {"seed": 0, "iterations": 30, "draws": 16, "step": 0.3, "search_draws": 100}
    reached = []
    for toward, mix in ((None, 0.5), (LIGHT, 0.5), (LIGHT, 1.0)):
        theta = optimize_anisotropic(f, x, noise, toward=toward, mix=mix, **options)
        of_images = noise.with_theta(theta)
        found = certify(f, x, of_images, n=2000, alpha=0.001, seed=0)
        axes = torch.stack([c.theta.double() * c.gap for c in found])
        light = covered_severity(FAMILIES["brighter"], x, axes.clamp(min=1e-75), 2, basis)
        reached.append(light.mean().item())
    assert reached[1] >= reached[0] and reached[2] >= reached[0]
    if basis is DCT:
        assert reached[1] > 1.5 * reached[0]


def test_no_mix_of_perturbations_is_volume_alone():
    x = images(2)
    noise = GaussianNoise(0.25, basis=DCT)
    options = {"seed": 0, "iterations": 5, "draws": 8, "search_draws": 50}
    volume = optimize_anisotropic(network8(), x, noise, **options)
    assert torch.equal(
        optimize_anisotropic(network8(), x, noise, toward=LIGHT, mix=0, **options), volume
    )
    shaped = optimize_anisotropic(network8(), x, noise, toward=LIGHT, **options)
    assert not torch.equal(shaped, volume) and shaped.shape == x.shape
    assert (shaped >= 0.79 * 1.3 * 0.25).all()  # the floor, by the smallest last scale


def network8():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"toward": LIGHT, "mix": 1.5}, "mix must lie in"),
        ({"toward": LIGHT, "mix": -0.1}, "mix must lie in"),
        ({"toward": {"sparkle": 0.5}}, "unknown family"),
        ({"window": 3}, "window must be 1 in basis dct8, found 3"),
    ],
)
def test_bad_options_are_named_before_any_work(options, message):
    noise = GaussianNoise(0.25, basis=DCT)
    with pytest.raises(ValueError, match=message):
        optimize_anisotropic(network8(), images(), noise, seed=0, **options)


# --- one theta for all


def test_one_theta_for_all_finds_the_half_spaces_free_coordinates():
    """The same for all, large where the network does not look; ordinary certificates."""
    f = striped()
    noise = GaussianNoise(0.25, basis=DCT)
    x = images(12)
    theta = optimize_dataset(f, x, noise, seed=0, epochs=20, draws=16)
    assert theta.shape == (1, *SHAPE) and (theta >= 0.25 * (1 - 1e-6)).all()
    seen = theta[0, 0, 3, 2]
    others = theta.flatten()[theta.flatten() != seen]
    assert others.min() > 1.3 * seen
    test = images(6, seed=9)
    ours = certify(f, test, noise.with_theta(theta), n=2000, alpha=0.001, seed=0)
    fixed = certify(f, test, GaussianNoise(0.25), n=2000, alpha=0.001, seed=0)
    for c, before in zip(ours, fixed, strict=True):
        assert c.prediction == before.prediction and c.theta.shape == SHAPE
        assert c.proxy_radius > before.proxy_radius
    again = optimize_dataset(f, x, noise, seed=0, epochs=20, draws=16)
    assert torch.equal(again, theta)


def test_one_theta_is_refused_where_nothing_has_a_class_or_starts_differ():
    def undecided(x):
        return torch.stack([x.flatten(1)[:, 0] * 0] * 3, dim=1)

    class Random(torch.nn.Module):
        def forward(self, x):
            return (x.flatten(1)[:, :3] * 1e6).sin()

    x = images(3)
    with pytest.raises(ValueError, match="none of 3 images has a class|no image of 3"):
        optimize_dataset(Random(), x, GaussianNoise(0.5), seed=0)
    with pytest.raises(ValueError, match="starts from one number"):
        optimize_dataset(striped(), x, GaussianNoise(torch.tensor([0.1, 0.2, 0.3])), seed=0)
    with pytest.raises(ValueError, match="epochs|iterations"):
        optimize_dataset(striped(), x, GaussianNoise(0.1), seed=0, epochs=0)


# --- coverage in a basis


@pytest.mark.parametrize("name", families_for(SHAPE))
def test_up_to_the_covered_severity_all_lies_inside_and_the_next_does_not(name):
    x = images(3, seed=2)
    stream = torch.Generator().manual_seed(4)
    axes = (0.5 * torch.randn(3, *SHAPE, generator=stream, dtype=torch.float64)).exp() * 0.4
    family = FAMILIES[name]
    covered = covered_severity(family, x, axes, 2, DCT).tolist()
    from ancer import Region

    for image, axis, found in zip(x, axes, covered, strict=True):
        held = Region(image, axis, 2, DCT)
        if family.linear:
            assert found == family.severities[-1] or math.isclose(
                held.scaled_distance(family(image[None], found)[0]), 1, rel_tol=1e-5
            )
        else:
            inside = [held.contains(family(image[None], s)[0]).item() for s in family.severities]
            first_out = inside.index(False) if False in inside else len(inside)
            assert found == ([0, *family.severities][first_out])
