"""The methods of params.yaml: chains of starts, options, labels, and what a theta function owes."""

from types import SimpleNamespace

import pytest
import torch
from stages import ROOT, parameters, write_parameters
from torch import nn

from ancer.classifier import Classifier
from ancer.noise.sampled import GaussianNoise
from ancer.optimization.anisotropic import optimize_anisotropic
from ancer.optimization.isotropic import optimize_isotropic
from ancer.workspace.experiment import Profile
from ancer.workspace.methods import COLORS, DASHES, Method
from ancer.workspace.stages import statistics

HERE = __name__


def takes_both(model, x, noise, *, seed, indices, n, alpha, sharp=1.0):
    return noise.theta.expand(len(x))


def takes_n(model, x, noise, *, seed, indices, n):
    return noise.theta.expand(len(x))


def takes_neither(model, x, noise, *, seed, indices, sharp: float = 1.0, times: int = 2):
    return noise.theta.expand(len(x))


def as_documented(classifier, x, noise, *, seed, indices, **options):
    return noise.theta.expand(len(x))


def other_words(f, images, start, *, seed, indices, draws: int = 3):
    return start.theta.expand(len(images))


def methods_with(folder, methods, **certify):
    """The methods of a profile with these sections."""
    values = parameters()
    values["methods"] = methods
    values["certify"] |= certify
    for e in values["experiments"].values():
        e.pop("method_options", None)
    first = next(iter(methods))
    values["volumes"] = {"of": first, "against": [first]}
    values["figures"] |= {"ball": first, "region": first}
    values["statistics"]["method"] = first
    values["coverage"]["methods"] = [first]
    values["ablations"]["start"] = first
    values["ablations"]["settings"] = [{}]
    return Profile.open(write_parameters(folder, values)).methods


def theta(name):
    return f"{HERE}.{name}"


# --- order


def test_the_default_methods():
    methods = Profile.open(ROOT).methods
    paper = ["isotropic-paper", "anisotropic-paper"]
    ours = ["isotropic", "anisotropic", "shaped"]
    assert list(methods) == ["fixed", *ours, "one-theta", "best", *paper]
    assert methods["isotropic"].theta is optimize_isotropic
    assert methods["anisotropic"].theta is optimize_anisotropic
    assert list(methods.chosen(methods)) == [*ours, "one-theta", *paper]
    assert list(methods.chosen(["best"])) == ["isotropic", "anisotropic"]
    assert list(methods.chain(paper[1])) == paper
    assert list(methods.chain("fixed")) == []
    assert list(methods.chain("isotropic")) == ["isotropic"]
    assert list(methods.chain("anisotropic")) == ["isotropic", "anisotropic"]
    assert set(methods.chain("best")) == {"isotropic", "anisotropic"}
    depends = [name for name, method in methods.items() if method.depends_on_image]
    assert depends == [*ours, "best", *paper]


def test_each_is_chosen_once_and_after_its_start_whatever_their_order(tmp_path):
    methods = methods_with(
        tmp_path,
        {
            "mix": {"best_of": {"c": 0.5, "d": 0.5}},
            "c": {"theta": theta("takes_neither"), "start": "b"},
            "d": {"theta": theta("takes_neither"), "start": "a"},
            "a": {"theta": theta("takes_neither"), "start": "fixed"},
            "fixed": {},
            "b": {"theta": theta("takes_neither"), "start": "a"},
        },
    )
    assert list(methods) == ["mix", "c", "d", "a", "fixed", "b"]
    chosen = list(methods.chosen(methods))
    assert sorted(chosen) == ["a", "b", "c", "d"]
    for name in chosen:
        start = methods[name].start
        assert start == "fixed" or chosen.index(start) < chosen.index(name)
    assert list(methods.chain("c")) == ["a", "b", "c"]
    assert set(methods.chain("mix")) == {"a", "b", "c", "d"}


# --- labels and looks


def test_labels_lead_back_to_methods():
    methods = Profile.open(ROOT).methods
    for name, method in methods.items():
        assert methods.by_label(method.label).name == name
    with pytest.raises(KeyError, match="no method is called 'Anisotropic'"):
        methods.by_label("Anisotropic")


def test_a_method_without_a_label_is_called_by_its_name(tmp_path):
    assert methods_with(tmp_path, {"fixed": {}})["fixed"].label == "fixed"


def test_lines_differ_in_colour_and_in_dashes(tmp_path):
    many = {f"m{k}": {} for k in range(32)}
    methods = list(methods_with(tmp_path, many).values())
    assert len({method.color for method in methods[: len(COLORS)]}) == len(COLORS)
    assert len({(method.color, method.dashes) for method in methods}) == 32
    assert {method.dashes for method in methods} == set(DASHES) and COLORS[0] == methods[0].color


# --- options


def test_planned_n_and_alpha_reach_only_the_functions_that_take_them(tmp_path):
    given = {
        "fixed": {},
        "both": {"theta": theta("takes_both"), "start": "fixed"},
        "one": {"theta": theta("takes_n"), "start": "fixed"},
        "none": {"theta": theta("takes_neither"), "start": "fixed"},
        "own": {"theta": theta("takes_both"), "start": "fixed", "alpha": 0.5, "sharp": 3.0},
    }
    methods = methods_with(tmp_path, given, n=777, alpha=0.01)
    assert methods["fixed"].options == {}
    assert methods["both"].options == {"n": 777, "alpha": 0.01}
    assert methods["one"].options == {"n": 777}
    assert methods["none"].options == {}
    assert methods["own"].options == {"n": 777, "alpha": 0.5, "sharp": 3.0}


