"""Sampling: the exact law, and noise that depends on seed, purpose and image alone."""

import math
import threading

import numpy as np
import pytest
import torch
from problems import (
    BAD_IMAGES,
    BAD_SHAPES,
    PROBLEMS,
    HalfSpace,
    Network,
    Recorder,
    Untouchable,
    counting,
    network,
)
from scipy import stats

from ancer.classifier import Classifier
from ancer.confidence.looks import BLOCK
from ancer.noise.sampled import LAWS, GaussianNoise, UniformNoise
from ancer.smoothing import SmoothedClassifier
from ancer.streams import ALONE, KEPT, PURPOSES, SharedDraws, _words, generator, unit_draws

IMAGES = torch.randint(0, 17, (6, 1, 4, 4), generator=torch.Generator().manual_seed(0)) / 16
THETA = 0.125 + IMAGES / 2  # one scale for each pixel
SAMPLERS = ["counts", "probabilities"]


def smoothed(noise, *, module=None, shared=False, **numerics):
    return SmoothedClassifier(counting(module or network(), **numerics), noise, shared=shared)


def sample(how, noise, x, n, *, seed=0, purpose="certify", indices=None, **numerics):
    return getattr(smoothed(noise, **numerics), how)(
        x, n, seed=seed, purpose=purpose, indices=indices
    )


def noisy_inputs(noise, x, n, *, batch_size=50, **arguments):
    """The rows that the model is shown, padding left out: (B, n, *image)."""
    seen = []
    sample(
        "counts",
        noise,
        x,
        n,
        module=Recorder(torch.nn.Flatten(), seen.append),
        batch_size=batch_size,
        **arguments,
    )
    # a block of each image in turn
    sizes = [min(BLOCK, n - start) for start in range(0, n, BLOCK) for _ in x]
    blocks = torch.cat(seen)[: len(x) * n].split(sizes)
    return torch.stack([torch.cat(blocks[i :: len(x)]) for i in range(len(x))])


# --- what is computed


@pytest.mark.parametrize("problem", PROBLEMS)
def test_counts_are_binomial_with_the_exact_probability(problem):
    """A two-sided binomial test of 20,000 votes.

    A right engine fails for 1 seed in 1e5 in each of 11 problems.
    """
    model = SmoothedClassifier(problem.model, problem.noise())
    counts = model.counts(problem.batch(), 20_000, seed=0, purpose="certify")
    assert counts.sum() == 20_000
    assert stats.binomtest(int(counts[0, 0]), 20_000, problem.p_a).pvalue > 1e-5


@pytest.mark.parametrize("law", LAWS)
def test_inputs_are_the_image_plus_theta_times_the_unit_law(law):
    """Kolmogorov-Smirnov on each pixel's own scale.

    A right engine fails for 1 seed in 1,000 (twice).
    """
    inputs = noisy_inputs(LAWS[law](THETA), IMAGES, 200).double()
    z = (inputs - IMAGES[:, None]) / THETA[:, None]
    unit = {"gaussian": stats.norm(), "uniform": stats.uniform(-1, 2)}[law]
    assert stats.kstest(z.flatten().numpy(), unit.cdf).pvalue > 1e-3
    draws = z.flatten(2).numpy().round(6).reshape(-1, 16)
    assert len(np.unique(draws, axis=0)) == 6 * 200  # all differ


