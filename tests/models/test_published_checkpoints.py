"""Published checkpoints: files in each published form, with random weights, against the published
arithmetic.

Names, shapes and forward passes are stated here a second time, from the publishers' code, on bare
dictionaries.
"""

import os
import re
from collections import OrderedDict
from hashlib import sha256

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from ancer.classifier import Classifier
from ancer.models import networks
from ancer.models.published import SOURCES, load_published

torch.set_num_threads(1)

# --- the published networks, on dictionaries of tensors


class Weights(OrderedDict):
    """Random tensors by published name, in the order in which modules keep them."""

    def __init__(self, seed=0):
        super().__init__()
        self.stream = torch.Generator().manual_seed(seed)

    def conv(self, name, before, after, size):
        scale = (1 / (before * size * size)) ** 0.5
        self[f"{name}.weight"] = (
            torch.randn(after, before, size, size, generator=self.stream) * scale
        )

    def bn(self, name, width):
        for part, low in [
            ("weight", 0.5),
            ("bias", -0.5),
            ("running_mean", -0.5),
            ("running_var", 0.5),
        ]:
            self[f"{name}.{part}"] = torch.rand(width, generator=self.stream) + low
        self[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def linear(self, name, before, after):
        self[f"{name}.weight"] = torch.randn(after, before, generator=self.stream) * before**-0.5
        self[f"{name}.bias"] = torch.randn(after, generator=self.stream)


def conv(w, name, x, stride=1):
    weight = w[f"{name}.weight"]
    return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)


def bn(w, name, x):
    statistics = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    return F.batch_norm(x, *statistics, w[f"{name}.weight"], w[f"{name}.bias"])


def linear(w, name, x):
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def basic_stages(w, widths, blocks, shortcut):
    for i in range(1, len(widths)):
        for j in range(blocks):
            before, after = widths[i - 1] if j == 0 else widths[i], widths[i]
            w.conv(f"layer{i}.{j}.conv1", before, after, 3)
            w.bn(f"layer{i}.{j}.bn1", after)
            w.conv(f"layer{i}.{j}.conv2", after, after, 3)
            w.bn(f"layer{i}.{j}.bn2", after)
            if j == 0 and i > 1:
                w.conv(f"layer{i}.{j}.{shortcut}.0", before, after, 1)
                w.bn(f"layer{i}.{j}.{shortcut}.1", after)


def run_basic_stages(w, x, stages, blocks, shortcut):
    for i in range(1, stages + 1):
        for j in range(blocks):
            name, stride = f"layer{i}.{j}", 2 if j == 0 and i > 1 else 1
            y = torch.relu(bn(w, f"{name}.bn1", conv(w, f"{name}.conv1", x, stride)))
            y = bn(w, f"{name}.bn2", conv(w, f"{name}.conv2", y))
            if j == 0 and i > 1:
                x = bn(w, f"{name}.{shortcut}.1", conv(w, f"{name}.{shortcut}.0", x, stride))
            x = torch.relu(y + x)
    return x


class ResNet110:
    """bearpaw/pytorch-classification.

    In locuslab/smoothing code/archs/cifar_resnet.py and RuntianZ/macer model.py.
    """

    pixels = 32

    @staticmethod
    def weights(classes):
        w = Weights()
        w.conv("conv1", 3, 16, 3)
        w.bn("bn1", 16)
        basic_stages(w, [16, 16, 32, 64], 18, "downsample")
        w.linear("fc", 64, classes)
        return w

    @staticmethod
    def run(w, x):
        x = torch.relu(bn(w, "bn1", conv(w, "conv1", x)))
        x = run_basic_stages(w, x, 3, 18, "downsample")
        return linear(w, "fc", F.avg_pool2d(x, 8).reshape(len(x), 64))


