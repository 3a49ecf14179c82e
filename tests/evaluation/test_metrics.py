"""Metrics against values worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from mivolo_lite.evaluation.metrics import (
    age_errors,
    age_metrics,
    by_number,
    epsilon_error,
    evaluate_predictions,
    ten_year_bin,
)
from mivolo_lite.evaluation.predictions import Predictions, write_csv
from mivolo_lite.evaluation.summary import summarise
from mivolo_lite.evaluation.table import metrics_table

NAN = float("nan")


@pytest.fixture
def predictions():
    return Predictions(
        key=["a", "b", "c", "d", "e"],
        age=np.array([10.0, 25.0, 33.5, 50.0, 70.0]),
        female=np.array([0.9, 0.2, 0.5, 0.7, 0.1]),
        age_lo=np.array([12.0, 20.0, 30.0, NAN, 60.0]),
        age_hi=np.array([12.0, 20.0, 39.0, NAN, 64.0]),
        gender=["F", "F", "M", "M", None],
        group=["x", "x", "y", None, "y"],
    )


def test_errors_are_signed_and_ranges_cost_the_way_to_their_nearer_edge(predictions):
    errors = age_errors(predictions.age, predictions.age_lo, predictions.age_hi)
    np.testing.assert_array_equal(errors, [-2, 5, 0, NAN, 6])


def test_every_metric_of_a_small_example(predictions):
    metrics = evaluate_predictions(predictions)
    assert (metrics["n"], metrics["mae"], metrics["bias"], metrics["cs5"]) == (4, 13 / 4, 9 / 4, 3 / 4)
    assert (metrics["gender_n"], metrics["gender_accuracy"]) == (4, 2 / 4)  # 0.5 is not above 0.5: taken for M
    assert metrics["by"]["age"] == {
        "10-19": {"n": 1, "mae": 2.0, "cs5": 1.0, "bias": -2.0},
        "20-29": {"n": 1, "mae": 5.0, "cs5": 1.0, "bias": 5.0},
        "30-39": {"n": 1, "mae": 0.0, "cs5": 1.0, "bias": 0.0},
        "60-69": {"n": 1, "mae": 6.0, "cs5": 0.0, "bias": 6.0},
    }
    assert {name: row["n"] for name, row in metrics["by"]["group"].items()} == {"x": 2, "y": 2}
    assert {name: row["mae"] for name, row in metrics["by"]["gender"].items()} == {"M": 0.0, "F": 3.5}
    # The mean of the middles 12, 20, 34.5, 62 is 32.125: 20.125, 12.125, inside, 27.875 away.
    assert metrics["baseline_mae"] == pytest.approx((20.125 + 12.125 + 0 + 27.875) / 4)


def test_an_error_of_exactly_five_years_is_within_five():
    assert age_metrics(np.array([5.0, -5.0, 5 + 5e-7, 5.01]))["cs5"] == 0.75


def test_nothing_known_is_no_number():
    assert age_metrics(np.array([NAN])) == {"n": 0, "mae": None, "cs5": None, "bias": None}


def test_decades_sort_by_number_not_by_letter():
    everyone = np.array([5.0, 100.0, 95.0, 20.0])
    decades = ten_year_bin(everyone, everyone)
    assert decades == ["0-9", "100-109", "90-99", "20-29"]
    nobody = [None] * 4
    metrics = summarise(Predictions(list("abcd"), everyone, np.zeros(4), everyone, everyone, nobody, nobody))
    assert list(metrics["by"]["age"]) == ["0-9", "20-29", "90-99", "100-109"]
    assert metrics["gender_accuracy"] is None
    assert "100-109" in metrics_table(metrics)


def test_a_range_lies_in_its_ten_years_or_is_a_bin_of_its_own():
    ranges = [(0, 2), (3, 9), (8, 12), (15, 20), (20, 29), (20, 39), (70, 100), (18, 100), (NAN, NAN), (24.6, 26.6)]
    bins = ["0-9", "0-9", "10-19", "10-19", "20-29", "20-39", "70-100", "18-100", None, "20-29"]
    assert ten_year_bin(*np.array(ranges).T) == bins
    assert sorted({name for name in bins if name}, key=by_number)[1:3] == ["10-19", "18-100"]


def test_the_csv_has_one_row_a_sample_and_empty_fields_for_the_unknown(predictions, tmp_path):
    write_csv({None: predictions}, tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text().splitlines() == [
        "key,age,age_pred,gender,gender_prob,group",
        "a,12,10.0000,F,0.900000,x",
        "b,20,25.0000,F,0.200000,x",
        "c,30;39,33.5000,M,0.500000,y",
        "d,,50.0000,M,0.700000,",
        "e,60;64,70.0000,,0.100000,y",
    ]


def test_the_epsilon_error_of_chalearn():
    nan = np.nan
    age, true_age = np.array([30.0, 33, 40, nan, 50.5, 20, 60]), np.array([30.0, 30, 30, 30, 50, nan, 60])
    predictions = Predictions(
        list("abcdefg"), age, np.full(7, 0.5), true_age, true_age, [None] * 7, [None] * 7,
        age_std=np.array([3.0, 3, nan, 3, 0, 3, 0]),
    )  # fmt: skip
    # Exact, one std away, missing, another than all opinions, and as all of them.
    expected = (0 + (1 - np.exp(-0.5)) + 1 + 1 + 0) / 5
    assert epsilon_error(predictions) == {"epsilon_error": pytest.approx(expected), "epsilon_n": 5}
    assert evaluate_predictions(predictions)["epsilon_n"] == 5
    assert epsilon_error(replace(predictions, age_std=None)) == {}
    assert epsilon_error(replace(predictions, age_std=np.full(7, nan))) == {}
