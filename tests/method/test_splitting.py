"""Random splits: every claim by looking at all images and all draws, since there are few."""

import itertools
import math

import pytest
import torch
from torch import nn

import ancer
from ancer import Classifier, SplittingNoise, UniformNoise
from ancer.bases.named import basis_named
from ancer.smoothing import SmoothedClassifier

LEVELS = 3  # pixels are 0, 1/3, 2/3, 1
ALL = torch.tensor(list(itertools.product(range(LEVELS + 1), repeat=4))).float()
ALL = (ALL / LEVELS).reshape(-1, 1, 2, 2)  # every image of 2x2 pixels
BUDGET = {"n": 100, "alpha": 0.001, "seed": 0}


class AnyPhases(SplittingNoise):
    """Clocks that are ahead by anything: those of a seed."""

    seed = 0

    def phases(self, shape):
        stream = torch.Generator().manual_seed(self.seed)
        return torch.rand(shape, generator=stream, dtype=torch.float64)


def network(seed, classes=3):
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Flatten(), nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, classes))
    with torch.no_grad():
        for weights in made.parameters():
            weights.mul_(5)
    return made


def copies(noise, x):
    """All noisy copies of images x, by tick: (B, M, ...)."""
    queries = SmoothedClassifier(nn.Linear(1, 2), noise).queries(x)
    stream = queries.stream(0, "certify")
    (ticks,) = set(queries.ticks)
    blocks = [stream._block(list(range(len(x)))) for _ in range(math.ceil(ticks / 100))]
    return torch.cat(blocks, dim=1)[:, :ticks]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["one theta", "one an image", "one a pixel"])
@pytest.mark.parametrize("law", [SplittingNoise, AnyPhases])
def test_every_certified_image_keeps_its_class(law, kind, seed):
    """Not one of some 10^4 pairs; and certificates are no empty claim."""
    torch.manual_seed(seed)
    x = ALL[torch.randperm(len(ALL))[:25]]
    theta = {
        "one theta": 0.3 + 2 * torch.rand(()),
        "one an image": 0.3 + 2 * torch.rand(len(x)),
        "one a pixel": 0.1 + 3 * torch.rand(len(x), 1, 2, 2),
    }[kind]
    noise = law(theta, lattice=1 / LEVELS)
    noise.seed = seed
    model = network(seed)
    pairs = 0
    for c in ancer.certify(model, x, noise, **BUDGET):
        if c.region is not None:
            inside = ALL[c.region.contains(ALL.double())]
            answers = ancer.predict(model, inside, noise.with_theta(c.theta[None]), **BUDGET)
            assert (answers == c.prediction).all()
            pairs += len(inside)
    assert pairs > 25


