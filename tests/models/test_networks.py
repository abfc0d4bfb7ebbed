"""The networks: sizes of the literature, normalisation inside, other arithmetics."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from ancer.classifier import Classifier
from ancer.models import networks
from ancer.models.networks import MLP, DigitsCNN, Normalized

torch.set_num_threads(1)

# Parameters as published: kuangliu/pytorch-cifar 11.17 M; bearpaw/pytorch-classification 1.73 M;
# Zagoruyko and Komodakis 2.2 M; torchvision 25,557,032. ANCER's ResNet-18: torchvision's 11,689,512
# with 10 classes (-990 * 513) and without the first batch normalisation (-128).
SIZES = {
    "resnet18": (10, 11_173_962),
    "resnet18_ancer": (10, 11_689_512 - 990 * 513 - 128),
    "resnet110": (10, 1_730_714),
    "wrn40_2": (10, 2_243_546),
    "resnet50": (1000, 25_557_032),
}
# batch normalisations that follow no convolution, before activation: 17 blocks and the end
LEFT = {"wrn40_2": 18}
PUBLISHED = pytest.mark.parametrize("arch", SIZES)


def images(arch, count=2):
    """Noise of growing contrast; resnet50 takes any size, and 64 pixels are quicker than 224."""
    pixels = 64 if arch == "resnet50" else 32
    noise = torch.rand(count, 3, pixels, pixels, generator=torch.Generator().manual_seed(1))
    return noise * torch.linspace(0.2, 1, count).reshape(-1, 1, 1, 1)


@pytest.fixture(scope="module")
def trained():
    """Networks whose batch normalisation has other weights than fresh, and statistics of images."""
    built = {}

    def get(arch):
        if arch not in built:
            torch.manual_seed(0)
            module = networks.build(arch, SIZES[arch][0])
            for part in module.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.weight.data.uniform_(0.5, 1.5)
                    part.bias.data.uniform_(-0.5, 0.5)
                    part.momentum = 1.0
            module.train()(images(arch, 4))
            built[arch] = module.eval()
        return built[arch]

    return get


@PUBLISHED
def test_sizes_are_those_of_the_literature(arch, trained):
    classes, size = SIZES[arch]
    assert sum(p.numel() for p in trained(arch).parameters()) == size
    assert trained(arch)(images(arch)).shape == (2, classes)
    assert networks.build(arch, 7)(images(arch)).shape == (2, 7)


def test_resnet50_takes_imagenet_sizes(trained):
    with torch.no_grad():
        assert trained("resnet50")(torch.rand(1, 3, 224, 224)).shape == (1, 1000)


@PUBLISHED
def test_folded_network_is_the_same_function(arch, trained):
    plain, folded = Classifier(trained(arch)), Classifier(trained(arch), fold=True)
    x = images(arch)
    # not a constant
    assert torch.isfinite(plain(x)).all() and (plain(x)[0] - plain(x)[1]).abs().max() > 0.01
    scale = plain(x).abs().max()
    torch.testing.assert_close(folded(x) / scale, plain(x) / scale, rtol=1e-4, atol=1e-4)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.module.modules()) == LEFT.get(arch, 0)


@PUBLISHED
def test_reduced_precision_and_channels_last(arch, trained):
    x = images(arch)
    plain = Classifier(trained(arch))(x)
    reduced = Classifier(trained(arch), dtype="bfloat16", memory_format="channels_last", fold=True)(
        x
    )
    assert (reduced - plain).abs().max() < 0.2 * plain.abs().max()  # eight bits, fifty layers
    layout = Classifier(trained(arch), memory_format="channels_last")(x)
    torch.testing.assert_close(layout, plain, rtol=1e-3, atol=1e-4 * plain.abs().max().item())


@PUBLISHED
def test_normalisation_is_inside_by_channel(arch, trained):
    module = trained(arch)
    x = images(arch)
    mean, std = module.mean.flatten().tolist(), module.std.flatten().tolist()
    by_hand = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(module(x), module.net(by_hand), rtol=1e-4, atol=1e-4)
        assert (module(x) - module.net(x)).abs().max() > 0.01
    assert {"mean", "std"} <= module.state_dict().keys() and not {"mean", "std"} & dict(
        module.named_parameters()
    ).keys()
    expected = [0.485, 0.456, 0.406] if arch == "resnet50" else [0.4914, 0.4822, 0.4465]
    assert mean == pytest.approx(expected)


def test_mean_and_deviation_have_their_places():
    module = Normalized(nn.Identity(), (0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    assert module(torch.full((1, 3, 1, 1), 0.5)).flatten().tolist() == pytest.approx(
        [0.4, 0.15, 0.05]
    )


def test_gradients_reach_images_and_all_parameters(trained):
    for arch in SIZES:
        module = trained(arch)
        x = images(arch).requires_grad_()
        module(x).square().sum().backward()
        assert x.grad.abs().sum() > 0
        assert all(p.grad is not None for p in module.parameters()), arch
        module.zero_grad()


def test_torchvision_is_imported_only_for_the_network_that_needs_it():
    code = (
        "import sys, ancer.models.networks as n; n.build('resnet18', 10); "
        "sys.exit('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_unknown_architecture_is_named():
    with pytest.raises(ValueError, match="unknown architecture 'resnet5': did you mean 'resnet50'"):
        networks.build("resnet5", 10)
    with pytest.raises(ValueError, match="unknown architecture 'vgg': choose one of") as caught:
        networks.build("vgg", 10)
    assert all(arch in str(caught.value) for arch in networks.ARCHITECTURES)


def test_an_architecture_of_ones_own_is_built_by_its_name():
    assert isinstance(networks.build("ancer.models.networks:MLP", 7), MLP)
    assert networks.build("ancer.models.networks:MLP", 7)(torch.rand(3, 2)).shape == (3, 7)
    with pytest.raises(ValueError, match="no architecture 'nowhere:net': No module named"):
        networks.build("nowhere:net", 10)


def test_networks_normalise_inside():
    for module, x in [(DigitsCNN(), torch.rand(3, 1, 8, 8)), (MLP(), torch.rand(3, 2))]:
        kept = x.clone()
        assert module(x).shape[0] == 3 and torch.equal(x, kept)
