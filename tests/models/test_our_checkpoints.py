"""Our checkpoints: what is saved is what is loaded, and everything else is refused."""

import re

import pytest
import torch
from problems import network
from safetensors.torch import save_file

from ancer._files import sha256_of
from ancer.models.checkpoints import load, save
from ancer.models.networks import MLP, build

PROVENANCE = {"seed": 0, "noise": "gaussian", "sigma": 0.25, "loss": [2.5, 0.125], "commit": None}


@pytest.fixture
def checkpoint(tmp_path):
    """(path, module) of a saved network with weights of its own."""
    path, module = tmp_path / "models" / "net.safetensors", build("digits_cnn", 7)
    save(path, module, arch="digits_cnn", classes=7, provenance=PROVENANCE)
    return path, module


@pytest.mark.parametrize("arch, shape", [("digits_cnn", (2, 1, 8, 8)), ("mlp", (2, 2))])
def test_checkpoint_round_trip(tmp_path, arch, shape):
    module = build(arch, 5)
    path = tmp_path / "net.safetensors"
    save(path, module, arch=arch, classes=5, provenance=PROVENANCE)
    loaded = load(path, sha256=sha256_of(path))
    assert type(loaded) is type(module) and not loaded.training
    assert loaded.provenance == PROVENANCE
    assert loaded.state_dict().keys() == module.state_dict().keys()
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.parameters(), module.parameters(), strict=True)
    )
    x = torch.rand(shape)
    assert torch.equal(loaded(x), module.eval()(x)) and loaded(x).shape == (2, 5)
    assert [f.name for f in tmp_path.iterdir()] == ["net.safetensors"]  # nothing half-written stays


def test_saving_again_gives_the_same_bytes(checkpoint, tmp_path):
    path, module = checkpoint
    again = tmp_path / "again.safetensors"
    save(again, module, arch="digits_cnn", classes=7, provenance=dict(reversed(PROVENANCE.items())))
    assert sha256_of(again) == sha256_of(path)
    assert re.fullmatch("[0-9a-f]{64}", sha256_of(path))


def test_saving_replaces_an_older_checkpoint(checkpoint):
    path, _ = checkpoint
    other = build("mlp", 3)
    save(path, other, arch="mlp", classes=3, provenance={})
    assert isinstance(load(path), MLP) and load(path).provenance == {}


def refused(error, path, **arguments):
    """The message of the error that loading `path` raises: one line that names the file."""
    with pytest.raises(error) as caught:
        load(path, **arguments)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_other_classes_than_the_data_are_named(tmp_path):
    path = tmp_path / "net.safetensors"
    save(path, MLP(3), arch="mlp", classes=3, provenance={})
    load(path, classes=3)
    with pytest.raises(
        ValueError, match=r"net\.safetensors has 3 classes, the data set 10: train it"
    ):
        load(path, classes=10)


def test_missing_checkpoint_is_named(tmp_path):
    assert "train" in refused(FileNotFoundError, tmp_path / "none.safetensors")
    refused(FileNotFoundError, tmp_path)


def test_altered_checkpoint_is_named(checkpoint):
    path, _ = checkpoint
    expected = sha256_of(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # one bit of one weight: the file is still well-formed
    path.write_bytes(data)
    load(path)
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
    "weights of another architecture": {
        "ancer": '{"arch": "digits_cnn", "classes": 10, "provenance": {}}'
    },
    "another number of classes": {"ancer": '{"arch": "mlp", "classes": 10, "provenance": {}}'},
}


def test_a_file_runs_no_function_that_it_names(tmp_path):
    """Only the caller may name a network of another package; the file's own word is none."""
    path = tmp_path / "net.safetensors"
    save(path, MLP(3), arch="ancer.models.networks:MLP", classes=3, provenance={})
    assert isinstance(load(path, arch="ancer.models.networks:MLP"), MLP)
    assert "its architecture is 'ancer.models.networks:MLP'" in refused(ValueError, path)
    marker = tmp_path / "run"
    marker.mkdir()
    save(path, MLP(3), arch="os:rmdir", classes=str(marker), provenance={})
    assert "'os:rmdir'" in refused(ValueError, path)
    assert "'os:rmdir'" in refused(ValueError, path, arch="mlp")
    assert marker.is_dir()


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_safetensors_files_are_named(tmp_path, kind):
    path = tmp_path / "foreign.safetensors"
    save_file(MLP(classes=3).state_dict(), path, metadata=FOREIGN[kind])
    refused(ValueError, path)
