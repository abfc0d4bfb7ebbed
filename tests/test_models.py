"""Base classifiers, checkpoints and data sets."""

import platform
import re

import numpy as np
import pytest
import torch
from PIL import Image
from problems import BAD_IMAGES, Outputs, Recorder, network
from safetensors.torch import save_file
from torch import nn

from ancer import datasets, models, networks
from ancer.certification import certify
from ancer.datasets import Dataset
from ancer.models import Classifier, as_classifier, check_images
from ancer.networks import MLP, DigitsCNN
from ancer.noise import GaussianNoise
from ancer.optimization import optimize_anisotropic, optimize_isotropic

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
    assert outputs.dtype == torch.float32
    tolerance = 1e-5 if dtype == torch.float32 else 0.3
    torch.testing.assert_close(outputs, network().eval()(IMAGES).detach(), rtol=0, atol=tolerance)


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
    assert (plain(x) - plain(x.flip(0))).abs().max() > 0.01  # which says something of the comparison
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
    with pytest.raises(ValueError, match="fold=True needs a module that torch.fx can trace.*fold=False"):
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
    torch.testing.assert_close(Classifier(inside, outputs="probabilities").probabilities(IMAGES), logits.softmax(1))


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
    "one logit": (lambda x: x.flatten(1)[:, :1], r"\(5, K\).*\(5, 1\)"),  # its argmax is always class 0
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
    assert Classifier(network()).device == Classifier(Outputs(lambda x: x)).device == torch.device("cpu")


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
    found = models.machine(torch.device("cpu"))
    assert found == {"torch": torch.__version__, "device": platform.machine(), "threads": torch.get_num_threads()}
    assert platform.node() not in found.values()


# --- checkpoints


PROVENANCE = {"seed": 0, "noise": "gaussian", "sigma": 0.25, "loss": [2.5, 0.125], "commit": None}


@pytest.fixture
def checkpoint(tmp_path):
    """(path, module) of a saved network with weights of its own."""
    path, module = tmp_path / "models" / "net.safetensors", networks.build("digits_cnn", 7)
    models.save(path, module, arch="digits_cnn", classes=7, provenance=PROVENANCE)
    return path, module


@pytest.mark.parametrize("arch, shape", [("digits_cnn", (2, 1, 8, 8)), ("mlp", (2, 2))])
def test_checkpoint_round_trip(tmp_path, arch, shape):
    module = networks.build(arch, 5)
    path = tmp_path / "net.safetensors"
    models.save(path, module, arch=arch, classes=5, provenance=PROVENANCE)
    loaded = models.load(path, sha256=models.digest(path))
    assert type(loaded) is type(module) and not loaded.training
    assert loaded.provenance == PROVENANCE
    assert loaded.state_dict().keys() == module.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), module.parameters(), strict=True))
    x = torch.rand(shape)
    assert torch.equal(loaded(x), module.eval()(x)) and loaded(x).shape == (2, 5)
    assert [f.name for f in tmp_path.iterdir()] == ["net.safetensors"]  # nothing half-written stays


def test_saving_again_gives_the_same_bytes(checkpoint, tmp_path):
    path, module = checkpoint
    again = tmp_path / "again.safetensors"
    models.save(again, module, arch="digits_cnn", classes=7, provenance=dict(reversed(PROVENANCE.items())))
    assert models.digest(again) == models.digest(path)
    assert re.fullmatch("[0-9a-f]{64}", models.digest(path))


def test_saving_replaces_an_older_checkpoint(checkpoint):
    path, _ = checkpoint
    other = networks.build("mlp", 3)
    models.save(path, other, arch="mlp", classes=3, provenance={})
    assert isinstance(models.load(path), MLP) and models.load(path).provenance == {}


def refused(error, path, **arguments):
    """The message of the error that loading `path` raises: one line that names the file."""
    with pytest.raises(error) as caught:
        models.load(path, **arguments)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_missing_checkpoint_is_named(tmp_path):
    assert "train" in refused(FileNotFoundError, tmp_path / "none.safetensors")
    refused(FileNotFoundError, tmp_path)


