"""Weights of others: every form of file that is read, and what is refused."""

import argparse
import json
import logging
import os
import re
import tomllib
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

import ancer
from ancer.models import checkpoints
from ancer.models.networks import Normalized, build
from ancer.models.published import SOURCES
from ancer.models.weights import ENTRIES, load_weights

torch.set_num_threads(1)
SMALL = f"{__name__}:Small"
HALF = {"mean": [0.5, 0.25, 0.0], "std": [0.5, 0.25, 1.0]}


class Small(nn.Module):
    """For images (B, 3, H, W)."""

    def __init__(self, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, classes)

    def forward(self, x):
        return self.fc(self.bn1(self.conv1(x)).relu().mean((2, 3)))


class Inside(nn.Module):
    """Whose own names begin as wrappers' do."""

    def __init__(self, classes):
        super().__init__()
        self.model = Small(classes)

    def forward(self, x):
        return self.model(x)


@pytest.fixture
def network():
    torch.manual_seed(0)
    module = Small(5)
    module.train()(torch.rand(20, 3, 8, 8))  # for statistics other than fresh
    return module.eval()


@pytest.fixture
def state(network):
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.pt"


def images():
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def read(path, arch=SMALL, classes=5, normalize=None):
    return load_weights(path, arch=arch, classes=classes, normalize=normalize)


def assert_same(module, network):
    assert not any(part.training for part in module.modules())
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float32}
    with torch.no_grad():
        assert torch.equal(module(images()), network(images()))


def refused(path, message, **arguments):
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}.*{message}") as caught:
        read(path, **arguments)
    assert "\n" not in str(caught.value)


# --- forms


@pytest.mark.parametrize("normalize", [None, HALF])
@pytest.mark.parametrize("ending", ["pt", "pth.tar", "safetensors"])
def test_plain_tensors(ending, normalize, tmp_path, network, state):
    path = tmp_path / f"net.{ending}"
    write = save_file if ending == "safetensors" else torch.save
    write(state, path)
    module = read(path, normalize=normalize)
    if normalize is not None:
        network = Normalized(network, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0)).eval()
    assert_same(module, network)
    assert module.provenance == {
        "arch": SMALL,
        "sha256": sha256(path.read_bytes()).hexdigest(),
        "entry": None,
        "prefix": "",
        "cast": [],
        "normalize": normalize,
    }
    assert json.loads(json.dumps(module.provenance)) == module.provenance


@pytest.mark.parametrize("entry", ENTRIES)
def test_tensors_in_an_entry(entry, path, network, state):
    torch.save({"epoch": 3, entry: state, "optimizer": {"state": {}}}, path)
    module = read(path)
    assert_same(module, network)
    assert module.provenance["entry"] == entry


@pytest.mark.parametrize("entry", ["model.state_dict", "ema.module", "state_dict.model.net"])
def test_tensors_in_an_entry_of_an_entry(entry, path, network, state):
    content = state
    for name in reversed(entry.split(".")):
        content = {name: content, "step": 7}
    torch.save(content, path)
    module = read(path)
    assert_same(module, network)
    assert module.provenance["entry"] == entry


def test_of_several_entries_the_plain_one_is_taken_and_said(path, network, state, caplog):
    averaged = {name: 2 * tensor for name, tensor in state.items()}
    torch.save({"ema": averaged, "model": {f"module.{n}": t for n, t in state.items()}}, path)
    with caplog.at_level(logging.INFO, logger="ancer.models.weights"):
        module = read(path)
    assert_same(module, network)
    first, second = [record.getMessage() for record in caplog.records]
    assert first == f"{path}: took entry 'model', left ['ema']"
    assert str(path) in second and "'entry': 'model'" in second and "'module.'" in second


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "model.",
        "net.",
        "module.module.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "net.module.model._orig_mod.",
    ],
)
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_beginnings_of_names(prefix, ending, tmp_path, network, state):
    path = tmp_path / f"net.{ending}"
    write = save_file if ending == "safetensors" else torch.save
    write({prefix + name: tensor for name, tensor in state.items()}, path)
    module = read(path)
    assert_same(module, network)
    assert module.provenance["prefix"] == prefix