class Kuangliu18:
    """kuangliu/pytorch-cifar models/resnet.py"""

    pixels = 32

    @staticmethod
    def weights(classes):
        w = Weights()
        w.conv("conv1", 3, 64, 3)
        w.bn("bn1", 64)
        basic_stages(w, [64, 64, 128, 256, 512], 2, "shortcut")
        w.linear("linear", 512, classes)
        return w

    @staticmethod
    def run(w, x):
        x = torch.relu(bn(w, "bn1", conv(w, "conv1", x)))
        x = run_basic_stages(w, x, 4, 2, "shortcut")
        return linear(w, "linear", F.avg_pool2d(x, 4).reshape(len(x), 512))


class Ancer18:
    """ddsmoothing-python 1.0.0 ddsmoothing/utils/resnet.py, before its softmax"""

    pixels = 32

    @staticmethod
    def weights(classes):
        w = Weights()
        w.conv("conv1", 3, 64, 7)
        basic_stages(w, [64, 64, 128, 256, 512], 2, "downsample")
        w.linear("fc", 512, classes)
        return w

    @staticmethod
    def run(w, x):
        x = F.max_pool2d(torch.relu(conv(w, "conv1", x, 2)), 3, stride=2, padding=1)
        x = run_basic_stages(w, x, 4, 2, "downsample")
        return linear(w, "fc", x.mean((2, 3)))


class WideResNet:
    """tonyduan/rs4a src/lib/wide_resnet.py with depth 40, width 2, no dropout"""

    pixels = 32

    @staticmethod
    def weights(classes):
        w = Weights()
        w.conv("conv1", 3, 16, 3)
        widths = [16, 32, 64, 128]
        for i in (1, 2, 3):
            for j in range(6):
                before = widths[i - 1] if j == 0 else widths[i]
                w.bn(f"block{i}.layer.{j}.bn1", before)
                w.conv(f"block{i}.layer.{j}.conv1", before, widths[i], 3)
                w.bn(f"block{i}.layer.{j}.bn2", widths[i])
                w.conv(f"block{i}.layer.{j}.conv2", widths[i], widths[i], 3)
                if j == 0:
                    w.conv(f"block{i}.layer.{j}.convShortcut", before, widths[i], 1)
        w.bn("bn1", 128)
        w.linear("fc", 128, classes)
        return w

    @staticmethod
    def run(w, x):
        x = conv(w, "conv1", x)
        for i in (1, 2, 3):
            for j in range(6):
                name, stride = f"block{i}.layer.{j}", 2 if j == 0 and i > 1 else 1
                active = torch.relu(bn(w, f"{name}.bn1", x))
                if j == 0:
                    x = conv(w, f"{name}.convShortcut", active, stride)
                active = torch.relu(bn(w, f"{name}.bn2", conv(w, f"{name}.conv1", active, stride)))
                x = x + conv(w, f"{name}.conv2", active)
        return linear(w, "fc", F.avg_pool2d(torch.relu(bn(w, "bn1", x)), 8).reshape(len(x), 128))


class ResNet50:
    """torchvision's own"""

    pixels = 64  # of the 224 it is made for

    @staticmethod
    def module(classes):
        from torchvision.models import resnet50

        torch.manual_seed(0)
        return resnet50(num_classes=classes)

    @classmethod
    def weights(cls, classes):
        module = cls.module(classes)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.data.uniform_(0.5, 1.5)
                part.bias.data.uniform_(-0.5, 0.5)
                part.momentum = 1.0
        module(images(cls.pixels))  # gives the statistics
        return OrderedDict(module.state_dict())

    @classmethod
    def run(cls, w, x):
        module = cls.module(len(w["fc.bias"]))
        module.load_state_dict(w)
        return module.eval()(x)


# --- the published files


def prefixed(prefix, w):
    return OrderedDict((prefix + name, tensor) for name, tensor in w.items())


