"""The losses against their definitions, by hand and in closed form."""

import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from problems import HalfSpace, Outputs, Recorder, network
from scipy import special, stats
from torch import nn
from torch.nn import functional as F

from ancer.noise.sampled import LAWS, GaussianNoise
from ancer.training.attacks import ATTACKS
from ancer.training.checks import within
from ancer.training.losses import (
    CLASSIFIERS,
    SCHEMES,
    augmentation_loss,
    macer_loss,
    smoothadv_loss,
    stability_loss,
)

IMAGES = torch.arange(8 * 16).reshape(8, 1, 4, 4) / 128
LABELS = torch.arange(8) % 4
# options that keep tests short
CHEAP = {"macer": {"draws": 3}, "smoothadv": {"epsilon": 0.25, "draws": 2}}


def linear(steepness=1.0):
    """Four classes with fixed weights."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    with torch.no_grad():
        module[1].weight.copy_(
            steepness * torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
        )
        module[1].bias.zero_()
    return module


def drawer(noise=None, x=IMAGES, seed=0):
    """What `train` gives to a loss: fresh noise at each call."""
    noise = noise or GaussianNoise(0.5)
    stream = torch.Generator().manual_seed(seed)
    return lambda: noise.theta * noise.unit(x.shape, generator=stream, dtype=x.dtype)


def silent(x=IMAGES):
    return lambda: torch.zeros_like(x)


def loss_of(scheme, module, x=IMAGES, labels=LABELS, draw=None, done=0.5, **options):
    return SCHEMES[scheme](
        module, x, labels, draw or drawer(x=x), done, **CHEAP.get(scheme, {}) | options
    )


# --- all schemes


@pytest.mark.parametrize("scheme", CLASSIFIERS)
def test_a_loss_is_a_differentiable_number_and_leaves_its_inputs_alone(scheme):
    module, x, labels = network(), IMAGES.clone(), LABELS.clone()
    loss = loss_of(scheme, module, x, labels)
    assert loss.shape == () and loss.isfinite() and loss > 0
    assert torch.equal(x, IMAGES) and torch.equal(labels, LABELS) and not x.requires_grad
    loss.backward()
    assert all(
        p.grad.isfinite().all() and p.grad.any()
        for name, p in module.named_parameters()
        if name != "bias"
    )


@pytest.mark.parametrize("scheme", CLASSIFIERS)
def test_options_are_keywords_with_defaults(scheme):
    """So that `train` can name the unknown ones."""
    parameters = [*inspect.signature(SCHEMES[scheme]).parameters.values()]
    assert [p.name for p in parameters[:5]] == ["module", "x", "labels", "draw", "done"]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters[5:])


@pytest.mark.parametrize(
    "scheme, options",
    [
        ("stability", {"weight": 6.0}),
        ("macer", {"draws": 16, "weight": 12 * 0.25 / 2, "hinge": 8.0, "sharpness": 16.0}),
    ],
)
def test_defaults_are_the_published_ones(scheme, options):
    losses = [
        SCHEMES[scheme](linear(), IMAGES, LABELS, drawer(), 0.5, **given) for given in ({}, options)
    ]
    assert torch.equal(*losses)


@pytest.mark.parametrize(
    "scheme, copies", [("augmentation", 1), ("stability", 2), ("smoothadv", 1), ("macer", 16)]
)
def test_defaults_draw_so_many_copies(scheme, copies):
    draw, count = drawer(), []
    SCHEMES[scheme](linear(), IMAGES, LABELS, lambda: count.append(0) or draw(), 0.5)
    assert len(count) == copies


@pytest.mark.parametrize("scheme", CLASSIFIERS)
@pytest.mark.parametrize("shape", [(2,), (3, 8, 8), (2, 3, 4, 4)])
def test_images_of_any_shape(scheme, shape):
    x = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0))
    module = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 4))
    assert loss_of(scheme, module, x, LABELS[:5]).isfinite()


# --- augmentation and stability


def test_augmentation_loss_is_cross_entropy_of_one_noisy_copy():
    module = linear()
    loss = augmentation_loss(module, IMAGES, LABELS, drawer(), 0.5)
    assert torch.equal(loss, F.cross_entropy(module(IMAGES + drawer()()), LABELS))


@pytest.mark.parametrize("law", LAWS)
def test_stability_loss_is_cross_entropy_where_noise_is_negligible(law):
    module = linear()
    loss = stability_loss(module, IMAGES, LABELS, drawer(LAWS[law](1e-7)), 0.5)
    assert loss.item() == pytest.approx(F.cross_entropy(module(IMAGES), LABELS).item(), abs=1e-5)
    assert torch.equal(
        stability_loss(module, IMAGES, LABELS, silent(), 0.5),
        F.cross_entropy(module(IMAGES), LABELS),
    )


@pytest.mark.parametrize("weight", [0.0, 1.0, 6.0])
def test_stability_loss_by_the_definition_of_the_divergence(weight):
    """Cross-entropy of the first copy + weight * mean KL(first || second), by scipy."""
    module, draw = linear(), drawer()
    first, second = (module(IMAGES + draw()).detach().double().softmax(1).numpy() for _ in range(2))
    divergence = stats.entropy(first, second, axis=1).mean()
    expected = -np.log(first[np.arange(8), LABELS.numpy()]).mean() + weight * divergence
    loss = stability_loss(module, IMAGES, LABELS, drawer(), 0.5, weight=weight)
    assert divergence > 0.01 and loss.item() == pytest.approx(expected, rel=1e-5)


# --- MACER


class Table(nn.Module):
    """Logits (draws, B, K) that are its parameters, whatever the images."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(logits, dtype=torch.float32))

    def forward(self, x):
        assert len(x) == self.logits.shape[0] * self.logits.shape[1]
        return self.logits.flatten(0, 1)