@pytest.mark.parametrize("wrapper", [nn.DataParallel, torch.compile, AveragedModel])
def test_what_wrappers_of_torch_save(wrapper, path, network):
    torch.save(wrapper(network).state_dict(), path)
    assert_same(read(path), network)


@pytest.mark.parametrize("before", ["", "module.", "model."])
def test_names_that_the_network_has_itself_stay(before, path, network, state):
    torch.save({f"{before}model.{name}": tensor for name, tensor in state.items()}, path)
    module = read(path, arch=f"{__name__}:Inside")
    assert_same(module, network)
    assert module.provenance["prefix"] == before


def test_files_lack_the_counters_of_batches(path, network, state):
    del state["bn1.num_batches_tracked"]
    torch.save(state, path)
    assert_same(read(path), network)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_other_precisions_become_float32(dtype, ending, tmp_path, network, state):
    path = tmp_path / f"net.{ending}"
    network.to(getattr(torch, dtype))
    write = save_file if ending == "safetensors" else torch.save
    write(network.state_dict(), path)
    module = read(path)
    assert_same(module, network.float())
    assert module.provenance["cast"] == [dtype]


def double(classes):
    return Small(classes).double()


def test_networks_of_other_precisions_become_float32(path, network, state):
    torch.save(state, path)
    module = read(path, arch=f"{__name__}:double")
    assert_same(module, network)
    assert module.provenance["cast"] == []


def test_parameters_are_tensors(path, network, state):
    for name, parameter in network.named_parameters():
        state[name] = parameter
    torch.save(state, path)
    assert_same(read(path), network)


SCALARS = {
    "acc": np.float64(95.5),
    "loss": np.float32(0.5),
    "epoch": np.int64(3),
    "best": np.bool_(True),
}


def test_numbers_of_numpy_are_allowed(path, network, state):
    before = set(torch.serialization.get_safe_globals())
    torch.save({"state_dict": state, **SCALARS}, path)
    assert_same(read(path), network)
    after = set(torch.serialization.get_safe_globals())
    assert after == before  # the process trusts no more than that
    with pytest.raises(Exception, match="weights_only"):
        torch.load(path, weights_only=True)