def cohen(arch, prefix):
    def form(w):
        optimizer = {
            "state": {0: {"momentum_buffer": torch.rand(3)}},
            "param_groups": [{"lr": 0.1, "params": [0]}],
        }
        return {
            "epoch": 90,
            "arch": arch,
            "state_dict": prefixed(prefix, w),
            "optimizer": optimizer,
        }

    return form


def macer(w):
    return {"net": OrderedDict(w), "epoch": 440}


def rs4a(mean, std):
    def form(w):
        statistics = {
            "mu": torch.tensor(mean).reshape(3, 1, 1),
            "log_sig": torch.log(torch.tensor(std)).reshape(3, 1, 1),
        }
        return prefixed("norm.module.", statistics) | prefixed("model.module.", w)

    return form


def ancer(prefix):
    return lambda w: {
        "epoch": 120,
        "state_dict": prefixed(prefix, w),
        "optimizer_param": {"state": {}},
    }


def kuangliu(w):
    return {"net": prefixed("module.", w), "acc": 95.5, "epoch": 199}


CIFAR_MEAN, CIFAR_STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
ZERO, ONE = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
CASES = {  # source, our architecture: the published network, the form of its file, mean, deviation
    ("cohen", "resnet110"): (ResNet110, cohen("cifar_resnet110", "1."), CIFAR_MEAN, CIFAR_STD),
    ("cohen", "resnet50"): (ResNet50, cohen("resnet50", "1.module."), IMAGENET_MEAN, IMAGENET_STD),
    ("smoothadv", "resnet110"): (ResNet110, cohen("cifar_resnet110", "1."), CIFAR_MEAN, ONE),
    ("smoothadv", "resnet50"): (ResNet50, cohen("resnet50", "1.module."), IMAGENET_MEAN, ONE),
    ("smoothadv_finetuned", "resnet110"): (
        ResNet110,
        cohen("cifar_resnet110", "1."),
        CIFAR_MEAN,
        CIFAR_STD,
    ),
    ("macer", "resnet110"): (ResNet110, macer, ZERO, ONE),
    ("macer", "resnet50"): (ResNet50, macer, IMAGENET_MEAN, IMAGENET_STD),
    ("rs4a", "wrn40_2"): (WideResNet, rs4a(CIFAR_MEAN, CIFAR_STD), CIFAR_MEAN, CIFAR_STD),
    ("rs4a", "resnet50"): (
        ResNet50,
        rs4a(IMAGENET_MEAN, IMAGENET_STD),
        IMAGENET_MEAN,
        IMAGENET_STD,
    ),
    ("ancer", "resnet18_ancer"): (Ancer18, ancer(""), CIFAR_MEAN, CIFAR_STD),
    ("ancer", "wrn40_2"): (WideResNet, ancer(""), CIFAR_MEAN, CIFAR_STD),
    ("ancer", "resnet50"): (ResNet50, ancer("module."), ZERO, ONE),
    ("kuangliu", "resnet18"): (Kuangliu18, kuangliu, CIFAR_MEAN, CIFAR_STD),
    ("torchvision", "resnet50"): (ResNet50, OrderedDict, IMAGENET_MEAN, IMAGENET_STD),
}


@pytest.fixture(scope="module")
def weights():
    """Of a published network, by (network, classes); drawn once."""
    drawn = {}

    def get(network, classes=12):
        if (network, classes) not in drawn:
            drawn[network, classes] = network.weights(classes)
        return OrderedDict(drawn[network, classes])

    return get


def images(pixels):
    noise = torch.rand(2, 3, pixels, pixels, generator=torch.Generator().manual_seed(2))
    return noise * torch.tensor([0.2, 1.0]).reshape(2, 1, 1, 1)


def test_every_published_network_is_tried():
    assert set(CASES) == {
        (source, arch) for source, known in SOURCES.items() for arch in known.networks
    }
    assert {arch for _, arch in CASES} <= networks.ARCHITECTURES.keys()


