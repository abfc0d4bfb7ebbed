"""Names: one of ours, or "package.module:object"; errors say what was probably meant."""

import math
import re

import pytest

from ancer.registry import closest, find

KNOWN = {"digits": 1, "moons": 2, "cifar10": None}


@pytest.mark.parametrize("name", KNOWN)
def test_known_names_give_their_objects(name):
    assert find(name, KNOWN, "data set") is KNOWN[name]


def test_objects_of_other_packages_are_found_by_name():
    assert find("math:floor", KNOWN, "function") is math.floor
    assert find("os.path:join", {}, "function")("a", "b") == "a/b"
    assert find("collections:OrderedDict.fromkeys", {}, "function")("ab") == {"a": None, "b": None}


def test_a_known_name_comes_before_a_module():
    assert find("math:floor", {"math:floor": 7}, "function") == 7


@pytest.mark.parametrize(
    "name, message",
    [
        ("digit", "unknown data set 'digit': did you mean 'digits'?"),
        ("Moons", "unknown data set 'Moons': did you mean 'moons'?"),
        ("imagenet", "unknown data set 'imagenet': choose one of cifar10, digits, moons"),
        ("", "unknown data set '': choose one of cifar10, digits, moons"),
        (None, "unknown data set None: choose one of cifar10, digits, moons"),
        (":floor", "unknown data set ':floor': choose one of cifar10, digits, moons"),
    ],
)
def test_an_unknown_name_is_named_with_what_there_is(name, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        find(name, KNOWN, "data set")
    assert "(or name your own, as 'package.module:object')" in str(caught.value)


@pytest.mark.parametrize(
    "name, reason",
    [
        ("nowhere:net", "No module named 'nowhere'"),
        ("math.nowhere:net", "No module named 'math.nowhere'"),
        ("math:ceiling", "has no attribute 'ceiling'"),
        ("math:floor.up", "has no attribute 'up'"),
        ("math:no name", "invalid format"),
        ("./mine:net", "invalid format"),
    ],
)
def test_an_object_that_is_not_there_is_named_with_the_reason(name, reason):
    with pytest.raises(ValueError, match=f"no network {re.escape(repr(name))}: .*{reason}"):
        find(name, KNOWN, "network")


def test_the_closest_name_or_all_of_them():
    assert closest("resnet5", ["mlp", "resnet50"]) == "did you mean 'resnet50'?"
    assert closest("resnet5", ["wrn", "mlp"]) == "choose one of mlp, wrn"
    assert closest(3, [1, 2]) == "choose one of 1, 2"
    assert closest("x", []) == "choose one of none"