def restated(logits, labels, *, lbd, sigma, gamma, beta):
    """Algorithm 1 of Zhai et al. (2020) for logits (draws, B, K).

    Loss, and which images its second part counts.
    """
    rows = np.arange(len(labels))
    smoothed = special.logsumexp(special.log_softmax(logits, 2), 0) - np.log(len(logits))
    classification = -smoothed[rows, labels].sum()
    sharp = special.softmax(beta * logits, 2).mean(0)
    order = sharp.argsort(1)
    with np.errstate(invalid="ignore"):
        gap = stats.norm.ppf(sharp[rows, order[:, -1]]) - stats.norm.ppf(sharp[rows, order[:, -2]])
    counts = (order[:, -1] == labels) & np.isfinite(gap) & (gap <= gamma)
    robustness = (sigma / 2 * (gamma - gap[counts])).sum()
    return (classification + lbd * robustness) / len(labels), counts


def macer_case(draws=5):
    """Logits (draws, 16, 4) from near one another to far apart, and labels.

    Three of four labels name the largest.
    """
    rng = np.random.default_rng(0)
    centre = np.geomspace(0.02, 1, 16)[:, None] * rng.standard_normal((16, 4))
    logits = centre + 0.05 * rng.standard_normal((draws, 16, 4))
    labels = np.where(np.arange(16) % 4 == 0, centre.argmin(1), centre.argmax(1))
    return logits.astype(np.float32).astype(float), labels


MACER = [
    (12.0, 0.25, 8.0, 16.0),
    (4.0, 0.5, 1.5, 16.0),
    (6.0, 1.0, 3.0, 4.0),
    (12.0, 0.25, 0.3, 1.0),
]


def macer_of(module, labels, draws, *, lbd, sigma, gamma, beta):
    x = torch.zeros(len(labels), 1, 2, 2)
    return macer_loss(
        module,
        x,
        torch.as_tensor(labels),
        silent(x),
        0.5,
        draws=draws,
        weight=lbd * sigma / 2,
        hinge=gamma,
        sharpness=beta,
    )


@pytest.mark.parametrize("lbd, sigma, gamma, beta", MACER)
@pytest.mark.parametrize("draws", [1, 2, 5])
def test_macer_loss_is_algorithm_1(draws, lbd, sigma, gamma, beta):
    settings = {"lbd": lbd, "sigma": sigma, "gamma": gamma, "beta": beta}
    logits, labels = macer_case(draws)
    expected, counts = restated(logits, labels, **settings)
    assert 2 <= counts.sum() <= 12  # some count and some do not
    assert macer_of(Table(logits), labels, draws, **settings).item() == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize("lbd, sigma, gamma, beta", MACER)