@pytest.mark.parametrize(
    # legacy: as torch wrote files before 1.6; once is enough for the large ones
    ("source", "arch", "legacy"),
    [
        (*case, legacy)
        for case in CASES
        for legacy in (False, True)
        if case[1] != "resnet50" or not legacy
    ],
)
def test_loaded_network_computes_what_the_published_one_does(
    source, arch, legacy, tmp_path, weights
):
    network, form, mean, std = CASES[source, arch]
    torch.save(
        form(weights(network)), tmp_path / "file.pt", _use_new_zipfile_serialization=not legacy
    )
    module = load_published(tmp_path / "file.pt", source=source, arch=arch, classes=12)

    x = images(network.pixels)
    normalised = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    with torch.no_grad():
        expected, found = network.run(weights(network), normalised), module(x)
        scale = expected.abs().max()
        # which says something of the comparison
        assert (expected[0] - expected[1]).abs().max() > 0.01 * scale
        torch.testing.assert_close(found / scale, expected / scale, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            Classifier(module, fold=True)(x) / scale, expected / scale, rtol=1e-4, atol=1e-4
        )

    assert not any(part.training for part in module.modules())
    assert {t.dtype for t in module.parameters()} == {torch.float32}
    digest = sha256((tmp_path / "file.pt").read_bytes()).hexdigest()
    assert module.provenance == {"source": source, "arch": arch, "sha256": digest}


def test_random_state_aside_a_file_gives_one_network(tmp_path, weights):
    torch.save(macer(weights(ResNet110)), tmp_path / "file.pt")
    first, second = [
        load_published(tmp_path / "file.pt", source="macer", arch="resnet110", classes=12)
        for _ in "12"
    ]
    assert all(torch.equal(t, second.state_dict()[name]) for name, t in first.state_dict().items())


def test_normalisation_of_rs4a_is_the_one_in_its_file(tmp_path, weights):
    """Which may be another data set's, for a network that was trained on that first."""
    torch.save(rs4a([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])(weights(WideResNet)), tmp_path / "file.pt")
    module = load_published(tmp_path / "file.pt", source="rs4a", arch="wrn40_2", classes=12)
    assert module.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert module.std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])


def test_old_files_lack_the_counters_of_batches(tmp_path, weights):
    w = OrderedDict(
        (n, t) for n, t in weights(ResNet110).items() if not n.endswith("num_batches_tracked")
    )
    torch.save(macer(w), tmp_path / "file.pt")
    module = load_published(tmp_path / "file.pt", source="macer", arch="resnet110", classes=12)
    assert torch.equal(module.net.fc.weight, w["fc.weight"])


def test_half_precision_becomes_float32(tmp_path, weights):
    w = OrderedDict(
        (n, t.half() if t.is_floating_point() else t) for n, t in weights(ResNet110).items()
    )
    torch.save(macer(w), tmp_path / "file.pt")
    module = load_published(tmp_path / "file.pt", source="macer", arch="resnet110", classes=12)
    assert {t.dtype for t in module.parameters()} == {torch.float32}


# --- files that are refused


