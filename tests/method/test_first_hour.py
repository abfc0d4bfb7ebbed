"""What a user gets wrong in the first hour: each is named, with the fix, before any work."""

import numpy as np
import pytest
import torch
from torch import nn

import ancer
from ancer.bases import pca
from ancer.confidence.budget import check_enough
from ancer.stopping import Grid, Target

NET = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
NOISE = ancer.GaussianNoise(0.25)
CALLS = [
    lambda *given, **more: ancer.certify(*given, **{"n": 200, **more}),
    lambda *given, **more: ancer.predict(*given, **{"n": 200, **more}),
]
OPTIMIZERS = [ancer.optimize_isotropic, ancer.optimize_anisotropic, ancer.optimize_dataset]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "change, message",
    [
        ({"n": "200"}, "n must be a whole number, found '200'"),
        ({"n": 200.5}, r"n must be a whole number, found 200\.5"),
        ({"n": True}, "n must be a whole number, found True"),
        ({"alpha": "0.1"}, r"alpha must be a number, found '0\.1'"),
        ({"seed": "a"}, "seed must be a whole number, found 'a'"),
        ({"indices": [0.5, 1]}, r"index 0 must be a whole number, found 0\.5"),
    ],
)
def test_numbers(call, change, message):
    with pytest.raises(ValueError, match=message):
        call(NET, X, NOISE, **change)


def test_whole_numbers_of_numpy_and_torch_are_taken():
    numbers = {"n": np.int64(200), "seed": np.int32(0), "indices": np.array([3, 4])}
    assert [c.index for c in ancer.certify(NET, X, NOISE, **numbers)] == [3, 4]
    with pytest.raises(ValueError, match="n0 must be a whole number, found '1'"):
        ancer.certify(NET, X, NOISE, n=200, n0="1")
    with pytest.raises(ValueError, match=r"batch_size must be a whole number, found 10\.5"):
        ancer.Classifier(NET, batch_size=10.5)


def test_a_number_is_no_noise():
    message = r"noise must be a noise, such as GaussianNoise\(0\.25\), found 0\.25"
    for call in (*CALLS, ancer.train):
        with pytest.raises(TypeError, match=message):
            call(NET, X, 0.25) if call in CALLS else call(NET, X, torch.tensor([0, 1]), 0.25)
    for optimize in OPTIMIZERS:
        with pytest.raises(TypeError, match=message):
            optimize(NET, X, 0.25, seed=0)
    with pytest.raises(ValueError, match=r"noise scales must be numbers, found '0\.25'"):
        ancer.GaussianNoise("0.25")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "x, message",
    [
        (255 * X, r"pixels must lie in \[0, 1\], found .*: x / 255"),
        ((255 * X).to(torch.uint8), "found torch.uint8: x / 255"),
        ((X - 0.5) / 0.25, r"pixels must lie in \[0, 1\].*put normalisation inside the model"),
        (X.half(), r"found torch.float16: x\.float\(\)"),
        (X.numpy(), r"found ndarray: torch\.from_numpy\(x\)"),
        (list(X), r"found list: torch\.stack\(list\(x\)\)"),
        (X[0], r"images of shape \(8, 8\) .*: one image is a batch of one, x\[None\]"),
        (X.permute(0, 2, 3, 1), r"shape \(8, 8, 3\) .*: channels come first, x\.permute"),
        (X[:, :1], r"images of shape \(1, 8, 8\) .*: x must be \(B, channels, height, width\)"),
        (X.flatten(1), r"images of shape \(192,\) .*: x must be \(B, channels"),
        (X[:, :, :5], r"images of shape \(3, 5, 8\) .*: x must be \(B, channels, height, width\)"),
    ],
)
def test_images(call, x, message):
    with pytest.raises(ValueError, match=message):
        call(NET, x, NOISE)


class Returning(nn.Module):
    """What a function makes of the logits."""

    def __init__(self, function):
        super().__init__()
        self.net = NET
        self.function = function

    def forward(self, x):
        return self.function(self.net(x))


@pytest.mark.parametrize(
    "model, message",
    [
        (Returning(lambda y: (y, y)), "found tuple: wrap it in a module that returns its logits"),
        (Returning(lambda y: {"logits": y}), "found dict: wrap it in a module"),
        (Returning(lambda y: y[:, :1]), r"found \(1000, 1\): of one logit z make two"),
        (nn.Linear(192, 3, device="meta"), "weights are on the meta device: load its weights"),
        (nn.Sequential(nn.BatchNorm2d(1), NET), r"images of shape \(3, 8, 8\) .*running_mean"),
        (torch.jit.ScriptModule(), "a ScriptModule cannot be copied.*: give the nn.Module"),
    ],
)
def test_models(model, message):
    with pytest.raises(ValueError, match=message):
        ancer.certify(model, X, NOISE, n=200)


