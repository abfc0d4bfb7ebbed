"""Base classifiers: how they are evaluated, and what they refuse."""

import platform

import pytest
import torch
from problems import BAD_IMAGES, Outputs, Recorder, network
from torch import nn

from ancer import optimize_anisotropic, optimize_isotropic
from ancer.certification import certify
from ancer.classifier import Classifier, as_classifier, check_images
from ancer.evaluation.arithmetic import machine
from ancer.models import networks
from ancer.models.networks import MLP
from ancer.noise.sampled import GaussianNoise

IMAGES = torch.linspace(0, 1, 5 * 16).reshape(5, 1, 4, 4)


# --- the classifier


def test_classifier_is_a_frozen_copy_in_eval_mode():
    module = network()
    classifier = Classifier(module)
    before = classifier(IMAGES)
    assert torch.equal(before, classifier(IMAGES))  # no dropout, no batch statistics
    assert torch.equal(before, network().eval()(IMAGES))
    assert not any(m.training for m in classifier.module.modules())
    assert not any(p.requires_grad for p in classifier.module.parameters())
    for p in module.parameters():
        p.data.fill_(1.0)
    assert torch.equal(before, classifier(IMAGES))  # later training of the module changes nothing
    assert module.training and all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_numerics_are_those_asked_for(dtype, memory_format):
    seen = []
    module = network()
    classifier = Classifier(Recorder(module, seen.append), dtype=dtype, memory_format=memory_format)
    outputs = classifier(IMAGES.repeat(1, 1, 2, 2)[:, :, :4, :4])
    assert seen[0].dtype == dtype and seen[0].is_contiguous(memory_format=memory_format)
    assert {p.dtype for p in classifier.module.parameters()} == {dtype}
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert outputs.dtype == dtype  # as the module returns them
    tolerance = 1e-5 if dtype == torch.float32 else 0.3
    expected = network().eval()(IMAGES).detach()
    torch.testing.assert_close(outputs.float(), expected, rtol=0, atol=tolerance)


def trained(module):
    """With statistics and weights of batch normalisation that are not those of a fresh module."""
    stream = torch.Generator().manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.dim() == 1:
            tensor.copy_(torch.rand(tensor.shape, generator=stream) + 0.5)
    return module


def test_folded_network_is_the_same_function_without_batch_normalisation():
    module = trained(networks.ResNet20()).train()
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    plain, folded = Classifier(module), Classifier(module, fold=True)
    torch.testing.assert_close(folded(x), plain(x), rtol=1e-4, atol=1e-4)
    # which says something of the comparison
    assert (plain(x) - plain(x.flip(0))).abs().max() > 0.01
    kinds = {type(m) for m in folded.module.modules()}
    assert nn.Conv2d in kinds and nn.BatchNorm2d not in kinds
    assert not any(p.requires_grad for p in folded.module.parameters())
    assert any(isinstance(m, nn.BatchNorm2d) for m in module.modules()) and module.training
    assert folded.evaluation != plain.evaluation  # another arithmetic


@pytest.mark.parametrize("arch", ["digits_cnn", "mlp"])
def test_folding_leaves_a_network_without_batch_normalisation(arch):
    module = networks.build(arch, 3)
    x = torch.rand(5, 2) if arch == "mlp" else torch.rand(5, 1, 8, 8)
    assert torch.equal(Classifier(module, fold=True)(x), Classifier(module)(x))


def test_a_network_that_cannot_be_traced_is_not_folded():
    class Depends(nn.Module):
        def forward(self, x):
            return x.flatten(1) if x.mean() > 0.5 else -x.flatten(1)

    assert Classifier(Depends())(IMAGES).shape == (5, 16)
    with pytest.raises(
        ValueError, match="fold=True needs a module that torch.fx can trace.*fold=False"
    ):
        Classifier(Depends(), fold=True)