class Code:
    """What a pickle runs when it is read."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


PLACES = {
    "in place of the file": lambda file, code: code,
    "in place of the tensors": lambda file, code: file | {"state_dict": code},
    "among the tensors": lambda file, code: (
        file | {"state_dict": file["state_dict"] | {"1.fc.bias": code}}
    ),
    "beside the tensors": lambda file, code: file | {"optimizer": code},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("legacy", [True, False], ids=["before torch 1.6", "since"])
def test_file_with_code_is_refused_and_nothing_is_run(place, legacy, tmp_path, weights):
    path, marker = tmp_path / "file.pt", tmp_path / "marker"
    file = PLACES[place](cohen("cifar_resnet110", "1.")(weights(ResNet110)), Code(marker))
    torch.save(file, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        ValueError,
        match=f"{re.escape(str(path))} carries code or objects .*mkdir.*nothing of it was run",
    ):
        load_published(path, source="cohen", arch="resnet110", classes=12)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the code would have run
    assert marker.exists()


@pytest.mark.parametrize("thing", [nn.Linear(2, 2), {"state_dict": {}, "acc": np.float64(3.0)}])
def test_file_with_objects_is_refused(thing, tmp_path):
    torch.save(thing, tmp_path / "file.pt")
    with pytest.raises(ValueError, match="carries code or objects"):
        load_published(tmp_path / "file.pt", source="cohen", arch="resnet110", classes=10)


@pytest.mark.parametrize("legacy", [True, False], ids=["before torch 1.6", "since"])
@pytest.mark.parametrize("share", [0, 0.0001, 0.1, 0.5, 0.99])
def test_truncated_file_is_refused(share, legacy, tmp_path, weights):
    path = tmp_path / "file.pt"
    torch.save(macer(weights(ResNet110)), path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        ValueError,
        match=f"{re.escape(str(path))} .*or is truncated.*download it again from https://github",
    ):
        load_published(path, source="macer", arch="resnet110", classes=12)


@pytest.mark.parametrize(
    "content", [b"hello world", b"<!DOCTYPE html>", b"PK\x03\x04", bytes(range(256))]
)
def test_foreign_file_is_refused(content, tmp_path):
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(ValueError, match="is no file of tensors by PyTorch, or is truncated"):
        load_published(tmp_path / "file.pt", source="cohen", arch="resnet110", classes=10)


def test_our_own_format_is_refused(tmp_path):
    save_file({"mean": torch.ones(3)}, tmp_path / "file.pt")
    with pytest.raises(ValueError, match="is no file of tensors by PyTorch"):
        load_published(tmp_path / "file.pt", source="torchvision", arch="resnet50", classes=10)


@pytest.mark.parametrize(
    "content",
    [
        torch.ones(3),
        [],
        {},
        {"net": {"conv1.weight": torch.ones(3)}},
        {"state_dict": {}},
        {"state_dict": torch.ones(3)},
        {"1.conv1.weight": torch.ones(3)},
        {"state_dict": {"1.conv1.weight": 3}},
        {"state_dict": {1: torch.ones(3)}},
    ],
)
def test_file_without_the_tensors_of_its_source_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(
        ValueError,
        match=r"file\.pt is no dictionary of tensors in its entry 'state_dict'.*another source",
    ):
        load_published(tmp_path / "file.pt", source="cohen", arch="resnet110", classes=10)


def test_dictionary_of_more_than_tensors_is_refused_as_a_whole(tmp_path, weights):
    torch.save(cohen("resnet110", "1.")(weights(ResNet110)), tmp_path / "file.pt")
    with pytest.raises(ValueError, match="no dictionary of tensors as a whole, as source 'rs4a'"):
        load_published(tmp_path / "file.pt", source="rs4a", arch="wrn40_2", classes=12)


def without(name):
    return lambda w: OrderedDict((n, t) for n, t in w.items() if n != name)


def with_(name, tensor):
    return lambda w: OrderedDict(w) | {name: tensor}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("1.fc.bias"), r"missing net\.fc\.bias: try another source or arch"),
        (without("1.bn1.running_var"), r"missing net\.bn1\.running_var: try"),
        (
            with_("1.bn9.weight", torch.ones(1)),
            r"unexpected net\.bn9\.weight: try another source or arch",
        ),
        (with_("0.means", torch.ones(3)), r"unexpected 0\.means: try"),
        (with_("mean", torch.ones(1, 3, 1, 1)), r"unexpected mean: try"),
        (with_("net.fc.bias", torch.ones(12)), r"unexpected net\.fc\.bias: try"),
        (with_("1.module.fc.bias", torch.ones(12)), r"unexpected 1\.module\.fc\.bias: try"),
        (with_("1.bn1.bias", torch.ones(17)), r"other shapes of net\.bn1\.bias: try another arch"),
        (with_("1.fc.bias", torch.ones(13)), r"other shapes of net\.fc\.bias: try another arch"),
        (
            with_("1.fc.weight", torch.ones(())),
            r"other shapes of net\.fc\.weight: try another arch",
        ),
        (
            lambda w: prefixed("1.", w),
            r"missing net\.conv1\.weight, net\.bn1\.weight, .* and 554 more; unexpected net\.1",
        ),
    ],
)
def test_other_names_and_shapes_are_refused(change, message, tmp_path, weights):
    path = tmp_path / "file.pt"
    torch.save({"state_dict": change(prefixed("1.", weights(ResNet110)))}, path)
    start = f"{re.escape(str(path))} is no resnet110 of source 'cohen' with 12 classes: "
    with pytest.raises(ValueError, match=start + message):
        load_published(path, source="cohen", arch="resnet110", classes=12)


def test_names_of_another_source_are_refused(tmp_path, weights):
    """The network fits, but its normalisation would be another's."""
    torch.save(ancer("module.")(weights(ResNet50)), tmp_path / "file.pt")
    with pytest.raises(
        ValueError,
        match=r"unexpected module\.conv1\.weight, .* and \d+ more: try another source or arch",
    ):
        load_published(tmp_path / "file.pt", source="cohen", arch="resnet50", classes=12)