def test_options_have_the_types_that_the_function_says(tmp_path):
    section = {"theta": theta("takes_neither"), "start": "fixed"}
    methods = methods_with(tmp_path, {"fixed": {}, "a": {**section, "times": 1e1, "sharp": 2}})
    assert methods["a"].options == {"times": 10, "sharp": 2.0}
    assert type(methods["a"].options["times"]) is int
    with pytest.raises(ValueError, match=r"params.yaml: methods\.a\.times: found 2\.5"):
        methods_with(tmp_path, {"fixed": {}, "a": {**section, "times": 2.5}})
    message = r"methods\.a\.shrp: takes_neither has no such option, did you mean 'sharp'\?"
    with pytest.raises(ValueError, match=message):
        methods_with(tmp_path, {"fixed": {}, "a": {**section, "shrp": 2.0}})
    with pytest.raises(ValueError, match=r"methods\.a\.seed: .* has no such option"):
        methods_with(tmp_path, {"fixed": {}, "a": {**section, "seed": 2}})


def test_a_function_may_be_named_both_ways(tmp_path):
    methods = methods_with(
        tmp_path,
        {
            "fixed": {},
            "dot": {"theta": f"{HERE}.takes_n", "start": "fixed"},
            "colon": {"theta": f"{HERE}:takes_n", "start": "fixed"},
        },
    )
    assert methods["dot"].theta is methods["colon"].theta is takes_n


IMAGES = torch.full((3, 1, 2, 2), 0.5)
NET = Classifier(nn.Flatten())


def test_a_function_may_call_what_it_gets_as_it_likes(tmp_path):
    """docs/own-model.md: (classifier, x, noise, *, seed, indices, **options)."""
    documented = {"theta": theta("as_documented"), "start": "fixed", "sharp": 2.0}
    other = {"theta": theta("other_words"), "start": "fixed", "draws": 5}
    methods = methods_with(tmp_path, {"fixed": {}, "a": documented, "b": other})
    assert methods["a"].options == {"sharp": 2.0}
    assert methods["b"].options == {"draws": 5}
    for name in ("a", "b"):
        chosen = methods[name].choose(NET, IMAGES, GaussianNoise(0.25), 0, [0, 1, 2])
        assert chosen.tolist() == [0.25] * 3


# --- what a function owes


def test_a_function_gets_images_on_the_classifiers_device():
    """docs/own-method.md; its theta comes back to the processor, wherever it is."""

    def there(model, x, noise, *, seed, indices):
        assert x.device.type == "meta"
        return torch.full((len(x),), 0.3)

    far = SimpleNamespace(device=torch.device("meta"))
    method = Method("own", "Own", theta=there, start="fixed")
    assert method.choose(far, IMAGES, GaussianNoise(0.25), 0, [0, 1, 2]).device.type == "cpu"


def choose(returned, start=0.25):
    """What a method makes of a function that returns this."""
    given = {}

    def mine(model, x, noise, *, seed, indices, **options):
        given.update(model=model, x=x, noise=noise, seed=seed, indices=indices, **options)
        return returned

    method = Method("own", "Own", theta=mine, start="fixed", options={"sharp": 2.0})
    chosen = method.choose(NET, IMAGES, GaussianNoise(start), 7, [3, 1, 4])
    return chosen, given


@pytest.mark.parametrize("shape", [(3,), (3, 1, 2, 2)])
def test_a_function_gets_all_that_it_needs_and_its_theta_is_kept(shape):
    chosen, given = choose(torch.full(shape, 0.3))
    assert torch.equal(chosen, torch.full(shape, 0.3))
    assert given["model"] is NET and torch.equal(given["x"], IMAGES)
    assert given["noise"].theta.item() == 0.25
    assert (given["seed"], given["indices"], given["sharp"]) == (7, [3, 1, 4], 2.0)


@pytest.mark.parametrize(
    "returned, problem",
    [
        (torch.full((), 0.3), r"found \(\), expected \(3,\) or \(3, 1, 2, 2\)"),
        (torch.full((2,), 0.3), r"found \(2,\), expected"),
        (torch.full((3, 1), 0.3), r"found \(3, 1\), expected"),
        (torch.full((1, 2, 2), 0.3), r"found \(1, 2, 2\), expected"),
        (0.3, r"found float, expected"),
        (None, r"found NoneType, expected"),
        (torch.tensor([0.3, float("nan"), 0.3]), "found scales that are not > 0 and finite"),
        (torch.tensor([0.3, float("inf"), 0.3]), "found scales that are not > 0 and finite"),
        (torch.tensor([0.3, 0.0, 0.3]), "found scales that are not > 0 and finite"),
        (torch.tensor([0.3, -0.1, 0.3]), "found scales that are not > 0 and finite"),
    ],
)
def test_a_function_that_returns_no_theta_is_named_with_its_method(returned, problem):
    message = rf"method own: {HERE}\.choose\.<locals>\.mine must return theta: {problem}"
    with pytest.raises(ValueError, match=message):
        choose(returned)


# --- the best of several


def test_statistics_leave_out_experiments_without_a_best(tmp_path):
    """They stood in the way of the whole stage, after hours of certification."""
    values = parameters()
    for experiment in values["experiments"].values():
        experiment["methods"] = ["fixed", "isotropic"]
    profile = Profile.open(write_parameters(tmp_path, values), stage="statistics")
    ratios, reported = statistics.against_baseline(profile)
    assert (ratios, len(reported), len(statistics.reports(profile))) == ({}, 0, 0)
    values["experiments"]["digits-l2-05"]["methods"] = None
    profile = Profile.open(write_parameters(tmp_path, values), stage="statistics")
    assert [name for name, _, _ in statistics._with_best(profile)] == ["digits-l2-05"]
