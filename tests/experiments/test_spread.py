"""Mean, spread and intervals of several trainings, against simulation and arithmetic."""

import numpy as np
import pytest

from mivolo_lite.experiments.seeds import seeds_table
from mivolo_lite.experiments.spread import spread


def test_the_interval_over_trainings_is_students():
    losses = [np.array([value]) for value in (3.0, 4.0, 6.5)]
    found = spread(losses)
    half = 0.95 * np.sqrt(2 / (1 - 0.95**2)) * found.deviation / np.sqrt(3)  # the quantile of two degrees of freedom
    assert found.over_trainings == pytest.approx((4.5 - half, 4.5 + half))
    assert found.mean == 4.5 and found.deviation == pytest.approx(np.std([3, 4, 6.5], ddof=1)) and found.n == 1
    assert found.over_both is None  # one image says nothing of others


def test_an_interval_holds_no_value_that_cannot_be():
    found = spread([np.array([share]) for share in (0.5, 0.9)], (0.0, 1.0))
    assert found.over_trainings == found.over_both == (0.0, 1.0)


def test_images_that_one_training_has_no_number_for_do_not_count():
    found = spread([np.array([1.0, np.nan, 3.0]), np.array([2.0, 100.0, 4.0])])
    assert found.n == 2 and found.values == [2.0, 3.0]
    assert spread([np.array([np.nan]), np.array([1.0])]) is None


def test_the_interval_over_both_holds_the_true_mean_as_often_as_it_says():
    """Errors that are the sum of a part of the training, one of the image, and one of both."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(600):
        training, image = random.normal(0, 0.3, (4, 1)), random.normal(0, 3, (1, 200))
        found = spread(list(5 + training + image + random.normal(0, 1, (4, 200))))
        held += found.over_both[0] <= 5 <= found.over_both[1]
    assert 0.92 <= held / 600 <= 0.99


@pytest.mark.parametrize("true", [0.8, 0.99, 1.0])
def test_the_interval_of_a_share_holds_the_truth_also_where_every_image_is_right(true):
    random, held = np.random.default_rng(0), 0
    for _ in range(400):
        right = random.random(40) < true
        low, high = spread([right.astype(float)] * 2, (0.0, 1.0)).over_both
        held += low <= true <= high
    assert held / 400 >= 0.94


def test_the_table_says_of_how_many_images_each_metric_is():
    few, shares = [np.array([1.0, 3.0]), np.array([2.0, 4.0])], [np.ones(40), np.ones(40)]
    table = seeds_table({"mae": spread(few), "gender_accuracy": spread(shares, (0.0, 1.0))})
    mae, gender = table.splitlines()[1:3]
    assert mae.split()[2] == "2" and "too few" in mae
    assert gender.split()[2] == "40" and "[91.2%, 100.0%]" in gender
