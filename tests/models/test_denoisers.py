"""Denoisers before a model: what is frozen, what is trained, and one step of a diffusion model."""

from types import SimpleNamespace

import pytest
import torch
from problems import HalfSpace
from torch import nn

import ancer
from ancer import Denoised, DiffusionDenoiser, GaussianNoise, Recipe, ResidualDenoiser, train
from ancer.datasets.loading import load
from ancer.models.networks import build

IMAGES = torch.rand((8, 1, 8, 8), generator=torch.Generator().manual_seed(0))
LABELS = torch.zeros(8, dtype=torch.int64)


def scheduler(prediction="epsilon", steps=1000):
    """As diffusers has them: what is kept of the image falls from near 1 to near 0."""
    return SimpleNamespace(
        alphas_cumprod=torch.cumprod(1 - torch.linspace(1e-4, 0.02, steps), dim=0),
        config=SimpleNamespace(prediction_type=prediction),
    )


def test_a_denoiser_that_does_nothing_changes_no_certificate():
    model = HalfSpace(torch.tensor([1.0, 0.0]), 0.0)
    x = torch.tensor([[0.7, 0.2], [0.1, 0.9]])
    alone = ancer.certify(model, x, GaussianNoise(0.2), n=500, seed=3)
    behind = ancer.certify(Denoised(nn.Identity(), model), x, GaussianNoise(0.2), n=500, seed=3)
    assert [c.votes for c in alone] == [c.votes for c in behind]
    assert [c.radius for c in alone] == [c.radius for c in behind]


def test_a_denoiser_moves_the_boundary_as_it_moves_the_points():
    """Halved points cross x_1 - 1/2 = -1/4 where the points cross x_1 = 1/2, 0.3 from 0.8."""

    class Half(nn.Module):
        def forward(self, x):
            return x / 2

    x = torch.tensor([[0.8, 0.5]])
    f = Denoised(Half(), HalfSpace(torch.tensor([1.0, 0.0]), -0.25))
    (found,) = ancer.certify(f, x, GaussianNoise(0.2), n=20_000, alpha=0.001, classes="one")
    assert 0.9 * 0.3 < found.radius <= 0.3


def test_the_model_is_a_frozen_copy():
    model = build("digits_cnn", 10).train()
    f = Denoised(ResidualDenoiser(1, width=4), model)
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert f.train().denoiser.training and not f.model.training
    trained = {name.split(".")[0] for name, p in f.named_parameters() if p.requires_grad}
    assert trained == {"denoiser"}
    with torch.no_grad():
        model.head.weight.zero_()
    assert f.model.head.weight.any()


def test_a_denoiser_of_another_shape_is_refused():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    for denoiser, found in ((nn.Flatten(), r"\(8, 64\)"), (Pair(), "tuple")):
        with pytest.raises(ValueError, match=rf"\(8, 1, 8, 8\), found {found}"):
            Denoised(denoiser, nn.Identity()).denoised(IMAGES)


@pytest.mark.parametrize(("sides", "factor"), [((8, 8), 1), ((12, 20), 2), ((8, 8), 4)])
def test_residual_denoiser_subtracts_nothing_where_its_last_layer_is_zero(sides, factor):
    denoiser = ResidualDenoiser(3, factor=factor, width=4, blocks=1)
    x = torch.rand(2, 3, *sides)
    assert not torch.equal(denoiser(x), x)
    for parameter in denoiser.last[-1].parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(denoiser(x), x)


def test_residual_denoiser_says_which_sides_it_takes():
    with pytest.raises(ValueError, match=r"multiples of 4 \(twice factor\), found 8 x 10"):
        ResidualDenoiser(1, factor=2)(torch.rand(1, 1, 8, 10))
    with pytest.raises(ValueError, match="must be >= 1, found 1, 1, 0, 2"):
        ResidualDenoiser(1, width=0)


def test_a_denoiser_and_its_model_are_folded_together():
    torch.manual_seed(0)
    f = Denoised(ResidualDenoiser(3, width=4), build("resnet20", 10)).eval()
    x = torch.rand(2, 3, 32, 32)
    folded = ancer.Classifier(f, fold=True, batch_size=2)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.module.modules())
    assert torch.allclose(folded(x), f(x), atol=1e-4)
    with pytest.raises(ValueError, match="multiples of 2"):
        folded(torch.rand(2, 3, 31, 32))


