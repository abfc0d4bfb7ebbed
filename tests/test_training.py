import copy
import math
from itertools import chain

import numpy as np
import pytest
import torch
from problems import BAD_IMAGES, Outputs, Recorder, Untouchable, network
from scipy import stats
from torch import nn
from torch.nn import functional as F

from ancer import datasets
from ancer.networks import DigitsCNN
from ancer.noise import LAWS, GaussianNoise, UniformNoise
from ancer.training import SCHEMES, augmentation_loss, stability_loss, train

TINY = {"epochs": 2, "batch_size": 3, "lr": 1e-3, "seed": 0}
IMAGES = torch.arange(8 * 16).reshape(8, 1, 4, 4) / 128
LABELS = torch.arange(8) % 4


@pytest.fixture(scope="module")
def digits():
    """The first 512 training digits, and 100 of the test set."""
    data = datasets.digits()
    parts = data.train[:512], data.test[:100]
    return [(data.images[i], data.labels[i]) for i in parts]


def fresh():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DigitsCNN()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_training_reduces_the_loss_and_learns_digits(digits, scheme, law):
    """8 epochs in about a second; chance is 0.1 (measured: 0.87 to 0.93 of the noisy test digits)."""
    (x, y), (x_test, y_test) = digits
    losses = []
    module = train(fresh(), x, y, LAWS[law].from_sigma(0.25), epochs=8, batch_size=32, lr=5e-3, seed=0, scheme=scheme,
                   progress=lambda epoch, loss: losses.append((epoch, loss)))
    assert [epoch for epoch, _ in losses] == list(range(1, 9))
    assert losses[0][1] > 1.5 and losses[-1][1] < 0.6 * losses[0][1]
    noise = LAWS[law].from_sigma(0.25)
    noisy = x_test + noise.theta * noise.unit(x_test.shape, generator=torch.Generator(), dtype=x.dtype)
    assert (module(noisy).argmax(1) == y_test).float().mean() > 0.6


@pytest.mark.parametrize("scheme", SCHEMES)
def test_training_is_deterministic_given_the_seed(scheme):
    def run(seed, state):
        torch.manual_seed(state)  # of no influence: the module has no dropout of its own
        module = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
        with torch.no_grad():
            module[1].weight.copy_(torch.linspace(-1, 1, 64).reshape(4, 16))
            module[1].bias.zero_()
        before = torch.get_rng_state()
        train(module, IMAGES, LABELS, GaussianNoise(0.5), scheme=scheme, **TINY | {"seed": seed})
        assert torch.equal(torch.get_rng_state(), before)
        return module[1].weight.detach()

    assert torch.equal(run(0, 0), run(0, 1))
    assert not torch.equal(run(0, 0), run(1, 0))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_module_is_trained_in_place_and_left_in_eval_mode(scheme):
    module = network()
    before = copy.deepcopy(module.state_dict())
    modes = []
    module.register_forward_hook(lambda m, *_: modes.append(all(part.training for part in m.modules())))
    assert train(module.eval(), IMAGES, LABELS, UniformNoise(0.25), scheme=scheme, **TINY) is module
    assert modes and all(modes)  # dropout and batch norm at work meanwhile
    assert not any(m.training for m in module.modules())
    assert all(p.requires_grad for p in module.parameters())
    assert not any(torch.equal(p, before[name]) for name, p in module.named_parameters())
    assert torch.equal(IMAGES, torch.arange(8 * 16).reshape(8, 1, 4, 4) / 128)


@pytest.mark.parametrize("error", [KeyboardInterrupt, FloatingPointError])
def test_interrupted_training_leaves_nothing_in_train_mode(error):
    module = network().eval()

    def stop(epoch, loss):
        raise error

    with pytest.raises(error):
        train(module, IMAGES, LABELS, GaussianNoise(0.25), progress=stop, **TINY)
    assert not any(m.training for m in module.modules())


def inputs_of(scheme, noise, **changes):
    seen = []
    train(Recorder(network(), seen.append), IMAGES, LABELS, noise, scheme=scheme, **TINY | changes)
    return seen


@pytest.mark.parametrize("scheme, copies", [("augmentation", 1), ("stability", 2)])
def test_an_epoch_shows_every_image_once_in_an_order_of_its_own(scheme, copies):
    seen = inputs_of(scheme, GaussianNoise(1e-6), epochs=2)
    assert [len(s) for s in seen] == ([3] * 2 * copies + [2] * copies) * 2
    numbers = [(s.flatten(1)[:, 0] * 8).round().int().tolist() for s in seen]  # images begin with 0, 1/8, 2/8, ...
    first, second = ([*chain(*numbers[i : i + 3 * copies : copies])] for i in (0, 3 * copies))
    assert sorted(first) == sorted(second) == list(range(8)) and first != second
    if copies == 2:
        assert numbers[::2] == numbers[1::2]  # the two noisy copies are of the same images


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_training_noise_follows_its_law_and_is_fresh_each_time(scheme, law):
    """Kolmogorov-Smirnov on 12,800 or 25,600 draws; a right trainer fails for 1 seed in 10,000 (4 cases)."""
    noise = LAWS[law].from_sigma(0.25)
    seen = torch.cat([s.flatten(1) for s in inputs_of(scheme, noise, epochs=100, batch_size=8)])
    constant = torch.cat([s.flatten(1) for s in inputs_of(scheme, LAWS[law](1e-9), epochs=100, batch_size=8)])
    z = ((seen - constant) / noise.theta).double().numpy()  # the order of images is the same: the same seed
    unit = {"gaussian": stats.norm(), "uniform": stats.uniform(-1, 2)}[law]
    assert stats.kstest(z.ravel(), unit.cdf).pvalue > 1e-4
    assert len(np.unique(z.round(4), axis=0)) == len(z)


