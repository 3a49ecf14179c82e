"""Gaps between subgroups, against arithmetic done by hand and against worlds without a gap."""

import numpy as np
import pytest

from mivolo_lite.evaluation.groups import gap_interval, gaps, macro_mae
from mivolo_lite.evaluation.intervals import LIMIT
from mivolo_lite.evaluation.metrics import ten_year_bin


def repeated(*rows):
    """(error, subgroup, decade) columns from rows (error, subgroup, decade, times)."""
    columns = [[value] * times for *values, times in rows for value in [tuple(values)]]
    flat = [value for column in columns for value in column]
    return np.array([row[0] for row in flat], float), [row[1] for row in flat], [row[2] for row in flat]


def test_a_subgroup_of_babies_is_not_called_well_treated():
    # Within each age both subgroups have the same error; `young` has more of the easy age.
    errors, subgroup, decade = repeated(
        (1.0, "young", "0-9", 90), (-9.0, "young", "60-69", 10), (1.0, "old", "0-9", 10), (9.0, "old", "60-69", 90)
    )
    found = gaps(errors, subgroup, decade)
    assert found["rows"]["young"]["mae"] == pytest.approx(1.8) and found["rows"]["old"]["mae"] == pytest.approx(8.2)
    assert found["raw"]["gap"] == pytest.approx(6.4) and found["raw"]["ratio"] == pytest.approx(8.2 / 1.8)
    assert found["rows"]["young"]["standardised"] == pytest.approx(5) == found["rows"]["old"]["standardised"]
    assert found["standardised"]["gap"] == pytest.approx(0, abs=1e-9)
    assert found["worst"]["name"] == "old" and found["common_share"] == 1 and found["common_bins"] == ["0-9", "60-69"]
    lower, upper = found["raw"]["interval"]
    assert lower < 6.4 < upper


def test_only_ages_that_every_subgroup_has_are_compared():
    errors, subgroup, decade = repeated(
        (2.0, "x", "20-29", 40), (4.0, "y", "20-29", 40), (30.0, "y", "90-99", 40), (7.0, "x", "90-99", 4)
    )
    found = gaps(errors, subgroup, decade)
    assert found["common_bins"] == ["20-29"] and found["common_share"] == pytest.approx(80 / 124)
    assert found["standardised"]["gap"] == pytest.approx(2) and found["rows"]["y"]["mae"] == pytest.approx(17)


def test_subgroups_without_a_common_age_have_no_standardised_gap():
    found = gaps(*repeated((2.0, "x", "0-9", 40), (4.0, "y", "50-59", 40)))
    assert set(found["standardised"].values()) == {None}
    assert found["raw"]["gap"] == 2 and found["common_bins"] == []


@pytest.mark.filterwarnings("error")
def test_a_subgroup_without_errors_as_of_wide_ranges_has_no_ratio():
    errors = np.repeat([0.0, 2.0], LIMIT)
    found = gaps(errors, ["a"] * LIMIT + ["b"] * LIMIT, ["20-29"] * 2 * LIMIT)
    assert found["raw"]["gap"] == 2 and found["raw"]["ratio"] is None


def test_few_images_give_no_figure():
    errors, subgroup, decade = repeated(
        (1.0, "x", "0-9", LIMIT), (2.0, "y", "0-9", LIMIT), (99.0, "z", "0-9", LIMIT - 1)
    )
    found = gaps(errors, subgroup, decade)
    assert list(found["rows"]) == ["x", "y"] and found["left_out"] == {"z": LIMIT - 1}
    assert gaps(*repeated((1.0, "x", "0-9", LIMIT), (2.0, "y", "0-9", LIMIT - 1))) is None
    assert gaps(np.full(3, np.nan), ["x", None, "y"], [None] * 3) is None