@pytest.mark.parametrize("n", [1, 50, 130])
def test_counts_and_probabilities_agree_with_direct_computation(n):
    inputs = noisy_inputs(UniformNoise(THETA), IMAGES, n)
    logits = network().eval()(inputs.flatten(0, 1)).detach().unflatten(0, (6, n))
    counts = sample("counts", UniformNoise(THETA), IMAGES, n)
    votes = torch.nn.functional.one_hot(logits.argmax(2), 4)
    assert counts.dtype == torch.int64 and torch.equal(counts, votes.sum(1))
    probabilities = sample("probabilities", UniformNoise(THETA), IMAGES, n)
    assert probabilities.dtype == torch.float64
    torch.testing.assert_close(probabilities, logits.double().softmax(2).mean(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("spare", [0, 1, -1, 40])
@pytest.mark.parametrize("n", [1, 99, 100, 101, 250])
def test_rows_sum_to_the_number_of_draws(n, spare):
    """Whether the last batch is full, or lacks or holds one row only."""
    batch_size = max(6 * n + spare, 2)
    counts = sample("counts", GaussianNoise(0.5), IMAGES, n, batch_size=batch_size)
    assert counts.shape == (6, 4) and (counts >= 0).all() and (counts.sum(1) == n).all()
    probabilities = sample("probabilities", GaussianNoise(0.5), IMAGES, n, batch_size=batch_size)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(6).double(), rtol=0, atol=1e-6)


def test_soft_probabilities_of_a_gentle_half_space_in_closed_form():
    """E sigmoid(steepness * margin) by quadrature.

    The sample mean is within 5 standard errors (1 seed in 1.7e6).
    """
    model = HalfSpace(torch.tensor([0.6, -0.8]), 0.1, steepness=10)
    p = SmoothedClassifier(model, GaussianNoise(0.25)).probabilities(
        torch.full((1, 2), 0.5), 20_000, seed=0, purpose="certify"
    )
    z, weights = np.polynomial.hermite_e.hermegauss(200)
    exact = weights @ (1 / (1 + np.exp(-10 * (0.1 - 0.25 * z)))) / math.sqrt(2 * math.pi)
    assert p[0, 0].item() == pytest.approx(exact, abs=5 * 0.5 / math.sqrt(20_000))


def test_outputs_declared_as_probabilities_vote_and_average_as_they_are():
    inside = torch.nn.Sequential(network(), torch.nn.Softmax(dim=1))
    for how in SAMPLERS:
        expected = sample(how, GaussianNoise(0.5), IMAGES, 100)
        found = sample(how, GaussianNoise(0.5), IMAGES, 100, module=inside, outputs="probabilities")
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_results_are_ordinary_tensors():
    """Usable in place and in autograd, though they were computed in inference mode."""
    for how in SAMPLERS:
        result = sample(how, GaussianNoise(0.5), IMAGES, 10)
        assert not result.requires_grad and result.device.type == "cpu"
        result += 1
        (torch.ones(4, requires_grad=True) * result).sum().backward()


def test_plain_sampling_uses_theta_as_given_and_claims_no_slack():
    queries = smoothed(UniformNoise(0.3)).queries(IMAGES)
    assert queries.theta.dtype == torch.float32
    assert queries.theta.flatten().tolist() == [torch.tensor(0.3).item()] * 6
    assert queries.slack.tolist() == [0] * 6


# --- what the noise of an image depends on


@pytest.mark.parametrize(
    "noise", [GaussianNoise(0.5), UniformNoise(THETA)], ids=["isotropic", "anisotropic"]
)
@pytest.mark.parametrize("how", SAMPLERS)
def test_same_numbers_for_any_batch_size(how, noise):
    reference = sample(how, noise, IMAGES, 150, batch_size=64)
    for batch_size in (1, 7, 100, 1000):
        result = sample(how, noise, IMAGES, 150, batch_size=batch_size)
        torch.testing.assert_close(result, reference, rtol=0, atol=0 if how == "counts" else 1e-7)


@pytest.mark.parametrize(
    "order", [[5, 4, 3, 2, 1, 0], [3, 0, 5], [2]], ids=["reversed", "subset", "alone"]
)
@pytest.mark.parametrize("how", SAMPLERS)
def test_same_numbers_for_any_order_and_subset(how, order):
    reference = sample(how, GaussianNoise(THETA), IMAGES, 150, indices=range(6))
    result = sample(how, GaussianNoise(THETA[order]), IMAGES[order], 150, indices=order)
    torch.testing.assert_close(
        result, reference[order], rtol=0, atol=0 if how == "counts" else 1e-7
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_are_the_same_bits_for_any_batch_size_order_and_subset(dtype):
    x, theta, order = IMAGES.to(dtype), THETA.to(dtype), [4, 0, 3]
    reference = noisy_inputs(GaussianNoise(theta), x, 130)
    for batch_size in (1, 7, 100, 1000):
        inputs = noisy_inputs(
            GaussianNoise(theta[order]), x[order], 130, indices=order, batch_size=batch_size
        )
        assert torch.equal(inputs, reference[order])


@pytest.mark.parametrize("x", [IMAGES, IMAGES[..., :3], IMAGES[:, 0, 0, :3]], ids=["16", "12", "3"])
@pytest.mark.parametrize("law", LAWS)
def test_more_draws_begin_with_the_fewer(law, x):
    """Also for sizes at which torch fills a smaller request in another way: no multiples of 16."""
    most = noisy_inputs(LAWS[law](0.5), x, 350)
    for n in (1, 5, 99, 100, 101, 150, 200):
        assert torch.equal(noisy_inputs(LAWS[law](0.5), x, n), most[:, :n])


def test_counts_of_150_draws_lie_between_those_of_100_and_200():
    few, middle, many = (sample("counts", GaussianNoise(0.5), IMAGES, n) for n in (100, 150, 200))
    assert (few <= middle).all() and (middle <= many).all()


def test_the_noise_scales_with_theta_and_not_with_the_image():
    """Common draws: the search over theta compares like with like."""
    z = noisy_inputs(GaussianNoise(0.25), IMAGES, 20) - IMAGES[:, None]
    torch.testing.assert_close(
        noisy_inputs(GaussianNoise(0.5), IMAGES, 20) - IMAGES[:, None], 2 * z
    )
    torch.testing.assert_close(
        noisy_inputs(GaussianNoise(0.25), IMAGES / 2, 20) - IMAGES[:, None] / 2, z
    )


def draws_of(seed, purpose, index):
    x = torch.full((1, 1, 4, 4), 0.5)
    return {
        row.numpy().tobytes()
        for row in noisy_inputs(
            GaussianNoise(0.5), x, 120, seed=seed, purpose=purpose, indices=[index]
        )[0]
    }


def test_other_seeds_purposes_and_images_have_other_noise():
    arguments = [
        (0, "certify", 0),
        (1, "certify", 0),
        (0, "certify", 1),
        (1, "certify", 1),
        (2**40, "certify", 0),
    ]
    arguments += [(0, purpose, 0) for purpose in PURPOSES if purpose != "certify"]
    draws = [draws_of(*a) for a in arguments]
    assert len(set.union(*draws)) == 120 * len(arguments)
    assert draws_of(0, "certify", 0) == draws[0]


def first_words(seed, purpose, index):
    """The first 64 bits of a stream."""
    stream = generator(seed, purpose, index, torch.device("cpu"))
    return torch.randint(-(2**63), 2**63 - 1, (1,), generator=stream).item()


def test_streams_of_different_arguments_never_coincide():
    big = [0, 1, 2, 3, 7, 2**31, 2**32, 2**32 + 1, 2 * 2**32 + 1, 3 * 2**32 + 5, 2**63, 2**64 - 1]
    words = set()
    for seed in big:
        for purpose in PURPOSES:
            for index in (0, 1, 2, 3, 49_999, 2**32):
                words.add(first_words(seed, purpose, index))
    assert len(words) == len(big) * len(PURPOSES) * 6


@pytest.mark.parametrize(
    "seed, index, purposes",
    [(642_077, 2798, ("ascent", "certify")), (487_980, 8937, ("certify", "predict"))],
)
def test_purposes_that_shared_a_stream_of_32_bits_do_so_no_more(seed, index, purposes):
    """SPEC 9: PyTorch's generator keeps 32 bits of what manual_seed gets."""
    one, other = (draws_of(seed, purpose, index) for purpose in purposes)
    assert not one & other


@pytest.mark.slow
def test_as_many_streams_have_as_many_first_words():
    """Of 64 bits: by chance two are equal with probability 2e-9; of 32 bits some 7 pairs were."""
    words = np.empty(250_000, dtype=np.uint64)
    for index in range(len(words)):
        # the state that the generator gets, its first word tempered or not, is one to one
        words[index] = _words(0, "certify", index)[:2].view(np.uint64)[0]
    assert len(np.unique(words)) == len(words)


def test_neighbouring_images_and_seeds_are_uncorrelated():
    """Correlation of 12,000 pairs within 5 standard errors, three times.

    Fails for 1 seed in 6e5.
    """
    x = torch.full((6, 1, 4, 4), 0.5)
    z = noisy_inputs(GaussianNoise(0.5), x, 150).flatten(1)
    other = noisy_inputs(GaussianNoise(0.5), x, 150, seed=1).flatten(1)
    select = noisy_inputs(GaussianNoise(0.5), x, 150, purpose="select").flatten(1)
    for a, b in [(z[1:], z[:-1]), (z[1:], other[1:]), (z[1:], select[1:])]:
        assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 5 / math.sqrt(12_000)


@pytest.mark.parametrize("lattice", [None, 1 / 16], ids=["float", "lattice"])
def test_shared_noise_is_the_same_for_all_images_whenever_they_come(lattice):
    """The unit draws of a block, whatever the images' number, order, theta or progress."""
    x = torch.full((5, 1, 4, 4), 0.5)
    theta = torch.full((5,), 0.5)

    def drawn(images, steps, shared=True):
        seen = []
        recorder = counting(Recorder(torch.nn.Flatten(), seen.append), batch_size=300)
        noise = GaussianNoise(theta[images])
        g = SmoothedClassifier(recorder, noise, lattice=lattice, shared=shared)
        stream = g.queries(x[images], images).stream(0, "certify")
        total = sum(stream.counts(step) for step in steps)
        rows = torch.cat([s.flatten(1) for s in seen])
        return total, {row.numpy().tobytes() for row in rows}

    whole, rows = drawn([0, 1, 2], [[250, 250, 250]])
    assert len(rows) == 250 and (whole == whole[0]).all()  # one image's draws are all different
    parts, again = drawn([4, 0, 2], [[100, 200, 0], [150, 50, 250]])
    assert torch.equal(parts, whole) and again == rows
    _, own = drawn([0, 1, 2], [[250, 250, 250]], shared=False)
    assert len(own) == 750


def test_torchs_global_random_state_is_neither_used_nor_changed():
    reference = sample("counts", GaussianNoise(0.5), IMAGES, 50)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        before = torch.get_rng_state()
        assert torch.equal(sample("counts", GaussianNoise(0.5), IMAGES, 50), reference)
        assert torch.equal(torch.get_rng_state(), before)


# --- queries


NUMBERS = [9, 4, 3, 2, 1, 0]


def test_queries_hold_images_numbers_and_scales_as_they_are_sampled():
    queries = smoothed(GaussianNoise(THETA)).queries(IMAGES.clone().requires_grad_(), NUMBERS)
    assert len(queries) == 6 and queries.indices == tuple(NUMBERS)
    assert torch.equal(queries.x, IMAGES) and not queries.x.requires_grad
    assert torch.equal(queries.theta, THETA) and queries.lattice is None
    flat = THETA.double().flatten(1).numpy()
    assert queries.theta_min.tolist() == flat.min(axis=1).tolist()
    np.testing.assert_allclose(queries.theta_gmean, stats.gmean(flat, axis=1), rtol=1e-12)
    assert smoothed(GaussianNoise(0.5)).queries(IMAGES).indices == (0, 1, 2, 3, 4, 5)
    assert queries.per_image(torch.arange(6)).shape == (6, 1, 1, 1)


@pytest.mark.parametrize("at", [slice(0, 2), slice(2, 5), slice(5, None)])
def test_a_part_of_the_queries_has_the_votes_of_these_images(at):
    queries = smoothed(GaussianNoise(THETA)).queries(IMAGES, NUMBERS)
    whole = queries.counts(130, seed=3, purpose="search")
    part = queries.part(at)
    assert len(part) == len(IMAGES[at]) and part.indices == tuple(NUMBERS[at])
    assert torch.equal(part.counts(130, seed=3, purpose="search"), whole[at])


def test_queries_with_other_scales_have_the_votes_of_that_noise():
    queries = smoothed(GaussianNoise(0.5)).queries(IMAGES, NUMBERS)
    found = queries.scaled(THETA).counts(130, seed=3, purpose="search")
    arguments = {"seed": 3, "purpose": "search", "indices": NUMBERS}
    assert torch.equal(found, sample("counts", GaussianNoise(THETA), IMAGES, 130, **arguments))
    assert not torch.equal(found, queries.counts(130, seed=3, purpose="search"))
    assert queries.theta.flatten().tolist() == [0.5] * 6


# --- a stream goes on where it stopped


def stream(noise, **numerics):
    return smoothed(noise, **numerics).queries(IMAGES).stream(0, "certify")


@pytest.mark.parametrize(
    "noise", [GaussianNoise(0.5), UniformNoise(THETA)], ids=["isotropic", "anisotropic"]
)
def test_parts_of_a_stream_add_up_to_the_whole(noise):
    parts = stream(noise)
    counts = sum(parts.counts([draws] * 6) for draws in (BLOCK, 3 * BLOCK, 30))
    assert torch.equal(counts, sample("counts", noise, IMAGES, 4 * BLOCK + 30))


def test_each_image_has_a_stream_of_its_own():
    """Images that pause, or end, change nothing for the others.

    One that pauses goes on where it was.
    """
    parts, numbers = stream(GaussianNoise(THETA), batch_size=70), [0, 100, 130, 200, 300, 250]
    first = parts.counts([min(n, BLOCK) // BLOCK * BLOCK for n in numbers])
    second = parts.counts([0, 0, 30, 0, 200, 150])
    third = parts.counts([0, 0, 0, 100, 0, 0])
    whole = [sample("counts", GaussianNoise(THETA), IMAGES, max(n, 1)) for n in numbers]
    for i, n in enumerate(numbers):
        expected = whole[i][i] if n else torch.zeros(4, dtype=torch.int64)
        assert torch.equal((first + second + third)[i], expected)


# --- numerics and memory


@pytest.mark.parametrize("how", SAMPLERS)
@pytest.mark.parametrize(
    "numerics",
    [
        {"dtype": torch.bfloat16},
        {"memory_format": torch.channels_last},
        {"dtype": torch.bfloat16, "memory_format": torch.channels_last},
    ],
    ids=["bfloat16", "channels_last", "both"],
)
def test_other_numerics_give_nearly_the_same(how, numerics):
    """Same noise: bfloat16 moves few votes, channels_last next to none."""
    seen = []
    n, module = 200, Recorder(network(), seen.append)
    reference = sample(how, GaussianNoise(0.5), IMAGES, n)
    result = sample(how, GaussianNoise(0.5), IMAGES, n, module=module, batch_size=100, **numerics)
    assert {s.dtype for s in seen} == {numerics.get("dtype", torch.float32)}
    assert result.dtype == reference.dtype
    share = (result - reference).abs().double() / (n if how == "counts" else 1)
    assert share.max() < (0.05 if "dtype" in numerics else 0.006)


@pytest.mark.parametrize("how", SAMPLERS)
def test_double_images_are_accepted(how):
    result = sample(how, GaussianNoise(THETA), IMAGES.double(), 100)
    total = 100 if how == "counts" else 1
    assert result.shape == (6, 4) and result.sum(1).tolist() == pytest.approx([total] * 6, abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_every_pass_has_exactly_batch_size_rows(batch_size):
    sizes = []
    module = Recorder(network(), lambda x: sizes.append(tuple(x.shape)))
    sample("counts", GaussianNoise(0.5), IMAGES, 23, module=module, batch_size=batch_size)
    assert sizes == [(batch_size, 1, 4, 4)] * math.ceil(6 * 23 / batch_size)


@pytest.mark.parametrize("x", [IMAGES, IMAGES[:, :, ::2, ::2], IMAGES.transpose(2, 3)])
def test_images_of_any_strides_stay_as_they_are(x):
    kept = x.clone()
    noise = GaussianNoise(0.5)
    module = torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Flatten())
    result = sample("counts", noise, x, 30, module=module)
    assert torch.equal(x, kept) and noise.theta == 0.5
    assert torch.equal(result, sample("counts", noise, x.contiguous(), 30, module=module))


def test_images_and_theta_with_gradients_are_accepted():
    x, theta = IMAGES.clone().requires_grad_(), THETA.clone().requires_grad_()
    expected = sample("counts", GaussianNoise(THETA), IMAGES, 30)
    assert torch.equal(sample("counts", GaussianNoise(theta), x, 30), expected)
    assert x.grad is None and theta.grad is None


def test_the_callers_module_is_not_touched():
    module = network()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    for how in SAMPLERS:
        sample(how, GaussianNoise(0.5), IMAGES, 30, module=module, dtype=torch.bfloat16)
    assert isinstance(module, Network) and all(m.training for m in module.modules())
    assert all(
        p.requires_grad and p.grad is None and p.dtype == torch.float32 for p in module.parameters()
    )
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


# --- bad input, refused before the model is called


GOOD = {"x": torch.full((2, 1, 4, 4), 0.5), "n": 10, "seed": 0, "purpose": "certify"}


def refuse(message, *, noise=None, **changes):
    model = SmoothedClassifier(Classifier(Untouchable(), batch_size=1), noise or GaussianNoise(0.5))
    for how in SAMPLERS:
        with pytest.raises((ValueError, TypeError), match=message):
            getattr(model, how)(**GOOD | changes)


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images_are_refused(kind):
    with pytest.raises(ValueError, match=BAD_IMAGES[kind][1]):
        SmoothedClassifier(Untouchable(), GaussianNoise(0.5)).queries(BAD_IMAGES[kind][0])
    refuse(BAD_IMAGES[kind][1], x=BAD_IMAGES[kind][0])


@pytest.mark.parametrize("shape", BAD_SHAPES)
def test_theta_of_a_wrong_shape_is_refused(shape):
    refuse(
        str(tuple(shape)).replace("(", r"\(").replace(")", r"\)"),
        noise=GaussianNoise(torch.ones(shape)),
    )


@pytest.mark.parametrize("n", [0, -1])
def test_number_of_draws_outside_its_domain_is_refused(n):
    refuse(f"draws.*{n}", n=n)


@pytest.mark.parametrize(
    "indices, message",
    [
        ([0], r"2 .*\[0\]"),
        ([0, 1, 2], r"2 .*\[0, 1, 2\]"),
        ([], r"2 .*\[\]"),
        ([3, 3], r"different.*\[3, 3\]"),
        ([0, -1], "-1"),
        ([-5, 0], "-5"),
    ],
)
def test_indices_that_do_not_number_the_images_are_refused(indices, message):
    refuse(message, indices=indices)


def test_negative_seed_is_refused():
    refuse("-1", seed=-1)


def test_unknown_purpose_is_refused():
    model = SmoothedClassifier(Untouchable(), GaussianNoise(0.5))
    with pytest.raises((ValueError, KeyError), match="certfy"):
        model.counts(**GOOD | {"purpose": "certfy"})


def test_a_model_that_is_no_module_is_refused():
    with pytest.raises(TypeError, match="function"):
        SmoothedClassifier(lambda x: x, GaussianNoise(0.5))


def test_a_seed_that_is_not_whole_is_refused():
    with pytest.raises(TypeError):
        generator(0.5, "certify", 0, torch.device("cpu"))


# --- threads


@pytest.fixture(params=[1, 2, 3, 8])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("shape", [(50, 3), (100, ALONE // 100 + 1)])
def test_a_stream_does_not_depend_on_the_threads_that_draw(threads, law, dtype, shape):
    """Twice in a row, so that streams must also be left where one thread leaves them."""
    noise, device = LAWS[law](1.0), torch.device("cpu")
    streams = [[generator(0, "certify", i, device) for i in range(7)] for _ in range(2)]
    for _ in range(2):
        one_by_one = [noise.unit(shape, generator=stream, dtype=dtype) for stream in streams[0]]
        assert torch.equal(unit_draws(noise, shape, streams[1], dtype), torch.stack(one_by_one))


@pytest.mark.parametrize("shape", [(50, 3, 4, 4), (100, 3, 12, 12)])
@pytest.mark.parametrize("layout", ["contiguous_format", "channels_last"])
def test_a_shared_block_depends_on_its_number_alone(threads, shape, layout):
    """Not on threads, which draw the next ones with it, on the order, nor on the layout."""
    noise, device = GaussianNoise(1.0), torch.device("cpu")
    about = (noise, shape, torch.float32, device, 0, "certify")
    draws = SharedDraws(*about, getattr(torch, layout))
    for number in (0, 1, 5, 2, 0, 9, 4):
        stream = generator(0, "certify", number, device)
        expected = noise.unit(shape, generator=stream, dtype=torch.float32)
        assert torch.equal(draws([(7, number), (8, number)]), expected[None])
        assert len(draws.kept) <= KEPT
    both = draws([(7, 3), (8, 4)])
    assert torch.equal(both[1], draws([(0, 4)])[0])


def test_what_fails_in_a_thread_is_raised(threads):
    class Broken(GaussianNoise):
        def unit(self, shape, *, generator, dtype):
            raise RuntimeError("no noise today")

    with pytest.raises(RuntimeError, match="no noise today"):
        sample("counts", Broken(0.5), IMAGES, 100, batch_size=400)


def test_work_is_shared_among_threads(threads):
    """Four large draws on 1, 2, 3 and 4 threads, which all run at the same time.

    A barrier proves it.
    """
    wanted = {1: 1, 2: 2, 3: 3, 8: 4}[threads]
    met = set()
    barrier = threading.Barrier(wanted, timeout=20)

    class Meeting(GaussianNoise):
        def unit(self, shape, *, generator, dtype):
            if threading.get_ident() not in met:
                met.add(threading.get_ident())
                barrier.wait()
            return super().unit(shape, generator=generator, dtype=dtype)

    streams = [generator(0, "certify", i, torch.device("cpu")) for i in range(4)]
    assert unit_draws(Meeting(1.0), (ALONE,), streams, torch.float32).shape == (4, ALONE)
    assert len(met) == wanted