def test_a_model_that_cannot_be_copied_is_named():
    with pytest.warns(FutureWarning):
        old = nn.utils.weight_norm(nn.Linear(192, 3))
    old(X.flatten(1))
    with pytest.raises(ValueError, match="cannot be copied .*: old hooks such as"):
        ancer.Classifier(old)


@pytest.mark.parametrize("optimize", [ancer.optimize_anisotropic, ancer.optimize_dataset])
def test_a_model_without_gradients_is_named(optimize):
    frozen = Returning(lambda y: y.detach())
    with pytest.raises(ValueError, match="carry no gradient, which theta is fitted by: is its"):
        optimize(frozen, X, NOISE, seed=0)


@pytest.mark.parametrize("call", CALLS)
def test_exact_noise_needs_a_lattice(call):
    with pytest.raises(ValueError, match="exact=True needs .* found lattice=None: give it, or"):
        call(NET, X, NOISE, exact=True, lattice=None)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ancer.GaussianNoise(None), "noise scales must be numbers, found None"),
        (lambda: ancer.GaussianNoise(0.25, basis="dct8"), "must be a Basis, found 'dct8': .*named"),
        (lambda: ancer.Memory(basis="dct8"), "basis must be a Basis, found 'dct8'"),
        (lambda: Grid(0.5), r"radii must be several numbers, found 0\.5"),
        (lambda: Target("0.5"), r"a number > 0, found '0\.5' and None"),
        (lambda: ancer.certify_best(NET, X, [NOISE]), "candidates must be noises by name"),
        (lambda: ancer.train(NET, X, [0, 1], NOISE), "found list: torch.tensor"),
        (lambda: pca(X[:1]), r"two images or more, found \(1, 3, 8, 8\)"),
        (lambda: pca(X.numpy()), "two images or more, found ndarray"),
    ],
)
def test_slips(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_other_errors_of_a_model_stay_as_they_are():
    def fails(y):
        raise RuntimeError("a reason of its own")

    with pytest.raises(RuntimeError, match="a reason of its own") as caught:
        ancer.certify(Returning(fails), X, NOISE, n=200)
    assert not isinstance(caught.value, ValueError)


def test_probabilities_that_are_not_declared_are_noticed(recwarn):
    probabilities = Returning(lambda y: y.softmax(dim=1))
    with pytest.warns(UserWarning, match="as probabilities do: declare them, .*'probabilities'"):
        ancer.certify(probabilities, X, NOISE, n=200)
    recwarn.clear()
    ancer.certify(ancer.Classifier(probabilities, outputs="probabilities"), X, NOISE, n=200)
    ancer.certify(NET, X, NOISE, n=200)
    assert not recwarn.list


@pytest.mark.parametrize(
    "rule, found",
    [
        (lambda running: None, "said None"),
        (lambda running: np.array([True]), r"said bool of shape \(1,\)"),
        (lambda running: running.gap, r"said float64 of shape \(2,\)"),
    ],
)
def test_rules(rule, found):
    message = rf"a stop rule must say True or False of each image, .* of shape \(2,\); .*{found}"
    with pytest.raises(ValueError, match=message):
        ancer.certify(NET, X, NOISE, n=2000, stop=rule)


def test_a_memory_answers_to_certificates():
    with pytest.raises(TypeError, match="a memory answers to a certificate, .* found NoneType"):
        ancer.Memory().answer(None)


def test_draws_that_can_certify_nothing_are_named():
    with pytest.raises(ValueError, match="n = 3 draws can never certify at alpha = 0.001"):
        ancer.evaluate(NET, X, sigma=0.25, n=3, progress=False)
    check_enough(11, 0.001, "two")
    with pytest.raises(ValueError, match="n must be at least 11"):
        check_enough(10, 0.001, "two")
    (certain,) = ancer.certify(
        nn.Identity(), torch.tensor([[1.0, 0.0]]), ancer.GaussianNoise(1e-3), n=11
    )
    assert certain.prediction == 0


def test_a_classifier_says_what_it_is():
    said = repr(ancer.Classifier(NET, batch_size=50))
    assert said == "<Classifier: Sequential, logits, float32, batches of 50 on cpu>"


def test_training_has_a_recipe_of_its_own():
    x = torch.rand(40, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    labels = (x.mean(dim=(1, 2, 3)) > 0.5).long()
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    assert ancer.train(net, x, labels, ancer.GaussianNoise(0.1)) is net and not net.training


def test_public_names_alone_are_listed():
    assert sorted(dir(ancer)) == sorted(ancer.__all__)
    assert "evaluate" in dir(ancer) and "queries" not in dir(ancer)