# --- losses


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4))


def noisy_of(noise, seed=0):
    stream = torch.Generator().manual_seed(seed)
    return lambda: IMAGES + noise.theta * noise.unit(IMAGES.shape, generator=stream, dtype=IMAGES.dtype)


def test_augmentation_loss_is_cross_entropy_of_one_noisy_copy():
    module = linear()
    loss = augmentation_loss(module, noisy_of(GaussianNoise(0.5)), LABELS)
    assert torch.equal(loss, F.cross_entropy(module(noisy_of(GaussianNoise(0.5))()), LABELS))


@pytest.mark.parametrize("law", LAWS)
def test_stability_loss_is_cross_entropy_where_noise_is_negligible(law):
    module = linear()
    loss = stability_loss(module, noisy_of(LAWS[law](1e-7)), LABELS)
    assert loss.item() == pytest.approx(F.cross_entropy(module(IMAGES), LABELS).item(), abs=1e-5)
    assert torch.equal(stability_loss(module, lambda: IMAGES, LABELS), F.cross_entropy(module(IMAGES), LABELS))


@pytest.mark.parametrize("weight", [0.0, 1.0, 6.0])
def test_stability_loss_by_the_definition_of_the_divergence(weight):
    """Cross-entropy of the first copy + weight * mean KL(first || second), by scipy."""
    module, noisy = linear(), noisy_of(GaussianNoise(1.0))
    first, second = (module(noisy()).detach().double().softmax(1).numpy() for _ in range(2))
    divergence = stats.entropy(first, second, axis=1).mean()
    expected = -np.log(first[np.arange(8), LABELS.numpy()]).mean() + weight * divergence
    loss = stability_loss(module, noisy_of(GaussianNoise(1.0)), LABELS, weight=weight)
    assert divergence > 0.01 and loss.item() == pytest.approx(expected, rel=1e-5)


def test_stability_weight_is_that_of_rs4a():
    module = linear()
    assert torch.equal(
        stability_loss(module, noisy_of(GaussianNoise(1.0)), LABELS),
        stability_loss(module, noisy_of(GaussianNoise(1.0)), LABELS, weight=6.0),
    )


# --- bad input, refused before the model is called


def refuse(message, *, error=ValueError, **changes):
    arguments = {"images": IMAGES, "labels": LABELS, "noise": GaussianNoise(0.25)} | TINY | changes
    module = Untouchable()
    module.weight = nn.Parameter(torch.ones(1))
    with pytest.raises(error, match=message):
        train(module, **arguments)


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images_are_refused(kind):
    x, message = BAD_IMAGES[kind]
    refuse(message, images=x, labels=torch.zeros(len(x), dtype=torch.long))


@pytest.mark.parametrize(
    "labels, message",
    [(LABELS[:7], r"8 .*\(7,\)"), (LABELS[:, None], r"8 .*\(8, 1\)"), (LABELS - 1, "-1"), (LABELS.float(), "float32")],
    ids=["too few", "two axes", "negative", "not whole"],
)
def test_bad_labels_are_refused(labels, message):
    refuse(message, labels=labels)


@pytest.mark.parametrize("shape", [(8,), (8, 1, 4, 4), (1,)])
def test_more_than_one_scale_is_refused(shape):
    refuse(str(shape).replace("(", r"\(").replace(")", r"\)"), noise=GaussianNoise(torch.ones(shape)))


@pytest.mark.parametrize(
    "bad, message",
    [({"epochs": 0}, "epochs.* 0,"), ({"batch_size": -1}, "batch_size.* -1,"), ({"lr": 0.0}, r"lr.* 0\.0"),
     ({"lr": -1.0}, r"lr.* -1\.0"), ({"lr": math.nan}, "lr.* nan"), ({"seed": -1}, "seed.* -1 "),
     ({"scheme": "macer"}, "'macer'.*augmentation.*stability")],
)
def test_settings_outside_their_domain_are_named(bad, message):
    refuse(message, **bad)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_diverging_training_says_so(scheme):
    module = linear()
    module[1].weight.data.fill_(torch.inf)
    with pytest.raises(FloatingPointError, match=r"epoch 1 .*nan.*lr \(now 0.001\)"):
        train(module, IMAGES + 0, LABELS, GaussianNoise(0.25), scheme=scheme, **TINY)


def test_a_module_without_parameters_is_refused():
    with pytest.raises(ValueError, match="parameters"):
        train(Outputs(lambda x: x.flatten(1)), IMAGES, LABELS, GaussianNoise(0.25), **TINY)


def test_a_label_outside_the_models_classes_is_named():
    with pytest.raises(ValueError, match="outside the model's classes: Target 1"):
        train(network(), IMAGES, LABELS + 12, GaussianNoise(0.25), **TINY)