def test_macer_gradients_by_finite_differences(lbd, sigma, gamma, beta):
    settings = {"lbd": lbd, "sigma": sigma, "gamma": gamma, "beta": beta}
    logits, labels = macer_case()
    module = Table(logits)
    macer_of(module, labels, 5, **settings).backward()
    expected, h = np.empty_like(logits), 1e-6
    for i in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[i] = h
        expected[i] = np.subtract(
            *[restated(logits + s * step, labels, **settings)[0] for s in (1, -1)]
        ) / (2 * h)
    assert module.logits.grad.numpy() == pytest.approx(
        expected, rel=1e-3, abs=1e-4 * np.abs(expected).max()
    )


def test_macer_counts_only_correct_finite_images_below_the_hinge():
    """One image of each kind, K = 3.

    The others have exactly the value and the gradient of the cross-entropy.
    """
    kinds = {
        "counts": [0.1, 0.0, -0.1],
        "wrong": [0.0, 0.1, -0.1],
        "certain": [1e3, 0.0, 0.0],  # p = 1 and 0: the gap is infinite
        "sure": [0.75, 0.0, -0.5],  # gap 8.7
        "certainly wrong": [0.0, 1e3, 0.0],
        "wrong beyond the hinge": [0.0, 0.75, -0.5],
    }
    logits, labels = np.array([[*kinds.values()]] * 4), np.zeros(6, dtype=int)
    settings = {"lbd": 12.0, "sigma": 0.25, "gamma": 8.0, "beta": 16.0}
    expected, counts = restated(logits, labels, **settings)
    assert counts.tolist() == [True, *[False] * 5]
    module = Table(logits)
    macer_of(module, labels, 4, **settings).backward()
    full = module.logits.grad.clone()
    module.logits.grad = None
    loss = macer_of(module, labels, 4, **settings | {"lbd": 0.0})
    loss.backward()
    assert full.isfinite().all()
    assert torch.equal(full[:, 1:], module.logits.grad[:, 1:])
    assert not torch.equal(full[:, 0], module.logits.grad[:, 0])
    # the hinge pushes the gap up: the class of the label up, its rival down, the third not at all
    push = (full - module.logits.grad)[:, 0]
    assert (push[:, 0] < 0).all() and (push[:, 1] > 0).all() and push.sum().abs() < 1e-5
    _, alone = restated(logits[:, 1:], labels[1:], **settings)
    none = Table(logits[:, 1:])
    loss = macer_of(none, labels[1:], 4, **settings)
    loss.backward()
    assert not alone.any() and none.logits.grad.isfinite().all()
    assert torch.equal(loss, macer_of(none, labels[1:], 4, **settings | {"lbd": 0.0}))


@pytest.mark.parametrize("confidence", [0.3, 0.9, 1.1, 3.0, 8.0, 30.0, 1e4])
@pytest.mark.parametrize("classes", [2, 10])
def test_macer_of_confident_copies_gives_no_nan(confidence, classes):
    """Probabilities of 1 and beyond it by rounding, for any number of draws."""
    for draws in range(1, 34):
        module = Table(np.tile(confidence * np.eye(classes), (draws, 1, 1)))
        loss = macer_of(
            module, np.arange(classes), draws, lbd=12.0, sigma=0.25, gamma=8.0, beta=16.0
        )
        loss.backward()
        assert loss.isfinite() and module.logits.grad.isfinite().all()


def test_macer_copies_are_noisy_copies_of_the_images():
    seen, draw = [], drawer()
    loss = macer_loss(Recorder(linear(), seen.append), IMAGES, LABELS, drawer(), 0.5, draws=3)
    (x,) = seen  # one pass
    assert torch.equal(
        x.reshape(3, *IMAGES.shape), torch.stack([IMAGES + draw() for _ in range(3)])
    )
    logits = linear()(x).detach().double().reshape(3, 8, 4).numpy()
    expected, _ = restated(logits, LABELS.numpy(), lbd=12.0, sigma=0.25, gamma=8.0, beta=16.0)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