@pytest.mark.slow
@pytest.mark.parametrize("real", [False, True])
def test_chance_alone_explains_the_gap_between_equals_and_no_real_one(real):
    random, above = np.random.default_rng(0), 0
    for _ in range(12):
        subgroup, decade = random.choice(list("xyz"), 300), random.choice(["0-9", "20-29"], 300)
        errors = random.normal(0, 4, 300) * np.where(decade == "0-9", 1, 2) * np.where((subgroup == "x") & real, 2.5, 1)
        for one in (found := gaps(errors, subgroup, decade))["raw"], found["standardised"]:
            above += one["gap"] > one["by_chance"]
    assert above >= 22 if real else above <= 6  # of 24; 5 % of them for equals


def test_the_macro_mae_weighs_every_age_bin_the_same():
    errors, _, decade = repeated(
        (1.0, "", "0-9", 200), (-3.0, "", "20-29", 100), (8.0, "", "70-79", 30), (50.0, "", "90-99", 3)
    )
    found = macro_mae(errors, decade)
    assert found["value"] == pytest.approx((1 + 3 + 8) / 3) and found["bins"] == 3
    assert found["left_out"] == {"90-99": 3} and found["worst"]["name"] == "70-79" and found["worst"]["mae"] == 8
    assert macro_mae(errors[:5], decade[:5])["value"] is None


def test_unknown_ages_and_subgroups_are_in_no_gap():
    ages = np.array([5.0, np.nan, 25.0] * 40)
    errors = np.where(np.isnan(ages), np.nan, 1.0)
    assert gaps(errors, ["x", "y", None] * 40, ten_year_bin(ages, ages)) is None
    assert macro_mae(errors, ten_year_bin(ages, ages))["bins"] == 2


def _range_of_truth(true, n, seed, trials=100):
    """How often the interval of the gap holds the true gap between subgroups of these mean errors."""
    random, inside = np.random.default_rng(seed), 0
    gap = np.ptp(true)
    subgroup = np.repeat([f"subgroup{number}" for number in range(len(true))], n)
    for _ in range(trials):
        errors = random.exponential(np.repeat(true, n))
        lower, upper = gaps(errors, subgroup.tolist(), ["20-29"] * len(subgroup))["raw"]["interval"]
        inside += lower <= gap <= upper
    return inside / trials


@pytest.mark.slow
@pytest.mark.parametrize("true", [[4.0, 4.0], [4.0] * 7, [4.0, 4.3, 4.6, 5.0], [3.0, 8.0, 5.0]])
@pytest.mark.parametrize("n", [40, 200])
def test_the_interval_of_a_gap_holds_the_true_one_as_often_as_it_says(true, n, monkeypatch):
    """A bootstrap of the gap itself missed it in 18 to 80 % of such worlds."""
    monkeypatch.setattr("mivolo_lite.evaluation.groups._SHUFFLES", 1)  # of the comparison with chance
    assert _range_of_truth(true, n, seed=0) >= 0.92


@pytest.mark.slow
@pytest.mark.parametrize("true", [[4.0] * 10, [3.0, 8.0, 5.0]])
def test_the_interval_of_the_worst_bin_holds_the_largest_true_error_as_often_as_it_says(true):
    """The worst bin's own interval missed it in one of eight worlds of equals."""
    random, inside = np.random.default_rng(0), 0
    bins = np.repeat([f"{10 * number}-{10 * number + 9}" for number in range(len(true))], 100).tolist()
    for _ in range(150):
        lower, upper = macro_mae(random.exponential(np.repeat(true, 100)), bins)["worst"]["interval"]
        inside += lower <= max(true) <= upper
    assert inside / 150 >= 0.92


def test_the_interval_of_a_gap_holds_the_gap_of_the_images():
    random = np.random.default_rng(0)
    maes, resampled = np.array([3.0, 4.0, 6.0]), np.array([3.0, 4.0, 6.0]) + random.normal(0, 0.3, (500, 3))
    lower, upper = gap_interval(maes, resampled)
    assert 0 < lower < 3 < upper
    assert np.isnan(gap_interval(np.array([1.0, np.nan]), resampled[:, :2])).all()