def test_altered_checkpoint_is_named(checkpoint):
    path, _ = checkpoint
    expected = models.digest(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # one bit of one weight: the file is still well-formed
    path.write_bytes(data)
    models.load(path)
    assert "sha256" in refused(ValueError, path, sha256=expected)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_checkpoint_is_named(checkpoint, keep):
    path, _ = checkpoint
    path.write_bytes(path.read_bytes()[:keep])
    refused(ValueError, path)


def test_other_files_are_named(tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_text("not a checkpoint\n" * 10)
    refused(ValueError, path)
    torch.save(network().state_dict(), path)
    refused(ValueError, path)


FOREIGN = {
    "no metadata": None,
    "metadata of others": {"format": "pt"},
    "not JSON": {"ancer": "digits_cnn"},
    "no architecture": {"ancer": '{"classes": 10, "provenance": {}}'},
    "no provenance": {"ancer": '{"arch": "mlp", "classes": 3}'},
    "unknown architecture": {"ancer": '{"arch": "resnet", "classes": 10, "provenance": {}}'},
    "weights of another architecture": {"ancer": '{"arch": "digits_cnn", "classes": 10, "provenance": {}}'},
    "another number of classes": {"ancer": '{"arch": "mlp", "classes": 10, "provenance": {}}'},
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_safetensors_files_are_named(tmp_path, kind):
    path = tmp_path / "foreign.safetensors"
    save_file(MLP(classes=3).state_dict(), path, metadata=FOREIGN[kind])
    refused(ValueError, path)


def test_unknown_architecture_is_named():
    with pytest.raises(ValueError, match=r"'resnet5'.*digits_cnn"):
        networks.build("resnet5", 10)


def test_networks_normalise_inside():
    for module, x in [(DigitsCNN(), torch.rand(3, 1, 8, 8)), (MLP(), torch.rand(3, 2))]:
        kept = x.clone()
        assert module(x).shape[0] == 3 and torch.equal(x, kept)


# --- data sets


@pytest.mark.parametrize("name, shape", [("digits", (1, 8, 8)), ("moons", (2,))])
def test_data_sets_are_tensors_with_fixed_disjoint_parts(name, shape):
    data, again = datasets.load(name), datasets.load(name)
    assert data.name == name and data.images.shape[1:] == shape and data.images.dtype == torch.float32
    assert data.images.min() >= 0 and data.images.max() <= 1 and data.labels.dtype == torch.int64
    parts = torch.cat([data.train, data.test])
    assert parts.sort().values.tolist() == list(range(len(data.images)))  # disjoint, and nothing left out
    assert set(data.labels[data.test].tolist()) == set(range(len(data.classes)))
    for field in ("images", "labels", "train", "test"):
        assert torch.equal(getattr(data, field), getattr(again, field))


def test_digits_are_those_of_scikit_learn_on_their_lattice():
    data = datasets.digits()
    assert len(data.images) == 1797 and len(data.test) == 359 and data.classes == [str(c) for c in range(10)]
    steps = data.images / data.lattice
    assert torch.equal(steps, steps.round()) and steps.max() == 16
    unique = {image.numpy().tobytes() for image in data.images[data.train]}
    assert sum(image.numpy().tobytes() in unique for image in data.images[data.test]) == 0  # no twin in both parts


def test_moons_leave_room_for_noise():
    data = datasets.moons()
    assert data.images.min() >= 0.15 - 1e-6 and data.images.max() <= 0.85 + 1e-6 and data.lattice is None


def test_first_test_images():
    data = datasets.moons()
    assert torch.equal(data.first_test(3), data.test[:3]) and len(data.first_test(200)) == 200
    for bad in (0, -1, 201):
        with pytest.raises(ValueError, match=rf"1\.\.200.*moons.*{bad}"):
            data.first_test(bad)


def made(**changes):
    index = torch.arange(4)
    fields = {"images": torch.rand(4, 2), "labels": index % 2, "classes": ["a", "b"]}
    return Dataset(name="mine", train=index[:2], test=index[2:], lattice=None, **fields | changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"images": torch.rand(4, 2).double()}, "images of mine"),
        ({"images": torch.full((4, 2), 128, dtype=torch.uint8)}, "images of mine"),
        ({"images": torch.full((4, 2), 1.5)}, "images of mine"),
        ({"images": torch.full((4, 2), float("nan"))}, "images of mine"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, "4 images but 3 labels"),
        ({"labels": torch.tensor([0, 1, 2, 1])}, "label 2 of mine .* 2 classes"),
        ({"labels": torch.tensor([0, 1, -1, 1])}, "label -1 of mine"),
    ],
)
def test_inconsistent_data_sets_are_refused(changes, message):
    made()
    with pytest.raises(ValueError, match=message):
        made(**changes)