def test_no_larger_gap_would_hold():
    """A network that looks at one pixel: its class changes at the first image outside."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0] * 4, [1.0, 0, 0, 0]]))
        model[1].bias.copy_(torch.tensor([0.5, 0.0]))
    for theta in (0.5, 5 / 6, 1.0):
        noise = SplittingNoise(theta, lattice=1 / LEVELS)
        (c,) = ancer.certify(model, torch.zeros(1, 1, 2, 2), noise, **BUDGET)
        along = torch.zeros(LEVELS + 1, 1, 2, 2)
        along[:, 0, 0, 0] = torch.arange(LEVELS + 1) / LEVELS
        inside = c.region.contains(along.double())
        same = ancer.predict(model, along, noise, **BUDGET) == c.prediction
        assert torch.equal(inside, same) and 1 < inside.sum() < LEVELS + 1


@pytest.mark.parametrize("law", [SplittingNoise, AnyPhases])
def test_each_step_is_cut_at_its_number_of_ticks(law):
    theta = torch.tensor([3.0, 1.5, 0.9, 0.2]).reshape(1, 1, 2, 2)
    noise = law(theta, lattice=1 / 7)
    black = torch.zeros(1, 1, 2, 2)
    seen = [copies(noise, black + k / 7) for k in range(8)]
    cuts = noise.cuts(noise.theta_for(black).double() * 7)
    assert cuts[0, 0].tolist() != [[1, 1], [1, 1]]
    for below, above in itertools.pairwise(seen):
        assert torch.equal((below != above).sum(dim=1).double(), cuts)
        assert (above >= below).all()


def test_a_copy_depends_on_the_interval_alone():
    """Levels of one interval look alike, and at its middle inside [0, 1]."""
    x = (torch.arange(8) / 7).reshape(8, 1)
    found = copies(SplittingNoise(2 / 7, lattice=1 / 7), x)
    assert found.shape == (8, 4, 1)
    for tick in found[..., 0].T:
        sizes = tick.unique(return_counts=True)[1]
        assert sizes.max() == 4 and sizes.sum() == 8
    assert found.min() >= 0 and found.max() <= 1


def test_the_first_draws_are_spread_and_all_are_each_once():
    noise = SplittingNoise(25.0, lattice=1.0)  # 50 ticks, two levels
    found = copies(noise, torch.zeros(1, 1))[0, :, 0]
    assert (found != found.mode().values).sum() == 1  # the one tick at which 0 and 1 are cut
    with pytest.raises(TypeError, match="endlessly many"):
        UniformNoise(0.5).ticks(torch.ones(1, 1))


def test_phases_are_spread_over_the_image():
    phases = SplittingNoise(0.5).phases((3, 16, 16))
    assert phases.shape == (3, 16, 16) and 0 <= phases.min() and phases.max() < 1
    share = phases.flatten().histc(16, 0, 1) / phases.numel()
    assert (share * 16 - 1).abs().max() < 0.1
    # also of each quarter of the image
    share = phases[:, :8, 8:].flatten().histc(8, 0, 1) / 192
    assert (share * 8 - 1).abs().max() < 0.3


def test_a_scale_that_was_snapped_stays():
    torch.manual_seed(0)
    noise = SplittingNoise(0.1 + 3 * torch.rand(5, 1, 4, 4), lattice=1 / 16)
    x = torch.zeros(5, 1, 4, 4)
    once = noise.theta_for(x, 1 / 16)
    kept = noise.with_theta(once.float()).theta_for(x, 1 / 16)
    assert torch.allclose(once, kept, rtol=1e-12)
    assert (once / noise.theta - 1).abs().max() < 0.5


def test_certificates_are_without_chance():
    """Of all draws, at alpha 0, whatever the budget; alone, in any order, in any batches."""
    model = network(1)
    x = ALL[::31]
    theta = 0.4 + 2 * ALL[: len(x)]
    noise = SplittingNoise(theta, lattice=1 / LEVELS)
    found = ancer.certify(model, x, noise, **BUDGET)
    small = Classifier(model, batch_size=7)
    stopped = ancer.certify(small, x, noise, n=20, alpha=0.1, seed=5, stop=ancer.Hopeless(9.0))
    for i, (c, other) in enumerate(zip(found, stopped, strict=True)):
        assert c.alpha == 0 and c.n == round(2 * c.theta.max().item() * LEVELS)
        assert sum(c.votes.values()) == c.n and "alpha = 0" in str(c)
        assert (other.votes, other.gap) == (c.votes, c.gap)
        of_one = noise.with_theta(theta[i : i + 1])
        (alone,) = ancer.certify(model, x[i : i + 1], of_one, indices=[i], **BUDGET)
        assert alone.votes == c.votes


def test_a_tie_is_no_answer():
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0], [1.0]]))
        model[1].bias.copy_(torch.tensor([0.5, 0.0]))
    black = torch.zeros(1, 1)
    noise = SplittingNoise(1.0, lattice=1.0)  # two ticks: it is seen alone, or together with white
    (c,) = ancer.certify(model, black, noise, **BUDGET)
    assert c.votes == {0: 2}  # its middle is 1/2, which is no more than 1/2
    model[1].bias.data[0] = 0.25
    (c,) = ancer.certify(model, black, noise, **BUDGET)
    assert c.votes == {0: 1, 1: 1} and c.prediction == ancer.ABSTAIN and c.gap == 0
    assert ancer.predict(model, black, noise, **BUDGET).tolist() == [ancer.ABSTAIN]


def test_the_best_of_several_is_free():
    """Each candidate's certificate is its own, and the largest is reported, at alpha 0."""
    x = ALL[::17]
    candidates = {
        str(theta): SplittingNoise(theta, lattice=1 / LEVELS) for theta in (0.5, 0.7, 4 / 3)
    }
    found = ancer.certify_best(network(2), x, candidates, **BUDGET)
    alone = {
        name: ancer.certify(network(2), x, noise, **BUDGET) for name, noise in candidates.items()
    }
    for i, best in enumerate(found):
        assert best.alpha == 0 and best.draws == sum(cs[i].n for cs in alone.values())
        for name, certificate in best.certificates.items():
            assert certificate.votes == alone[name][i].votes
            assert certificate.gap == alone[name][i].gap and certificate.alpha == 0
        assert best.log_volume == max(cs[i].log_volume for cs in alone.values())


