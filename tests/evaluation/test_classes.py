"""Age groups against a plain oracle, and the borders between them."""

import numpy as np
import pytest

from mivolo_lite.evaluation.classes import class_accuracy
from mivolo_lite.evaluation.intervals import LIMIT

NAN = np.nan
FAIRFACE = [(0, 2), (3, 9), (10, 19), (20, 29), (30, 39), (40, 49), (50, 59), (60, 69), (70, 100)]
ADIENCE = [(0, 2), (4, 6), (8, 13), (15, 20), (25, 32), (38, 43), (48, 53), (60, 100)]


def oracle(age, lo, hi):
    """Sample by sample: the nearest group in completed years, and how many groups that is from the true one."""
    groups = sorted({(a, b) for a, b in zip(lo, hi, strict=True) if a < b})
    away, distance = [], []
    for estimate, a, b in zip(age, lo, hi, strict=True):
        if np.isnan(estimate) or not a < b:
            continue
        gap = [max(first - estimate, estimate - (last + 1), 0) for first, last in groups]
        nearest = max(place for place in range(len(groups)) if gap[place] == min(gap))
        away.append(abs(nearest - groups.index((a, b))))
        distance.append(max(a - estimate, estimate - b, 0))
    return len(away), np.mean([x == 0 for x in away]), np.mean([x <= 1 for x in away]), np.mean(distance)


@pytest.mark.parametrize("groups", [FAIRFACE, ADIENCE])
def test_against_a_plain_oracle(groups):
    random = np.random.default_rng(0)
    lo, hi = np.array(groups, dtype=float)[random.integers(0, len(groups), 2000)].T
    age = np.clip((lo + hi) / 2 + random.normal(0, 12, 2000), -3, 110)
    age[::9] = np.floor(age[::9] * 2) / 2  # and exactly on borders and in the middles of gaps
    lo[::7] = hi[::7] = 33.0
    age[::11], lo[::13], hi[::13] = NAN, NAN, NAN
    found = class_accuracy(age, lo, hi)
    assert (found["n"], found["accuracy"], found["one_off"], found["distance"]) == pytest.approx(oracle(age, lo, hi))
    assert found["classes"] == [f"{a}-{b}" for a, b in groups]
    assert found["accuracy_interval"][0] < found["accuracy"] < found["accuracy_interval"][1]
    assert found["one_off_interval"][0] < found["one_off"] < found["one_off_interval"][1]
    for name, (a, b) in zip(found["classes"], groups, strict=True):
        own, row = (lo == a) & (hi == b) & ~np.isnan(age), found["by"][name]
        assert row["n"] == own.sum()
        assert row["distance"] == pytest.approx(np.mean(np.maximum(np.maximum(a - age[own], age[own] - b), 0)))
    assert sum(row["n"] * row["accuracy"] for row in found["by"].values()) == pytest.approx(
        found["n"] * found["accuracy"]
    )


def test_ranges_are_in_completed_years():
    lo, hi = np.array([0.0, 3, 3, 10, 20, 20]), np.array([2.0, 9, 9, 19, 29, 29])
    found = class_accuracy(np.array([2.9, 9.9, 20.1, 9.0, 55.0, NAN]), lo, hi)
    # 2.9 and 9.9 are in their completed years; 20.1 is two groups off; 9 one off; 55 is nearest to 20-29.
    assert (found["n"], found["accuracy"], found["one_off"]) == (5, 3 / 5, 4 / 5)


def test_between_two_groups_the_nearer_counts():
    lo, hi = np.array([0.0, 0, 4, 4]), np.array([2.0, 2, 6, 6])
    assert class_accuracy(np.array([3.4, 3.6, 3.6, 3.4]), lo, hi)["accuracy"] == 0.5


def test_the_open_group_holds_all_above_and_the_first_all_below():
    found = class_accuracy(np.array([109.0, -2.0]), np.array([70.0, 0]), np.array([100.0, 2]))
    assert found["accuracy"] == 1 and found["distance"] == (9 + 2) / 2


def test_few_of_a_group_have_no_figures():
    lo = np.array([0.0] * LIMIT + [10.0] * (LIMIT - 1))
    found = class_accuracy(lo + 1, lo, lo + 9)
    assert found["by"]["0-9"]["accuracy"] == 1
    assert found["by"]["10-19"] == {"n": LIMIT - 1} | dict.fromkeys(
        ("accuracy", "one_off", "accuracy_interval", "one_off_interval", "distance")
    )


def test_without_groups_there_is_nothing_to_say():
    assert class_accuracy(np.array([5.0, 6.0]), np.array([5.0, 6.0]), np.array([5.0, 6.0])) is None
    assert class_accuracy(np.array([5.0, 6.0]), np.array([0.0, 5.0]), np.array([9.0, 12.0])) is None


@pytest.mark.parametrize(
    "groups, starts",
    [
        (((0, 2), (3, 9), (10, 19), (20, 29), (30, 39), (40, 49), (50, 59), (60, 69), (70, 100)),
         (0, 3, 10, 20, 30, 40, 50, 60, 70)),
        (((0, 2), (4, 6), (8, 12), (15, 20), (25, 32), (38, 43), (48, 53), (60, 100)), (0, 4, 7, 14, 24, 36, 46, 57)),
    ],
)  # fmt: skip
def test_mivolos_rule_beside_ours(groups, starts):
    """Rounded, and by the first years of its evaluation."""
    random = np.random.default_rng(0)
    true = random.integers(0, len(groups), 400)
    lo, hi = np.array(groups, float)[true].T
    age = (lo + hi) / 2 + random.normal(0, 6, 400)
    away = np.array([sum(start <= np.round(one) for start in starts) - 1 for one in age]) - true
    found = class_accuracy(age, lo, hi)["mivolo"]
    assert found["accuracy"] == (away == 0).mean() and found["one_off"] == (abs(away) <= 1).mean()
    assert found["n"] == 400 and found["accuracy_interval"][0] < found["accuracy"] < found["accuracy_interval"][1]


def test_mivolo_has_no_rule_for_other_groups():
    assert "mivolo" not in class_accuracy(np.array([5.0, 30]), np.array([0.0, 20]), np.array([9.0, 40]))