def test_unknown_data_set_is_named():
    with pytest.raises(ValueError, match=r"'cifar'.*digits.*moons"):
        datasets.load("cifar")


def folder(path, layout, size=(6, 5)):
    """Write path/<split>/<class>/<n>.png for each (split, class): a list of grey values."""
    for (split, label), values in layout.items():
        (path / split / label).mkdir(parents=True)
        for n, value in enumerate(values):
            Image.new("RGB", size, (value, 0, 255)).save(path / split / label / f"{n}.png")
    return path


LAYOUT = {("train", "cat"): [10, 20], ("train", "dog"): [30], ("test", "cat"): [40], ("test", "dog"): [50, 60]}


def test_image_folder(tmp_path):
    data = datasets.load(str(folder(tmp_path / "pets", LAYOUT)))
    assert data.name == "pets" and list(data.classes) == ["cat", "dog"] and data.images.shape == (6, 3, 5, 6)
    assert data.train.tolist() == [0, 1, 2] and data.test.tolist() == [3, 4, 5]
    assert data.labels.tolist() == [0, 0, 1, 0, 1, 1]
    assert data.images[:, 0, 0, 0].tolist() == pytest.approx([v / 255 for v in (10, 20, 30, 40, 50, 60)])
    assert (data.images[:, 1] == 0).all() and (data.images[:, 2] == 1).all()
    steps = data.images / data.lattice
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)


def test_grey_images_are_read_as_rgb(tmp_path):
    folder(tmp_path, LAYOUT)
    Image.new("L", (6, 5), 70).save(tmp_path / "train" / "cat" / "0.png")
    assert torch.equal(datasets.image_folder(tmp_path).images[0], torch.full((3, 5, 6), 70 / 255))


@pytest.mark.parametrize("missing", ["train", "test"])
def test_missing_part_of_an_image_folder_is_named(tmp_path, missing):
    folder(tmp_path, {key: values for key, values in LAYOUT.items() if key[0] != missing})
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / missing))):
        datasets.image_folder(tmp_path)


def test_image_folder_of_different_classes_is_named(tmp_path):
    folder(tmp_path, {**LAYOUT, ("test", "eel"): [70]})
    with pytest.raises(ValueError, match=rf"{re.escape(str(tmp_path))}.*different classes"):
        datasets.image_folder(tmp_path)


def test_image_of_another_size_is_named(tmp_path):
    folder(tmp_path, LAYOUT)
    odd = tmp_path / "test" / "dog" / "1.png"
    Image.new("RGB", (7, 5)).save(odd)
    with pytest.raises(ValueError, match=rf"{re.escape(str(odd))}.*\(3, 5, 7\).*\(3, 5, 6\)"):
        datasets.image_folder(tmp_path)


def test_file_that_is_no_image_is_named(tmp_path):
    folder(tmp_path, LAYOUT)
    odd = tmp_path / "test" / "dog" / "1.png"
    odd.write_bytes(np.random.default_rng(0).bytes(100))
    with pytest.raises((ValueError, OSError), match=re.escape(str(odd))):
        datasets.image_folder(tmp_path)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
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