def test_the_memory_takes_them():
    model = network(3)
    noise = SplittingNoise(1.0, lattice=1 / LEVELS)
    found = ancer.certify(model, ALL[:60], noise, **BUDGET)
    with ancer.Memory() as memory:
        answers = [memory.answer(certificate) for certificate in found]
    assert any(answer.region is not None for answer in answers)
    for a, b in itertools.combinations([a for a in answers if a.region is not None], 2):
        if a.prediction != b.prediction:
            inside = a.region.contains(ALL.double()) & b.region.contains(ALL.double())
            assert not inside.any()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: SplittingNoise(0.5, lattice=None), "floating-point data.*UniformNoise"),
        (lambda: SplittingNoise(0.5, lattice=0.3), "1 / a whole number"),
        (lambda: SplittingNoise(0.5, basis=basis_named("dct", (1, 8, 8))), "pixels only"),
        (lambda: SplittingNoise(-1.0), "must be finite and > 0 in torch.float32, found -1"),
    ],
)
def test_what_has_no_splits_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_images_off_the_lattice_are_refused():
    noise = SplittingNoise(0.5, lattice=1 / 4)
    with pytest.raises(ValueError, match="not on the lattice 1/4"):
        ancer.certify(network(0), torch.full((1, 1, 2, 2), 0.3), noise, **BUDGET)
    with pytest.raises(ValueError, match="its own lattice, found lattice=0.0039"):
        ancer.certify(network(0), ALL[:1], noise, exact=True, **BUDGET)


def test_what_optimizers_see_is_what_is_counted():
    """The relaxed copies are near the true ones, and move with theta."""
    noise = SplittingNoise(0.7, lattice=1 / 255)
    x = (torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    z = 2 * torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(1)) - 1
    theta = torch.full((2, 1, 1, 1, 1), 0.7, dtype=torch.float64)
    on_the_clock = noise._on_the_clock(z)
    seen = noise.around(x[:, None], theta, on_the_clock[None])
    smooth = noise.relaxed(x[:, None], theta, z)
    far = (seen - smooth).abs()
    # of an interval of 357 ticks, one falls on either side of a cut
    assert far.flatten().quantile(0.98) < 1.5 / 255
    # an interval grows to both sides of the pixel, as far as [0, 1] goes
    theta = torch.full((2, 1, 3, 4, 4), 0.7, requires_grad=True)
    smooth = noise.relaxed(x[:, None], theta, z)
    (gradient,) = torch.autograd.grad(smooth.sum(), theta)
    assert gradient.abs().max() <= 5 and (gradient != 0).any()


def test_the_search_finds_larger_regions():
    """On a half-space of the mean: isotropic above fixed, anisotropic above isotropic."""

    class Mean(nn.Module):
        def forward(self, x):
            margin = 40 * (x[..., 0, :].mean(dim=(1, 2)) - 0.5)  # of the upper pixels alone
            return torch.stack([margin, -margin], dim=1)

    x = torch.tensor([[1.0, 1.0], [0.0, 1 / 3]]).reshape(1, 1, 2, 2).repeat(4, 1, 1, 1)
    fixed = SplittingNoise(0.5, lattice=1 / LEVELS)
    start = fixed.with_theta(ancer.optimize_isotropic(Mean(), x, fixed, seed=0, draws=50))
    bounded = {"iterations": 20, "enlarge": 1.0, "growth": 8.0, "tolerance": 0.0}
    theta = ancer.optimize_anisotropic(Mean(), x, start, seed=0, **bounded)
    ratio = theta / start.theta_for(x)
    assert ratio.min() >= 1 and ratio.max() <= 8.0 and theta.dtype == x.dtype
    sizes = []
    for noise in (fixed, start, start.with_theta(theta)):
        (c, *_) = ancer.certify(Mean(), x, noise, **BUDGET)
        sizes.append(c.proxy_radius)
    assert sizes[0] > 0 and sizes[1] >= sizes[0] and sizes[2] > 1.3 * sizes[1]
    with pytest.raises(ValueError, match="growth must be >= enlarge = 1.3, found 1"):
        ancer.optimize_anisotropic(Mean(), x, start, seed=0, growth=1.0)


def test_within_growth_no_image_is_lost_to_its_ascent():
    """Where the class that leads at the start loses at every larger theta, the start is kept."""

    class Narrow(nn.Module):
        def forward(self, x):  # class 0 while the pixels are told apart
            margin = 40 * (x.flatten(1).std(dim=1) - 0.3)
            return torch.stack([margin, -margin], dim=1)

    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 1, 2, 2)
    start = SplittingNoise(0.5, lattice=1 / LEVELS)
    budget = {"iterations": 20, "search_draws": 50}
    assert ancer.certify(Narrow(), x, start, **BUDGET)[0].prediction == 0
    for growth, prediction in ((6.0, 0), (float("inf"), 1)):
        theta = ancer.optimize_anisotropic(
            Narrow(), x, start, seed=0, enlarge=5.0, growth=growth, **budget
        )
        noise = start.with_theta(theta)
        assert ancer.certify(Narrow(), x, noise, **BUDGET)[0].prediction == prediction
