"""Weights against uneven labels: laws of the weights, and what they do to a step's gradient."""

import numpy as np
import pytest
import torch

from mivolo_lite.config import read_run_config
from mivolo_lite.errors import UserError
from mivolo_lite.labels import NO_CODE
from mivolo_lite.training.balance import BalanceConfig, balanced_weights, capped
from mivolo_lite.training.subgroups import UNKNOWN, frequencies, subgroups_of


def columns_of(ages, gender=0, group=0):
    ages = np.array(ages, dtype=np.float32)
    return {
        "age_lo": ages,
        "age_hi": ages,
        "gender": np.broadcast_to(np.uint8(gender), ages.shape),
        "group": np.broadcast_to(np.uint8(group), ages.shape),
    }


def sampled(size=5000):
    """Ages, genders and groups as uneven as they come, a tenth of each unknown."""
    random = np.random.default_rng(0)
    ages = np.where(random.random(size) < 0.1, np.nan, random.exponential(25, size).clip(0, 110).round())
    codes = [
        np.where(random.random(size) < 0.1, NO_CODE, random.choice(len(p), size, p=p))
        for p in ([0.3, 0.7], [0.85, 0.1, 0.05])
    ]
    return columns_of(ages, *codes)


@pytest.mark.parametrize("power, cap", [(0.5, 5.0), (1.0, 3.0), (1.0, 100.0), (1.0, float("inf")), (0.0, 5.0)])
@pytest.mark.parametrize("by", ["age", "gender", "group", "age_gender", "age_group"])
def test_the_mean_is_one_no_weight_exceeds_the_cap_and_the_unknown_weigh_one(by, power, cap):
    columns = sampled()
    weight = balanced_weights(columns, BalanceConfig(by, power, cap))
    known = subgroups_of(columns, ["x", "y", "z"], by)[0] != UNKNOWN
    assert weight.double().mean() == pytest.approx(1, abs=1e-6) and 0 < weight.min() and weight.max() <= cap
    assert 0 < known.mean() < 1 and (weight[~known] == 1).all()
    assert (weight == 1).all() == (power == 0)


def test_a_subgroup_weighs_inversely_to_its_number():
    columns = columns_of([30] * 13, group=[0] * 9 + [1] * 3 + [2])
    whole, root = (balanced_weights(columns, BalanceConfig("group", power, 100)).numpy() for power in (1.0, 0.5))
    assert whole / whole[0] == pytest.approx([1] * 9 + [3] * 3 + [9])
    assert [whole[:9].sum(), whole[9:12].sum(), whole[12]] == pytest.approx([13 / 3] * 3)
    assert root / root[0] == pytest.approx([1] * 9 + [3**0.5] * 3 + [3])


def test_the_only_one_of_an_age_does_not_weigh_more_than_the_few_of_about_that_age():
    ages = [20] * 500 + [80, 81, 82, 84]
    weight = balanced_weights(columns_of(ages), BalanceConfig("age", 1.0, 100)).numpy()
    assert weight[500:].max() / weight[500:].min() < 1.5
    assert weight[500] > 20 * weight[0]


def test_ages_are_weighed_within_each_group():
    """As many old as young in one group, a tenth in the other: only there do the old weigh more."""
    ages = [20, 80] * 50 + [20] * 90 + [80] * 10
    columns = columns_of(ages, group=[0] * 100 + [1] * 100)
    weight = balanced_weights(columns, BalanceConfig("age_group", 1.0, 100)).numpy()
    assert weight[1] == pytest.approx(weight[0], rel=0.01)
    assert weight[199] == pytest.approx(9 * weight[100], rel=0.01)


def test_a_range_is_of_the_age_in_its_middle():
    columns = columns_of([25.0] * 10 + [60.0])
    ranged = columns | {"age_lo": columns["age_lo"] - 5, "age_hi": columns["age_hi"] + 5}
    config = BalanceConfig("age", 1.0, 100)
    assert torch.equal(balanced_weights(ranged, config), balanced_weights(columns, config))


@pytest.mark.parametrize("cap", [1.01, 1.5, 2.0, 4.0, 50.0])
def test_capped_weights_are_the_others_scaled(cap):
    weight = torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) ** 8 + 1e-6
    found = capped(weight, cap)
    assert found.mean() == pytest.approx(1) and found.max() <= cap
    ratio = (found / weight)[found < cap]
    assert ratio.max() == pytest.approx(float(ratio.min()))
    assert (found[found == cap] <= ratio[0] * weight[found == cap] * (1 + 1e-9)).all()


@pytest.mark.parametrize("power, cap", [(1.0, 100.0), (0.5, 1.2)])
def test_a_sample_that_comes_three_times_counts_as_three(power, cap):
    """A set of 10 that weighs as much as one of 30, against the same with its samples repeated three times."""
    frequency = frequencies([[None] * 30, [None] * 10], [2.0, 2.0])
    once, thrice = (columns_of([30] * len(group), group=group) for group in ([0] * 30 + [1] * 10, [0] * 30 + [1] * 30))
    assert frequency == pytest.approx([2 / 3] * 30 + [2] * 10)
    config = BalanceConfig("group", power, cap)
    found = balanced_weights(once, config, frequency)
    assert torch.equal(found, balanced_weights(thrice, config)[:40]) and (found == 1).all()
    uneven = balanced_weights(columns_of([30] * 40, group=[0] * 10 + [1] * 30), config, frequency[::-1].copy()).numpy()
    assert np.average(uneven, weights=frequency[::-1]) == pytest.approx(1)


def test_subgroups_have_names_and_the_small_ones_are_none():
    columns = columns_of([1, 9, 10, 12, 15, 99, np.nan], group=[0, 0, 1, 1, 1, 1, 0])
    subgroup, names = subgroups_of(columns, ["Asian", "Black"], "age_group", fewest=2)
    assert names == ["0-9 Asian", "10-19 Black"] and subgroup.tolist() == [0, 0, 1, 1, 1, UNKNOWN, UNKNOWN]
    assert subgroups_of(columns, ["Asian", "Black"], "gender")[1] == ["M"]


def test_what_cannot_be_balanced_is_one_line():
    nothing = columns_of([30, 40], group=NO_CODE)
    with pytest.raises(UserError, match="optim.balance.by group: no training sample"):
        balanced_weights(nothing, BalanceConfig("group"))


@pytest.mark.parametrize(
    "option, value", [("balance.by", "race"), ("balance.cap", "1"), ("balance.power", "2"), ("dro.step_size", "0")]
)
def test_an_impossible_option_is_one_line(option, value):
    words = ["--run", "r", "--data.train", "t", "--data.val", "v", f"--optim.{option}", value]
    with pytest.raises(UserError, match=f"command line: .*{value}") as error:
        read_run_config(words)
    assert "\n" not in str(error.value)