# --- SmoothAdv


def attacked_by(module, x, labels, draw, done=1.0, **options):
    """The images that smoothadv_loss made, all inputs that the module saw, and the loss."""
    seen = []
    noise = torch.cat([draw() for _ in range(options.get("draws", 1))])
    given = iter(noise.split(len(x)))
    loss = smoothadv_loss(
        Recorder(module, lambda y: seen.append(y.detach())),
        x,
        labels,
        lambda: next(given),
        done,
        **options,
    )
    assert next(given, None) is None
    copies = torch.stack((seen[-1] - noise).split(len(x)))
    assert torch.allclose(copies, copies[:1], atol=1e-6)  # the same attack on each copy
    return copies[0], seen, loss


def half_space(w, steepness=4.0):
    """Class 0 where w . (x - 1/2) < 0; far from saturation, so that its gradient never vanishes."""
    return HalfSpace(w, 0.0, steepness)


W = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(2))
INSIDE = 0.5 + 0.1 * (torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(3)) - 0.5)


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_pgd_finds_the_worst_perturbation_of_a_half_space(steps, draws):
    """Its gradient is along w everywhere, under any noise: x +- epsilon w / ||w||."""
    labels = torch.arange(8) % 2
    x, seen, _ = attacked_by(
        half_space(W),
        INSIDE,
        labels,
        drawer(GaussianNoise(0.25)),
        epsilon=0.2,
        steps=steps,
        draws=draws,
    )
    sign = (1 - 2.0 * labels).reshape(-1, 1, 1, 1)
    assert torch.allclose(x, INSIDE + sign * 0.2 * W / W.norm(), atol=2e-6)
    assert [len(s) for s in seen] == [8 * draws] * (steps + 1)


def test_steps_of_pgd_have_length_2_epsilon_over_steps():
    _, seen, _ = attacked_by(half_space(W), INSIDE, LABELS * 0, silent(), epsilon=0.2, steps=5)
    for at, length in zip(seen, [0.0, 0.08, 0.16, 0.2, 0.2, 0.2], strict=True):
        assert (at - INSIDE).flatten(1).norm(dim=1).numpy() == pytest.approx(length, abs=1e-6)


@pytest.mark.parametrize("draws", [1, 4])
def test_the_attack_climbs_the_loss_of_the_mean_probabilities(draws):
    """One step is along the gradient of -log mean_i p_i(label), by hand for a linear classifier."""
    module, draw = linear(), drawer(GaussianNoise(1.0), INSIDE)
    x, seen, _ = attacked_by(module, INSIDE, LABELS, draw, epsilon=0.01, steps=1, draws=draws)
    w = module[1].weight.detach().double().numpy()
    p = special.softmax(seen[0].flatten(1).double().numpy() @ w.T, 1).reshape(draws, 8, 4)
    own = p[:, np.arange(8), LABELS.numpy()]  # (draws, B)
    gradient = -(own[..., None] * (w[LABELS.numpy()] - p @ w)).mean(0) / own.mean(0)[:, None]
    expected = 0.01 * gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    assert (x - INSIDE).flatten(1).numpy() == pytest.approx(expected, abs=2e-5)


