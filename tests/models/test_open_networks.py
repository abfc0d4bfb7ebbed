"""Networks by name, of torchvision, of timm and of one's own, and their checkpoints."""

import importlib.util
import re
import sys

import pytest
import torch
from torch import nn

from ancer.classifier import Classifier
from ancer.models.checkpoints import load, save
from ancer.models.networks import ResNet20, architecture, build
from ancer.models.weights import load_weights

torch.set_num_threads(1)
OWN = """
from torch import nn


def build(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, classes))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The name of a function in a package of one's own."""
    (tmp_path / "package_of_mine").mkdir()
    (tmp_path / "package_of_mine" / "nets.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "package_of_mine.nets:build"


def images(size):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_networks_of_torchvision_have_our_classes_and_random_weights(name):
    torch.manual_seed(0)
    first = build(f"torchvision:{name}", 7).eval()
    again = build(f"torchvision:{name}", 7).eval()
    torch.manual_seed(0)
    same = build(f"torchvision:{name}", 7).eval()
    with torch.no_grad():
        found = first(images(32))
        assert found.shape == (2, 7) and torch.isfinite(found).all()
        assert torch.equal(found, same(images(32)))
        assert not torch.equal(found, again(images(32)))


def test_networks_of_libraries_take_the_pixels_as_they_are():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    expected = resnet18(num_classes=5)
    torch.manual_seed(0)
    assert torch.equal(
        build("torchvision:resnet18", 5).eval()(images(32)), expected.eval()(images(32))
    )


def test_a_network_of_torchvision_is_a_classifier_in_all_arithmetics():
    network = build("torchvision:resnet18", 5)
    plain = Classifier(network)(images(32))
    folded = Classifier(network, fold=True, memory_format="channels_last")(images(32))
    torch.testing.assert_close(folded, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("torchvision:resnet17", "torchvision has no classifier 'resnet17': did you mean 'resnet1"),
        ("torchvision:zzzz", "torchvision has no classifier 'zzzz': choose one of alexnet, "),
        ("torchvision:", "torchvision has no classifier '': choose one of alexnet, "),
        # gives no logits
        ("torchvision:fcn_resnet50", "torchvision has no classifier 'fcn_resnet50': "),
        ("torchvison:resnet18", "no architecture 'torchvison:resnet18': No module named"),
        ("resnet1", "unknown architecture 'resnet1': did you mean 'resnet1"),
    ],
)
def test_unknown_names_are_named_before_anything_is_built(arch, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        architecture(arch)


def test_of_many_names_a_message_lists_some():
    with pytest.raises(ValueError, match=r" and \d+ more$") as caught:
        architecture("torchvision:zzzz")
    assert str(caught.value).count(",") == 49


def test_networks_of_timm_have_our_classes():
    pytest.importorskip("timm")
    torch.manual_seed(0)
    network = build("timm:efficientnet_lite0", 7).eval()
    with torch.no_grad():
        assert network(images(64)).shape == (2, 7)


@pytest.mark.parametrize("name", ["efficientnetlite0", "hf-hub:timm/resnet18", "resnet18.a1_in1k"])
def test_other_names_than_timms_are_refused(name):
    """Among them those that would read the network."""
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=f"timm has no classifier '{re.escape(name)}': "):
        architecture(f"timm:{name}")


def test_timm_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    message = r"'timm:efficientnet_lite0' needs timm: pip install 'ancer\[timm\]'"
    with pytest.raises(ValueError, match=message):
        build("timm:efficientnet_lite0", 10)


def test_a_function_of_ones_own_is_given_the_number_of_classes(own):
    assert build(own, 7)(images(2)).shape == (2, 7)


def test_the_code_of_an_architecture_is_that_of_a_module_with_a_source(own):
    """By which the workspace knows that it changed."""
    for arch, module in [
        ("resnet18", "ancer.models.networks"),
        ("torchvision:resnet18", "ancer.models.libraries"),
        (own, "package_of_mine.nets"),
    ]:
        assert architecture(arch).__module__ == module
        assert importlib.util.find_spec(module).origin.endswith(".py")


# --- checkpoints


def saved(path, module, arch):
    save(path, module, arch=arch, classes=5, provenance={"seed": 0})
    return path


def test_checkpoints_of_a_library_are_read_where_the_caller_names_it(tmp_path):
    module = build("torchvision:squeezenet1_1", 5).eval()
    path = saved(tmp_path / "net.safetensors", module, "torchvision:squeezenet1_1")
    loaded = load(path, arch="torchvision:squeezenet1_1", classes=5)
    assert torch.equal(loaded(images(32)), module(images(32)))
    assert loaded.provenance == {"seed": 0} and not loaded.training
    with pytest.raises(ValueError, match="its architecture is 'torchvision:squeezenet1_1'"):
        load(path)
    with pytest.raises(ValueError, match="its architecture is 'torchvision:squeezenet1_1'"):
        load(path, arch="torchvision:squeezenet1_0")


def test_checkpoints_of_timm_are_read(tmp_path, monkeypatch):
    pytest.importorskip("timm")
    arch = "timm:test_resnet"
    module = build(arch, 5).eval()
    path = saved(tmp_path / "net.safetensors", module, arch)
    assert torch.equal(load(path, arch=arch)(images(32)), module(images(32)))
    monkeypatch.setitem(sys.modules, "timm", None)
    # the file is not blamed
    with pytest.raises(ValueError, match=r"^architecture 'timm:test_resnet' needs timm"):
        load(path, arch=arch)


def test_checkpoints_of_ones_own_are_read(tmp_path, own):
    module = build(own, 5)
    path = saved(tmp_path / "net.safetensors", module, own)
    assert torch.equal(load(path, arch=own)(images(2)), module(images(2)))


@pytest.mark.parametrize("normalize", [None, {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}])
@pytest.mark.parametrize("arch", ["torchvision:squeezenet1_1", "resnet18_ancer"])
def test_weights_of_others_come_with_their_normalisation(arch, normalize, tmp_path):
    network = build(arch, 5)
    torch.save(getattr(network, "net", network).state_dict(), tmp_path / "theirs.pt")
    module = load_weights(tmp_path / "theirs.pt", arch=arch, classes=5, normalize=normalize)
    loaded = load(saved(tmp_path / "ours.safetensors", module, arch), arch=arch)
    with torch.no_grad():
        assert torch.equal(loaded(images(32)), module(images(32)))


def test_a_normalisation_before_another_is_kept(tmp_path):
    torch.save(ResNet20(5).state_dict(), tmp_path / "theirs.pt")
    half = {"mean": [0.5] * 3, "std": [0.5] * 3}
    module = load_weights(tmp_path / "theirs.pt", arch="resnet20", classes=5, normalize=half)
    loaded = load(saved(tmp_path / "ours.safetensors", module, "resnet20"))
    with torch.no_grad():
        assert torch.equal(loaded(images(32)), module(images(32)))


def test_a_normalisation_is_no_excuse_for_other_weights(tmp_path):
    foreign = nn.Module()
    foreign.register_buffer("mean", torch.zeros(1, 3, 1, 1))
    foreign.register_buffer("std", torch.ones(1, 3, 1, 1))
    foreign.net = nn.Linear(2, 5)
    for module in (foreign, nn.BatchNorm2d(3)):
        with pytest.raises(ValueError, match="is not a checkpoint of ancer"):
            load(saved(tmp_path / "net.safetensors", module, "mlp"))