def test_another_architecture_is_refused(tmp_path, weights):
    torch.save(ancer("")(weights(Ancer18)), tmp_path / "file.pt")
    with pytest.raises(
        ValueError, match=r"is no wrn40_2 of source 'ancer'.*other shapes of .*try another arch"
    ):
        load_published(tmp_path / "file.pt", source="ancer", arch="wrn40_2", classes=12)


@pytest.mark.parametrize("name", ["norm.module.mu", "norm.module.log_sig"])
def test_normalisation_is_not_guessed_where_the_file_has_it(name, tmp_path, weights):
    torch.save(
        without(name)(rs4a(CIFAR_MEAN, CIFAR_STD)(weights(WideResNet))), tmp_path / "file.pt"
    )
    ours = {"norm.module.mu": "mean", "norm.module.log_sig": "std"}[name]
    with pytest.raises(ValueError, match=f"missing {ours}: try"):
        load_published(tmp_path / "file.pt", source="rs4a", arch="wrn40_2", classes=12)


def test_number_of_classes_is_named(tmp_path, weights):
    torch.save(macer(weights(ResNet110)), tmp_path / "file.pt")
    with pytest.raises(
        ValueError, match="with 10 classes: its head has 12 classes, pass classes=12"
    ):
        load_published(tmp_path / "file.pt", source="macer", arch="resnet110", classes=10)


def test_missing_file_says_what_to_download_where(tmp_path):
    path = tmp_path / "file.pt"
    with pytest.raises(
        FileNotFoundError,
        match=f"no checkpoint at {re.escape(str(path))}: download.*locuslab/smoothing",
    ):
        load_published(path, source="cohen", arch="resnet110", classes=10)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_published(tmp_path, source="cohen", arch="resnet110", classes=10)


@pytest.mark.parametrize(
    ("source", "arch", "message"),
    [
        (
            "salman",
            "resnet110",
            "unknown source: 'salman', choose one of ancer, cohen, kuangliu, macer, rs4a, "
            "smoothadv, smoothadv_finetuned, torchvision",
        ),
        ("coehn", "resnet110", r"unknown source: 'coehn', did you mean 'cohen'\?"),
        (
            "cohen",
            "vgg",
            "unknown architecture of source 'cohen': 'vgg', choose one of resnet110, resnet50",
        ),
        (
            "rs4a",
            "resnet110",
            "unknown architecture of source 'rs4a': 'resnet110', did you mean 'resnet50'",
        ),
    ],
)
def test_unknown_source_or_architecture_is_named_with_choices(source, arch, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_published(tmp_path / "file.pt", source=source, arch=arch, classes=10)