def test_the_noise_of_the_attack_is_the_noise_of_the_training():
    draw, other = drawer(), drawer()
    noise = torch.cat([draw() for _ in range(3)])
    _, seen, _ = attacked_by(linear(), IMAGES, LABELS, other, epsilon=0.5, steps=4, draws=3)
    assert torch.equal(seen[0], IMAGES.repeat(3, 1, 1, 1) + noise)
    for at in seen:
        delta = torch.stack((at - noise).split(8)) - IMAGES
        assert (
            torch.allclose(delta, delta[:1], atol=1e-6)
            and (delta.flatten(2).norm(dim=2) < 0.5 + 1e-5).all()
        )


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("draws", [1, 3])
def test_smoothadv_loss_is_the_cross_entropy_at_the_attacked_images(draws, attack):
    module = linear(0.5)
    _, seen, loss = attacked_by(
        module, IMAGES, LABELS, drawer(), attack=attack, epsilon=0.5, steps=3, draws=draws
    )
    logits = module(seen[-1]).detach().double().log_softmax(1).reshape(draws, 8, 4)
    assert loss.item() == pytest.approx(-logits[:, torch.arange(8), LABELS].mean().item(), rel=1e-5)
    loss.backward()
    gradients = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    # the attack is a constant
    F.cross_entropy(module(seen[-1].detach()), LABELS.repeat(draws)).backward()
    for p, gradient in zip(module.parameters(), gradients, strict=True):
        assert torch.equal(p.grad, gradient)


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_raise_the_loss_of_a_network(attack):
    module = linear()
    before = F.cross_entropy(module(IMAGES), LABELS, reduction="none")
    x, _, _ = attacked_by(module, IMAGES, LABELS, silent(), attack=attack, epsilon=0.5, steps=8)
    after = F.cross_entropy(module(x), LABELS, reduction="none")
    right = before < math.log(2)  # the class is right
    assert (after >= before - 1e-6).all() and right.any() and (after > before)[right].all()


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    "done, options", [(0.5, {"epsilon": 0.0}), (0.0, {"epsilon": 1.0, "warmup": 0.5})]
)
def test_without_epsilon_it_is_augmentation_with_the_same_noise(attack, done, options):
    """Bit for bit: images, loss, gradients, statistics of the batch norm, dropout's numbers."""
    results = []
    for loss, given in (
        (augmentation_loss, {}),
        (smoothadv_loss, {"attack": attack, "steps": 4} | options),
    ):
        module, seen = network(), []
        with torch.random.fork_rng():
            torch.manual_seed(0)
            value = loss(Recorder(module, seen.append), IMAGES, LABELS, drawer(), done, **given)
        value.backward()
        results.append([value, seen[-1], *[p.grad for p in module.parameters()], *module.buffers()])
    for ours, expected in zip(*results, strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("warmup", [0.0, 0.25, 1.0])
def test_epsilon_grows_linearly_over_the_warmup(attack, warmup):
    far = INSIDE - 0.15 * W / W.norm()  # class 0, and the boundary a little further than epsilon
    for done in (0.0, 0.05, 0.125, 0.25, 0.5, 0.99):
        x, _, _ = attacked_by(
            half_space(W),
            far,
            LABELS * 0,
            silent(),
            done,
            attack=attack,
            epsilon=0.1,
            steps=4,
            warmup=warmup,
        )
        expected = 0.1 * min(1, done / warmup) if warmup else 0.1
        assert (x - far).flatten(1).norm(dim=1).numpy() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_images_without_a_gradient_stay_as_they_are(attack, steps):
    """A saturated softmax has none; the images beside it are attacked as they are without it."""
    x = torch.cat([INSIDE[:2] - 0.1 * W / W.norm(), INSIDE[:2] - 0.2 * W / W.norm()]).clamp(0, 1)

    def outputs(y):
        margin = ((y - 0.5) * W).flatten(1).sum(1)
        scale = torch.tensor([4.0, 4.0, 1e6, 0.0])  # the last two: certain, constant
        return torch.stack([-scale * margin, scale * margin], dim=1)

    options = {"attack": attack, "epsilon": 0.5, "steps": steps}
    attacked, _, loss = attacked_by(Outputs(outputs), x, LABELS[:4] * 0, silent(x), **options)
    assert attacked.isfinite().all() and loss.isfinite()
    assert torch.equal(attacked[2:], x[2:])
    alone, _, _ = attacked_by(half_space(W, 8.0), x[:2], LABELS[:2] * 0, silent(x[:2]), **options)
    assert torch.allclose(attacked[:2], alone, atol=1e-6)


# --- the module meanwhile


def test_attack_in_eval_mode_then_training_in_train_mode():
    module, modes = network(), []
    module.register_forward_hook(
        lambda m, *_: modes.append([part.training for part in m.modules()])
    )
    smoothadv_loss(module, IMAGES, LABELS, drawer(), 0.5, steps=3)
    parts = len([*module.modules()])
    assert modes == [[False] * parts] * 3 + [[True] * parts]
    assert all(part.training for part in module.modules())


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_leaves_batch_norm_alone(attack):
    """The statistics are those of one pass over the images that the attack made."""
    module, seen = network(), []
    smoothadv_loss(
        Recorder(module, seen.append),
        IMAGES,
        LABELS,
        drawer(),
        0.5,
        attack=attack,
        steps=3,
        draws=2,
    )
    expected = network()
    expected(seen[-1])
    assert expected.layers[2].num_batches_tracked == 1
    for ours, theirs in zip(module.buffers(), expected.buffers(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_gives_the_parameters_no_gradient_and_keeps_what_wants_one(attack):
    """No gradient is even asked for during the attack; a frozen parameter stays frozen."""
    module, wanting = network(), []
    module.layers[1].weight.requires_grad_(False)
    module.head.bias.requires_grad_(False)
    before = {name: p.requires_grad for name, p in module.named_parameters()}
    module.register_forward_hook(
        lambda m, *_: wanting.append({n: p.requires_grad for n, p in m.named_parameters()})
    )
    loss = smoothadv_loss(module, IMAGES, LABELS, drawer(), 0.5, attack=attack, steps=3)
    assert wanting == [dict.fromkeys(before, False)] * 3 + [before]
    assert {name: p.requires_grad for name, p in module.named_parameters()} == before
    assert all(p.grad is None for p in module.parameters())
    loss.backward()
    assert {name: p.grad is not None for name, p in module.named_parameters()} == before


@pytest.mark.parametrize("call", [0, 2])
def test_a_failing_attack_leaves_the_module_as_it_was(call):
    module, calls = network(), []
    module.head.bias.requires_grad_(False)
    wanted = [p.requires_grad for p in module.parameters()]

    def see(x):
        calls.append(x)
        if len(calls) > call:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        smoothadv_loss(Recorder(module, see), IMAGES, LABELS, drawer(), 0.5, steps=4)
    assert all(part.training for part in module.modules())
    assert [p.requires_grad for p in module.parameters()] == wanted


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_loss_can_be_watched_without_gradients(attack):
    """The attack needs gradients to the images even under no_grad."""
    watched = smoothadv_loss(linear(), IMAGES, LABELS, drawer(), 0.5, attack=attack, steps=3)
    with torch.no_grad():
        assert torch.equal(
            smoothadv_loss(linear(), IMAGES, LABELS, drawer(), 0.5, attack=attack, steps=3), watched
        )


# --- DDN on half-spaces


def lattice_image(seed=0, count=6, shape=(3, 8, 8)):
    stream = torch.Generator().manual_seed(seed)
    return torch.randint(80, 176, (count, *shape), generator=stream) / 255


def at_distance(w, x, distance):
    """Half-spaces whose boundary is so far from each image x of class 0; logits of both classes."""
    m = ((x - 0.5) * w).flatten(1).sum(1) + torch.as_tensor(distance) * w.norm()

    def outputs(y):
        margin = m - ((y - 0.5) * w).flatten(1).sum(1)
        return torch.stack([margin, -margin], dim=1)

    return Outputs(outputs)


NORMAL = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(4))


def test_ddn_finds_the_boundary():
    """Within 6 %: it ends by steps of 5 % up and down (and pixels are rounded to 1/255)."""
    x, distance = lattice_image(), torch.tensor([0.3, 0.6, 1.0, 1.5, 2.0, 3.0])
    module, labels = at_distance(NORMAL, x, distance), torch.zeros(6).long()
    attacked, _, _ = attacked_by(
        module, x, labels, silent(x), attack="ddn", epsilon=100.0, steps=60
    )
    assert (module(attacked).argmax(1) == 1).all()
    length = (attacked - x).flatten(1).norm(dim=1)
    assert ((length / distance > 0.999) & (length / distance < 1.06)).all()
    assert torch.allclose((attacked * 255).round() / 255, attacked, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "steps, distance, length",
    [(1, 0.5, 0), (2, 0.5, 1.05), (2, 1.08, 0), (3, 1.08, 1.05**2), (3, 0.5, 1.05 * 0.95),
     (3, 1.0, 1.05), (4, 1.0, 1.05**2 * 0.95), (4, 0.5, 1.05 * 0.95**2), (4, 1.13, 1.05**3),
     (4, 1.2, 0)],
)  # fmt: skip
def test_norms_of_ddn(steps, distance, length):
    """It looks at 0, 1.05, then 5 % more or less.

    The smallest that crossed, none where none did.
    """
    x = lattice_image(count=1)
    attacked, _, _ = attacked_by(
        at_distance(NORMAL, x, distance),
        x,
        LABELS[:1] * 0,
        silent(x),
        attack="ddn",
        epsilon=100.0,
        steps=steps,
    )
    assert (attacked - x).norm().item() == pytest.approx(length, rel=0.01)  # rounded to 1/255
    assert length or torch.equal(attacked, x)


def test_ddn_cuts_to_epsilon():
    x, distance = lattice_image(), torch.tensor([0.2, 0.5, 0.9, 1.2, 2.0, 3.0])
    module = at_distance(NORMAL, x, distance)
    attacked, _, _ = attacked_by(
        module, x, torch.zeros(6).long(), silent(x), attack="ddn", epsilon=0.4, steps=60
    )
    delta = (attacked - x).flatten(1)
    assert (module(attacked).argmax(1) == 1).tolist() == [True] + [False] * 5
    assert delta[0].norm() < 0.2 * 1.06
    assert delta[1:].norm(dim=1).numpy() == pytest.approx(0.4, abs=1e-5)
    assert (F.cosine_similarity(delta, NORMAL.flatten()[None]) > 0.99).all()
    assert torch.allclose((attacked[0] * 255).round() / 255, attacked[0], rtol=0, atol=1e-7)


def test_ddn_leaves_images_that_are_classified_wrongly():
    x = lattice_image()
    module = at_distance(NORMAL, x, torch.tensor([-1.0, -0.1, -0.01, 0.1, 0.5, 1.0]))
    attacked, _, _ = attacked_by(
        module, x, torch.zeros(6).long(), silent(x), attack="ddn", epsilon=0.4, steps=20
    )
    assert torch.equal(attacked[:3], x[:3])
    assert (attacked != x).flatten(1).any(1).tolist() == [False] * 3 + [True] * 3


def test_ddn_judges_by_the_mean_probabilities_of_the_copies():
    """Two copies vote 0, by little; one votes 1, by much: the mean says 1, and the image stays."""
    x = lattice_image(count=1)
    shift = [torch.full_like(x, s) for s in (-0.001, -0.001, 0.5)]
    w = torch.ones(3, 8, 8)
    given = iter(shift)
    seen = []
    module = Recorder(at_distance(w, x, 0.0), seen.append)
    smoothadv_loss(
        module,
        x,
        LABELS[:1] * 0,
        lambda: next(given),
        0.5,
        attack="ddn",
        epsilon=1.0,
        steps=5,
        draws=3,
    )
    mean = module.module(seen[0]).softmax(1).mean(0)
    assert (module.module(seen[0]).argmax(1) == torch.tensor([0, 0, 1])).all() and mean[1] > mean[0]
    assert torch.equal(seen[-1], seen[0])


# --- under autocast


@pytest.mark.parametrize("scheme", CLASSIFIERS)
def test_losses_under_autocast_are_close_to_float32(scheme):
    """bfloat16 has 8 bits: 5 % is ample for what is computed from its logits."""
    expected = loss_of(scheme, linear(0.3)).item()
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(scheme, linear(0.3))
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected, rel=0.05)


def test_labels_outside_the_classes_are_named_where_a_gpu_would_end_the_process():
    outputs = torch.zeros(2, 3)
    on_card = SimpleNamespace(is_cuda=True, max=lambda: torch.tensor(3))
    with pytest.raises(IndexError, match="Target 3 is out of bounds"):
        within(outputs, on_card)
    labels = torch.tensor([0, 3])
    assert within(outputs, labels) is labels  # a CPU's loss says it