def test_channels_last_reaches_images_of_several_channels():
    seen = []
    module = Recorder(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()), seen.append)
    classifier = Classifier(module, memory_format=torch.channels_last)
    classifier(torch.rand(2, 3, 4, 4))
    assert seen[0].is_contiguous(memory_format=torch.channels_last) and not seen[0].is_contiguous()
    weight = classifier.module.module[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert module.module[0].weight.is_contiguous()


def test_points_and_double_images_are_evaluated_too():
    assert Classifier(MLP())(torch.rand(3, 2).double()).shape == (3, 2)


def test_probabilities_are_explicit():
    logits = network().eval()(IMAGES).detach()
    torch.testing.assert_close(Classifier(network()).probabilities(IMAGES), logits.softmax(1))
    inside = nn.Sequential(network(), nn.Softmax(dim=1))
    torch.testing.assert_close(
        Classifier(inside, outputs="probabilities").probabilities(IMAGES), logits.softmax(1)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probabilities_of_many_classes_are_accepted_in_both_dtypes(dtype):
    inside = nn.Sequential(nn.Flatten(), nn.Linear(16, 1000), nn.Softmax(dim=1))
    p = Classifier(inside, outputs="probabilities", dtype=dtype).probabilities(IMAGES)
    assert (p.sum(1) - 1).abs().max() < 0.02


@pytest.mark.parametrize("outputs", [[2.0, -1.0], [0.9, 0.9], [0.2, 0.2], [5.0, 3.0]])
def test_logits_declared_as_probabilities_are_refused(outputs):
    module = Outputs(lambda x: torch.tensor(outputs).expand(len(x), 2))
    with pytest.raises(ValueError, match="outputs='logits'"):
        Classifier(module, outputs="probabilities").probabilities(IMAGES)


BAD_OUTPUTS = {
    "one number": (lambda x: x.flatten(1).sum(1), r"\(5, K\).*\(5,\)"),
    "an image": (lambda x: x, r"\(5, K\).*\(5, 1, 4, 4\)"),
    "one row": (lambda x: x.flatten(1)[:1], r"\(5, K\).*\(1, 16\)"),
    "another batch": (lambda x: x.flatten(1).repeat(2, 1), r"\(5, K\).*\(10, 16\)"),
    "a tuple": (lambda x: (x.flatten(1), None), r"\(5, K\).*tuple"),
    # its argmax is always class 0
    "one logit": (
        lambda x: x.flatten(1)[:, :1],
        r"\(5, K\).*\(5, 1\)",
    ),
    "no class": (lambda x: x.flatten(1)[:, :0], r"\(5, K\).*\(5, 0\)"),
    "NaN": (lambda x: x.flatten(1) * float("nan"), "NaN or infinite"),
    "infinite": (lambda x: x.flatten(1) / 0, "NaN or infinite"),
    "one NaN": (lambda x: (x.flatten(1) - 0.5).sqrt(), "NaN or infinite"),
}


@pytest.mark.parametrize("kind", BAD_OUTPUTS)
def test_outputs_of_a_wrong_shape_or_not_finite_are_refused(kind):
    function, message = BAD_OUTPUTS[kind]
    classifier = Classifier(Outputs(function))
    for evaluate in (classifier, classifier.probabilities):
        with pytest.raises(ValueError, match=message):
            evaluate(IMAGES)


@pytest.mark.parametrize("bad", ["softmax", None, ""])
def test_unknown_kind_of_outputs_is_named(bad):
    with pytest.raises(ValueError, match=f"outputs.*{bad!r}"):
        Classifier(network(), outputs=bad)


@pytest.mark.parametrize("bad", [0, -1])
def test_batch_size_outside_its_domain_is_named(bad):
    with pytest.raises(ValueError, match=f"batch_size.*{bad}"):
        Classifier(network(), batch_size=bad)


def test_as_classifier_takes_modules_and_classifiers_only():
    classifier = Classifier(network())
    assert as_classifier(classifier) is classifier
    assert as_classifier(network()).outputs == "logits"
    with pytest.raises(TypeError, match="function"):
        as_classifier(lambda x: x)


def test_device_is_that_of_parameters_or_buffers_or_the_cpu():
    assert (
        Classifier(network()).device
        == Classifier(Outputs(lambda x: x)).device
        == torch.device("cpu")
    )


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images_are_named(kind):
    x, message = BAD_IMAGES[kind]
    with pytest.raises(ValueError, match=message):
        check_images(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 2), (3, 1, 8, 8)])
def test_good_images_are_accepted(shape, dtype):
    for value in (0, 0.5, 1):
        check_images(torch.full(shape, value, dtype=dtype))


def test_machine_names_what_numbers_may_depend_on_and_nothing_else():
    found = machine(torch.device("cpu"))
    assert found == {
        "torch": torch.__version__,
        "device": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    assert platform.node() not in found.values()


# --- a model that fails


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")]
)
@pytest.mark.parametrize("run", [certify, optimize_isotropic, optimize_anisotropic])
def test_out_of_memory_names_the_batch_size_to_lower(run, error):
    class Large(torch.nn.Module):
        def forward(self, x):
            raise error

    f = Classifier(Large(), batch_size=4000)
    counted = {"n": 10, "alpha": 0.1} if run is certify else {}
    with pytest.raises(MemoryError, match="batch_size 4000: lower it"):
        run(f, torch.full((1, 2), 0.5), GaussianNoise(0.25), seed=0, **counted)


def test_other_errors_of_a_model_are_its_own():
    class Broken(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        certify(Broken(), torch.full((1, 2), 0.5), GaussianNoise(0.25), n=10, alpha=0.1, seed=0)