def test_numbers_of_numpy_1_are_allowed(path, network, state):
    torch.save({"state_dict": state, **SCALARS}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"cnumpy._core.multiarray\nscalar" in content
    path.write_bytes(content.replace(b"cnumpy._core.", b"cnumpy.core."))
    assert_same(read(path), network)


# --- normalisation


def test_normalisation_of_ours_is_replaced(path):
    network = build("resnet18_ancer", 5).eval()
    torch.save(network.net.state_dict(), path)
    module = read(path, arch="resnet18_ancer", normalize=HALF)
    assert type(module) is Normalized and not isinstance(module.net, Normalized)
    assert module.mean.flatten().tolist() == HALF["mean"]
    assert module.std.flatten().tolist() == HALF["std"]
    bare = read(path, arch="resnet18_ancer")
    x = images()
    with torch.no_grad():
        assert torch.equal(bare(x), network.net(x))
        expected = network.net((x - module.mean) / module.std)
        assert torch.equal(module(x), expected)


def test_a_normalisation_has_the_channels_of_the_one_that_it_replaces(path):
    torch.save(nn.Conv2d(1, 5, 8).state_dict(), path)
    module = read(path, arch=f"{__name__}:grey")
    assert module(torch.rand(2, 1, 8, 8)).shape == (2, 5, 1, 1)


def grey(classes):
    return Normalized(nn.Conv2d(1, classes, 8), (0.3,), (0.4,))


@pytest.mark.parametrize(
    ("normalize", "message"),
    [
        ({}, "must be none or have mean and std, found {}"),
        ({"mean": [0.5] * 3}, "must be none or have mean and std"),
        ({**HALF, "scale": 1}, "must be none or have mean and std"),
        ({"mean": [0.5] * 3, "std": [0.5]}, "for each channel, found 3 and 1"),
        ({"mean": [], "std": []}, "for each channel, found 0 and 0"),
        ({"mean": [123.7], "std": [0.5]}, "found 123.7 and 0.5: divide those of pixels from 0 to"),
        ({"mean": [0.5], "std": [58.4]}, "found 0.5 and 58.4: divide"),
        ({"mean": [0.5], "std": [0.0]}, "found 0.5 and 0.0"),
        ({"mean": [-0.5], "std": [0.5]}, "found -0.5 and 0.5"),
        ({"mean": [float("nan")], "std": [0.5]}, "found nan and 0.5"),
    ],
)
def test_normalisations_of_other_units_are_refused(normalize, message, path, state):
    torch.save(state, path)
    with pytest.raises(ValueError, match=re.escape(message)):
        read(path, normalize=normalize)


# --- files that are refused


class Code:
    """What a pickle runs when it is read."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_code_is_refused_and_not_run(path, state, tmp_path):
    marker = tmp_path / "marker"
    torch.save({"state_dict": state, "args": Code(marker)}, path)
    refused(path, r"carries code or objects \(\S*mkdir\).*nothing of it was run; get it again")
    assert not marker.exists()
    torch.load(path, weights_only=False)  # it would have run
    assert marker.exists()


@pytest.mark.parametrize("thing", [argparse.Namespace(lr=0.1), np.ones(3), Small(5)])
def test_objects_are_refused(thing, path, state):
    torch.save({"state_dict": state, "args": thing}, path)
    refused(path, "carries code or objects .*save its state_dict alone")


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_truncated_files_are_refused(share, ending, tmp_path, state):
    path = tmp_path / f"net.{ending}"
    write = save_file if ending == "safetensors" else torch.save
    write(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "or is truncated.*get it again")


def test_missing_files_are_named(path, tmp_path):
    for place in (path, tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no weights at {re.escape(str(place))}"):
            read(place)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(3), "is no dictionary: expected tensors by name"),
        ({}, "is a dictionary of nothing: expected"),
        ({"epoch": 3, "classifier": {"w": torch.ones(3)}}, "is a dictionary of epoch, classifier:"),
        (
            {"fc.weight": torch.ones(3), "epoch": 3},
            r"dictionary of fc\.weight, epoch: .*state_dict",
        ),
        ({"state_dict": [torch.ones(3)]}, "is a dictionary of state_dict:"),
        (
            {"net": {"net": {"net": {"net": {"w": torch.ones(3)}}}}},
            "is a dictionary of net: expected tensors",
        ),
    ],
)
def test_files_without_tensors_by_name_are_refused(content, message, path):
    torch.save(content, path)
    refused(path, message)


def test_a_dictionary_that_holds_itself_is_refused(path):
    content = {}
    content["model"] = content
    torch.save(content, path)
    refused(path, "is a dictionary of model: expected")


def test_our_own_checkpoints_are_read_elsewhere(tmp_path, network):
    path = tmp_path / "net.safetensors"
    checkpoints.save(path, network, arch=SMALL, classes=5, provenance={})
    refused(path, r"is a checkpoint of ancer.*read it with ancer\.models\.checkpoints\.load")


@pytest.mark.parametrize("dtype", ["int8", "int64", "bool", "complex64"])
def test_weights_that_are_no_real_numbers_are_refused(dtype, path, state):
    state["fc.weight"] = state["fc.weight"].to(getattr(torch, dtype))
    torch.save(state, path)
    refused(path, rf"fc\.weight holds {dtype}, expected float32: weights that were quantized")


def test_counters_that_are_no_whole_numbers_are_refused(path, state):
    state["bn1.num_batches_tracked"] = torch.tensor(1.0)
    torch.save(state, path)
    refused(path, r"bn1\.num_batches_tracked holds float32, expected int64")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["conv1.weight", "bn1.running_var"])
def test_weights_that_are_not_finite_are_refused(name, value, path, state):
    state[name].view(-1)[1] = value
    torch.save(state, path)
    refused(path, rf"{re.escape(name)} holds NaN or infinities \(as float32\)")


def test_numbers_too_large_for_float32_are_refused(path, state):
    state["fc.bias"] = torch.full((5,), 1e300, dtype=torch.float64)
    torch.save(state, path)
    refused(path, r"fc\.bias holds NaN or infinities \(as float32\)")


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize("change", [torch.Tensor.to_sparse, lambda t: t.to("meta")])
def test_tensors_without_their_numbers_are_refused(change, path, state):
    state["fc.weight"] = change(state["fc.weight"])
    torch.save(state, path)
    refused(path, r"fc\.weight is no plain tensor")


# --- other networks

START = "is no .*:Small with 5 classes: "


def test_missing_and_unexpected_names_are_listed_with_the_closest(path, state):
    for name in ("conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias"):
        state[f"backbone.{name}"] = state.pop(name)
    torch.save(state, path)
    listed = "conv1.weight, conv1.bias, bn1.weight and 1 more"
    theirs = "backbone.conv1.weight, backbone.conv1.bias, backbone.bn1.weight and 1 more"
    guess = "is its backbone.conv1.weight what the network calls conv1.weight?"
    message = f"missing {listed}; unexpected {theirs}: try another arch ({guess})"
    refused(path, START + re.escape(message))


def test_names_unlike_any_are_not_guessed(path, state):
    state["zzz"] = state.pop("fc.bias")
    torch.save(state, path)
    refused(path, START + r"missing fc\.bias; unexpected zzz: try another arch$")


def test_names_without_the_beginning_of_the_others_are_unexpected(path, state):
    content = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({**content, "fc.bias": torch.ones(5), "normalize.mean": torch.ones(3)}, path)
    refused(path, START + r"unexpected fc\.bias, normalize\.mean: try another arch$")


def test_three_of_the_other_shapes_are_listed(path):
    other = Small(5)
    other.conv1 = nn.Conv2d(3, 6, 3)
    other.bn1 = nn.BatchNorm2d(6)
    other.fc = nn.Linear(6, 5)
    torch.save(other.state_dict(), path)
    listed = "conv1.weight, conv1.bias, bn1.weight and 4 more"
    refused(path, START + re.escape(f"other shapes of {listed}: try another arch"))


@pytest.mark.parametrize("arch", ["torchvision:squeezenet1_1", "torchvision:mobilenet_v3_small"])
def test_the_number_of_classes_is_named_whatever_the_head_is_called(arch, path):
    torch.save(build(arch, 12).state_dict(), path)
    refused(
        path, "with 10 classes: its head has 12 classes, pass classes=12", arch=arch, classes=10
    )
    read(path, arch=arch, classes=12)


@pytest.mark.parametrize(
    ("name", "shape"), [("fc.bias", (12,)), ("fc.weight", (12, 5)), ("fc.weight", ())]
)
def test_other_shapes_are_no_other_number_of_classes(name, shape, path, state):
    state[name] = torch.ones(shape)
    torch.save(state, path)
    refused(path, START + f"other shapes of {re.escape(name)}: try another arch")


def test_another_number_of_classes_is_not_all_that_differs(path):
    other = Small(12)
    other.bn2 = nn.BatchNorm2d(4)
    torch.save(other.state_dict(), path)
    refused(path, START + r"unexpected bn2\.weight, .*; other shapes of fc\.weight, fc\.bias: try")


def test_a_table_of_another_length_is_no_head(path, state):
    """Its first dimension is not that of the classes."""
    state["conv1.weight"] = torch.ones(9, 3, 3, 3)
    torch.save(state, path)
    refused(path, START + r"other shapes of conv1\.weight: try another arch")


def test_unknown_architectures_are_named(path, state):
    torch.save(state, path)
    with pytest.raises(ValueError, match="torchvision has no classifier 'resnet'"):
        read(path, arch="torchvision:resnet")


# --- the table of published sources


def test_the_table_of_sources_is_a_file_of_the_package():
    package = Path(ancer.__file__).parent
    project = tomllib.loads((package.parent / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["ancer"]
    packaged = {path for pattern in patterns for path in package.glob(pattern)}
    table = package / "models" / "published.toml"
    assert table in packaged
    assert list(tomllib.loads(table.read_text())["sources"]) == list(SOURCES)
