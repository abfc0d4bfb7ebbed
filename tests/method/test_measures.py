"""The measures of rows: exact on a hand-made table, and how often the intervals hold."""

import math

import numpy as np
import pandas as pd
import pytest

from ancer import measures

ROWS = pd.DataFrame(
    {
        "prediction": [1, 2, -1, 0],
        "label": [1, 1, 0, 0],
        "correct": [1, 0, 0, 1],
        "radius": [0.5, 9.0, 0.0, 1.0],
        "proxy_radius": [0.7, 9.0, 0.0, 1.5],
        "in_box_proxy_radius": [0.6, 1.0, 0.0, 1.0],
    }
)


def test_certified_accuracy_counts_correct_points_at_least_that_far():
    accuracy = measures.certified_accuracy(ROWS, [0, 0.5, 0.5000001, 1.0, 1.1])
    assert accuracy.tolist() == [0.5, 0.5, 0.25, 0.25, 0.0]
    assert measures.certified_accuracy(ROWS, [1.2], by="proxy_radius").tolist() == [0.25]


def test_average_radii_ignore_wrong_predictions():
    assert measures.summary(ROWS) == {
        "certified accuracy": 0.5,
        "abstained": 0.25,
        "ACR": 0.375,
        "AC-proxy-R": 0.55,
        "AC-in-box-R": 0.4,
        "median radius": 0.25,
        "balanced ACR": 0.375,
    }


def test_no_class_counts_more_in_the_balanced_radius():
    """Nine images of one class at radius 1, one of another at 3: ACR 1.2, balanced 2."""
    rows = pd.DataFrame({"label": [0] * 9 + [1], "correct": 1, "radius": [1.0] * 9 + [3.0]})
    assert measures.average_certified_radius(rows) == pytest.approx(1.2)
    assert measures.balanced_radius(rows) == 2.0
    assert measures.fallback_share(rows, 1) == pytest.approx(3 / 12)
    assert measures.fallback_share(rows, 7) == 0


def test_a_constant_classifier_owes_all_its_radius_to_the_fallback_class():
    """Right for one class in ten, with any radius: its balanced ACR is a tenth of that radius."""
    labels = np.repeat(np.arange(10), 20)
    rows = pd.DataFrame({"label": labels, "correct": (labels == 3).astype(int), "radius": 1e6})
    assert measures.fallback_share(rows, 3) == 1
    assert measures.balanced_radius(rows) == pytest.approx(1e5)
    assert measures.certified(rows).median() == 0
    assert measures.fallback_share(rows.assign(correct=0), 3) == 0


def test_wilsons_interval_is_the_closed_form():
    low, high = measures.interval_of_share(pd.Series([1] * 7 + [0] * 3))
    z = 1.959963984540054
    center = (0.7 + z**2 / 20) / (1 + z**2 / 10)
    half = z / (1 + z**2 / 10) * math.sqrt(0.7 * 0.3 / 10 + z**2 / 400)
    assert (low, high) == pytest.approx((center - half, center + half), rel=1e-12)
    assert measures.interval_of_share(pd.Series([1, 1])) == pytest.approx((1 / (1 + z**2 / 2), 1))


def test_the_bootstrap_covers_the_mean():
    """Of 200 samples of 100 exponential radii: about 93 % of the intervals hold 1.

    Fewer than 170 or all 200 for 1 seed in 1e4.
    """
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        low, high = measures.interval_of_mean(pd.Series(generator.exponential(size=100)))
        held += low <= 1 <= high
    assert 170 <= held < 200


def test_where_all_values_are_equal_the_interval_has_no_width():
    for values in ([0.0] * 4, [0.5], [1.0, 1.0]):
        assert measures.interval_of_mean(pd.Series(values)) == (values[0], values[0])