def test_training_takes_noise_away_and_leaves_the_model():
    """A fitted denoiser is nearer to the image than the noise is: sigma^2 is the error of none."""
    data = load("digits", split="train", images=400)
    torch.manual_seed(0)
    f = Denoised(ResidualDenoiser(1, width=16), build("digits_cnn", 10))
    before = {name: tensor.clone() for name, tensor in f.model.state_dict().items()}
    recipe = Recipe(scheme="denoising", epochs=15, batch_size=50, lr=0.003)
    train(f, data.images, data.labels, GaussianNoise(0.5), recipe)
    for name, tensor in f.model.state_dict().items():
        assert torch.equal(tensor, before[name])
    x = load("digits", images=100).images
    noisy = x + 0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        error = (f.denoised(noisy) - x).square().mean()
    assert error < 0.25 * 0.5**2


def test_stability_brings_back_the_models_own_answers():
    """Without labels: those given are all zero, and the denoiser is trained to the answers."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    nn.init.zeros_(model[1].bias)
    x = torch.rand((200, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    answers = model(x).argmax(1)
    f = Denoised(ResidualDenoiser(1, width=8), model)
    noisy = x + 2.0 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    before = (f(noisy).argmax(1) == answers).double().mean()
    recipe = Recipe(scheme="denoised_stability", epochs=20, batch_size=50, lr=0.003)
    train(f, x, torch.zeros(200, dtype=torch.int64), GaussianNoise(2.0), recipe)
    assert (f(noisy).argmax(1) == answers).double().mean() > before


@pytest.mark.parametrize("scheme", ["denoising", "denoised_stability"])
def test_schemes_of_denoisers_need_one(scheme):
    recipe = Recipe(scheme=scheme, epochs=1, batch_size=8, lr=0.1)
    with pytest.raises(ValueError, match=r"ancer.Denoised\(denoiser, model\), found DigitsCNN"):
        train(build("digits_cnn", 10), IMAGES, LABELS, GaussianNoise(0.1), recipe)


class Unet(nn.Module):
    """A stand-in for a diffusion model; predicted: of its noisy image and step."""

    def __init__(self, predicted):
        super().__init__()
        self.predicted = predicted

    def forward(self, x, t):
        return SimpleNamespace(sample=self.predicted(x, t))


@pytest.mark.parametrize("variances", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_diffusion_model_that_knows_the_noise_gives_the_image_back(prediction, variances):
    plan = scheduler(prediction)
    image = 2 * IMAGES - 1

    def predicted(noisy, t):
        kept = plan.alphas_cumprod[t].double()
        noise = (noisy - kept.sqrt() * image) / (1 - kept).sqrt()
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * image
        found = {"epsilon": noise, "sample": image, "v_prediction": velocity}[prediction]
        return torch.cat([found, found.square()], dim=1) if variances else found

    noisy = IMAGES + 0.25 * torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(0))
    denoised = DiffusionDenoiser(Unet(predicted), plan, 0.25)(noisy)
    assert torch.allclose(denoised, IMAGES, atol=1e-5)


def test_the_step_is_the_one_whose_noise_is_nearest():
    plan = scheduler()
    for sigma in (0.05, 0.25, 1.0):
        denoiser = DiffusionDenoiser(Unet(lambda x, t: x), plan, sigma)
        kept = plan.alphas_cumprod.double()
        noise = ((1 - kept) / kept).sqrt() / 2
        assert abs(noise[denoiser.step] - sigma) == (noise - sigma).abs().min()


def test_what_a_scheduler_cannot_give_is_said():
    for sigma in (0.0, 1e9):
        with pytest.raises(ValueError, match="sigma must lie between 0.0050 and"):
            DiffusionDenoiser(Unet(lambda x, t: x), scheduler(), sigma)
    with pytest.raises(ValueError, match="must be one of epsilon, sample, v_prediction"):
        DiffusionDenoiser(Unet(lambda x, t: x), scheduler("flow"), 0.25)


def test_a_tiny_model_of_diffusers_is_certified():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    denoiser = DiffusionDenoiser(unet, diffusers.DDPMScheduler(), 0.25)
    f = ancer.Classifier(Denoised(denoiser, build("digits_cnn", 10)), batch_size=50)
    (found,) = ancer.certify(f, IMAGES[:1], GaussianNoise(0.25), n=200, alpha=0.05)
    assert sum(found.votes.values()) == 200
    (again,) = ancer.certify(f, IMAGES[:1], GaussianNoise(0.25), n=200, alpha=0.05)
    assert found.votes == again.votes


def test_the_imagenet_network_knows_what_it_takes():
    pytest.importorskip("efficientnet_lite_pytorch")
    from ancer.models.imagenet import denoised_efficientnet_lite0

    f = denoised_efficientnet_lite0().eval()
    assert sum(p.numel() for p in f.model.parameters()) == 4_652_008
    with torch.no_grad():
        assert f(torch.rand(1, 3, 224, 224)).shape == (1, 1000)
    with pytest.raises(ValueError, match="has 1000 classes, those of ImageNet in their order"):
        denoised_efficientnet_lite0(10)
