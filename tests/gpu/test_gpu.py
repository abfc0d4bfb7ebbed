"""What only a card can show: the same answers as the CPU up to ties, fixed arithmetic, streams.

`make gpu` runs them; without CUDA they are skipped.
"""

import pytest
import torch
from problems import PROBLEMS
from stages import parameters, run, small, write_parameters

import ancer
from ancer.bases import basis_named
from ancer.classifier import Classifier
from ancer.confidence.looks import BLOCK
from ancer.models.networks import build
from ancer.noise.sampled import LAWS, GaussianNoise
from ancer.smoothing import SmoothedClassifier
from ancer.streams import OwnDraws, SharedDraws
from ancer.workspace.experiment import Experiment

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]
CARD = torch.device("cuda", 0)
SHAPE = (3, 32, 32)
BASES = ["pixels", "dct8+means+colours", "haar"]
BUDGET = {"n": 500, "alpha": 0.01, "seed": 0}


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return build("resnet20", 10).eval()


@pytest.fixture(scope="module")
def images():
    whole = torch.randint(0, 256, (4, *SHAPE), generator=torch.Generator().manual_seed(0))
    return whole / 255


def on_card(module, **numerics):
    return Classifier(module.to(CARD), **numerics)


# --- the same as on the CPU


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("lattice", [None, 1 / 255], ids=["float", "lattice"])
def test_votes_differ_from_the_cpus_only_where_logits_tie_within_rounding(
    resnet, images, law, lattice
):
    """On the same unit draws: the CPU's, sent to the card."""
    noise = LAWS[law].from_sigma(0.25)
    numbers = torch.float32 if lattice is None else torch.float64
    z = noise.unit((BLOCK, *SHAPE), generator=torch.Generator().manual_seed(1), dtype=numbers)
    logits = {}
    for device in (torch.device("cpu"), CARD):
        theta = noise.theta_for(images, lattice).to(device)
        inputs = noise.around(
            images.to(device)[:, None], theta[:, None], z.to(device), lattice, torch.float32
        )
        if lattice is not None:  # whole numbers are the same on both, bit for bit
            logits[f"{device.type} inputs"] = inputs.cpu()
        classifier = Classifier(resnet.to(device), batch_size=4 * BLOCK)
        logits[device.type] = classifier(inputs.flatten(0, 1)).cpu()
    if lattice is not None:
        assert torch.equal(logits["cpu inputs"], logits["cuda inputs"])
    top = logits["cpu"].topk(2, dim=1).values
    clear = top[:, 0] - top[:, 1] > 1e-3
    assert clear.float().mean() > 0.9
    assert torch.equal(logits["cpu"].argmax(1)[clear], logits["cuda"].argmax(1)[clear])


@pytest.mark.parametrize("problem", PROBLEMS)
def test_certificates_are_just_inside_the_exact_answer(problem):
    """Fails for fewer than 1 seed in 1,000 each (alpha)."""
    model = on_card(problem.model, batch_size=10_000)
    budget = {"n": 20_000, "alpha": 0.001, "seed": 0}
    [c] = ancer.certify(model, problem.batch(1), problem.noise(1), **budget)
    assert c.prediction == 0 and c.p_a_lower <= problem.p_a
    assert 0.89 * problem.gap <= c.gap <= problem.gap


# --- fixed arithmetic, streams


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("exact", [False, True], ids=["float", "exact"])
def test_twice_the_same_votes_whatever_the_order_or_subset(resnet, images, dtype, basis, exact):
    numerics = {"dtype": dtype, "memory_format": "channels_last", "batch_size": 256}
    classifier = on_card(resnet, **numerics)
    noise = GaussianNoise(0.25, basis=basis_named(basis, SHAPE))

    def votes(order):
        found = ancer.certify(
            classifier, images[order], noise, exact=exact, indices=order, **BUDGET
        )
        return {c.index: (c.votes, c.gap) for c in found}

    reference = votes([0, 1, 2, 3])
    assert votes([0, 1, 2, 3]) == reference
    assert votes([3, 1]) == {i: reference[i] for i in (3, 1)}


def test_the_batch_size_changes_a_vote_only_by_rounding(resnet, images):
    counts = []
    for batch_size in (100, 128, 1000):
        g = SmoothedClassifier(on_card(resnet, batch_size=batch_size), GaussianNoise(0.25))
        counts.append(g.counts(images, 500, seed=0, purpose="certify"))
    for other in counts[1:]:
        assert (other - counts[0]).abs().sum() <= 20


@pytest.mark.parametrize("kind", [SharedDraws, OwnDraws])
def test_streams_of_other_arguments_are_uncorrelated(kind):
    """Correlation of 307,200 pairs within 5 standard errors: fails for 1 seed in 5e5 each."""
    shape = (BLOCK, *SHAPE)
    law = GaussianNoise(1.0)

    def draws(seed, purpose, wanted):
        made = kind(law, shape, torch.float32, CARD, seed, purpose)
        return made([wanted]).flatten().double().cpu()

    first = draws(0, "certify", (0, 0))
    assert torch.equal(draws(0, "certify", (0, 0)), first)
    others = [draws(1, "certify", (0, 0)), draws(0, "select", (0, 0)), draws(0, "certify", (1, 1))]
    for other in others:
        pair = torch.stack([first, other])
        assert abs(torch.corrcoef(pair)[0, 1]) < 5 / first.numel() ** 0.5


def test_too_large_a_batch_is_named(resnet, images):
    classifier = on_card(resnet, batch_size=50_000_000)
    with pytest.raises(MemoryError, match="out of memory with batch_size 50000000: lower it"):
        ancer.certify(classifier, images, GaussianNoise(0.25), **BUDGET)


# --- optimizers, the pipeline


def test_optimizers_give_theta_where_the_images_are(resnet, images):
    model = on_card(resnet)
    noise = GaussianNoise(0.25)
    start = ancer.optimize_isotropic(model, images, noise, seed=0, draws=50)
    assert start.device == images.device and start.shape == (4,)
    basis = basis_named("dct8", SHAPE)
    for noise in (GaussianNoise(start), GaussianNoise(start, basis=basis)):
        options = {"iterations": 3, "draws": 4, "search_draws": 50}
        theta = ancer.optimize_anisotropic(model, images, noise, seed=0, **options)
        again = ancer.optimize_anisotropic(model, images, noise, seed=0, **options)
        assert theta.device == images.device and theta.shape == images.shape
        assert torch.equal(theta, again)


@pytest.mark.parametrize("cluster", [{}, {"local": max(1, torch.cuda.device_count())}], ids=str)
def test_a_stage_runs_on_the_card(tmp_path, cluster):
    name = "digits-l2-025"
    folder = small(tmp_path, experiments=[name])
    write_parameters(folder, {**parameters(folder), "cluster": cluster})
    for stage in ("train", "optimize", "certify"):
        run(folder, stage, experiment=name)
    e = Experiment.open(name, profile=folder)
    assert e.provenance["evaluation"]["device"] == torch.cuda.get_device_name(CARD)
    assert len(e.rows()) == len(e.rows().drop_duplicates(["method", "idx"]))
