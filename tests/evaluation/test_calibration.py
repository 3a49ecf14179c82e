"""Confidence against what it promises: gender probabilities, spreads, and split-conformal age intervals."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from mivolo_lite.evaluation.calibration.calibrate import calibration_table
from mivolo_lite.evaluation.calibration.conformal import (
    DECADES,
    age_intervals,
    conformal_radius,
    fit_calibration,
    fit_temperature,
)
from mivolo_lite.evaluation.calibration.ranges import years_of
from mivolo_lite.evaluation.calibration.reliability import (
    gender_accuracy_by,
    gender_calibration,
    interval_coverage,
    risk_coverage,
)
from mivolo_lite.evaluation.metrics import cumulative_scores, gross_error_rate, ten_year_bin
from mivolo_lite.evaluation.predictions import Predictions
from tests.evaluation.simulated import GROUPS, people

NAN = float("nan")


def test_cumulative_scores_and_gross_errors():
    errors = np.array([0.0, -1.0, 5 + 5e-7, 15.2, -20.0, 19.9, NAN])
    assert cumulative_scores(errors) == [1 / 6, *[2 / 6] * 4, *[3 / 6] * 11]
    assert gross_error_rate(errors) == 1 / 6
    assert cumulative_scores(errors[-1:]) == [] and gross_error_rate(errors[-1:]) is None


def test_the_ece_of_a_small_example():
    # Confidences 0.9, 0.9, 0.8, 0.6 lie in bins 13, 13, 12 and 9 of 15; right, wrong, right, wrong.
    found = gender_calibration(np.array([0.9, 0.1, 0.8, 0.6, 0.7, NAN]), ["F", "F", "F", "M", None, "M"])
    assert found["n"] == 4 and [row["n"] for row in found["bins"]] == [1, 1, 2]
    assert found["ece"] == pytest.approx((1 * 0.6 + 1 * 0.2 + 2 * 0.4) / 4)
    assert found["confusion"] == {"M": {"M": 0, "F": 1}, "F": {"M": 1, "F": 2}}
    assert found["nll"] == pytest.approx(-np.log([0.9, 0.1, 0.8, 0.4]).mean())
    assert found["accuracy"] == {"M": None, "F": None}, "too few for a figure"
    assert gender_calibration(np.array([0.5]), [None]) is None


@pytest.mark.parametrize("n", [50, 2000])
def test_chance_alone_explains_the_ece_of_probabilities_that_mean_what_they_say(n):
    random, above = np.random.default_rng(0), 0
    for _ in range(40):
        female = random.beta(0.3, 0.3, n)
        gender = np.where(random.random(n) < female, "F", "M").tolist()
        found = gender_calibration(female, gender)
        above += found["ece"] > found["ece_by_chance"]
    assert above <= 6  # 2 expected of 40
    sharpened = gender_calibration(female, np.where(random.random(n) < 0.5 + 0.5 * (female - 0.5), "F", "M").tolist())
    assert sharpened["ece"] > sharpened["ece_by_chance"]


def test_the_log_loss_is_that_of_the_rounded_probabilities_of_the_csv():
    """From which a cross-validation computes it."""
    model, csv = (gender_calibration(np.array([0.3, female]), ["F", "F"])["nll"] for female in (1e-7, 0.0))
    assert model == csv < 10


def test_probabilities_that_mean_what_they_say_are_calibrated():
    p = people(40_000)
    assert gender_calibration(p.female, p.gender)["ece"] < 0.01
    sharpened = 1 / (1 + ((1 - p.female) / p.female) ** 3)
    assert gender_calibration(sharpened, p.gender)["ece"] > 0.08
    by = gender_accuracy_by(p.female, p.gender, p.group)
    assert list(by) == list(GROUPS) and all(row["accuracy"] == pytest.approx(0.75, abs=0.015) for row in by.values())


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_a_sharpening(sharpness):
    p = people(40_000, seed=1)
    is_female = np.array(p.gender) == "F"
    sharpened = 1 / (1 + ((1 - p.female) / p.female) ** sharpness)
    logit = np.log(sharpened) - np.log1p(-sharpened)
    temperature = fit_temperature(logit, is_female)
    assert temperature == pytest.approx(sharpness, rel=0.04)
    losses = [np.logaddexp(0, np.where(is_female, -1, 1) * logit / t).mean() for t in np.linspace(0.1, 5, 50)]
    assert np.logaddexp(0, np.where(is_female, -1, 1) * logit / temperature).mean() <= min(losses)


@pytest.mark.parametrize("scale", [2, 8, 15, 30])
def test_the_temperature_of_logits_that_float32_probabilities_cannot_tell_apart(scale):
    random = np.random.default_rng(0)
    is_female = random.random(2000) < 0.5
    logit = (np.where(is_female, 1.0, -1.0) + random.normal(0, 1, 2000)) * scale
    loss = partial(_log_loss, logit, is_female)
    best = minimize_scalar(loss, bounds=(1 / 40, 20), method="bounded", options={"xatol": 1e-12}).x
    assert fit_temperature(logit, is_female) == pytest.approx(1 / best, rel=1e-4)


def _log_loss(logit, is_female, sharpness):
    return np.logaddexp(0, -np.where(is_female, logit, -logit) * sharpness).mean()


def test_images_that_allow_no_temperature_leave_the_earlier_one():
    p = people(200, seed=1)
    is_female = np.array(p.gender) == "F"
    right = (p.log_odds > 0) == is_female
    assert fit_temperature(p.log_odds, is_female) is not None
    for rows in (is_female, right, np.arange(200) < 29, np.zeros(200, bool)):  # women, all right, few, nobody
        assert fit_temperature(p.log_odds[rows], is_female[rows]) is None
    kept = fit_calibration(replace(p, gender=[None] * 200), temperature=1.3)
    assert (kept["gender_temperature"], kept["gender_fitted"], kept["gender_n"]) == (1.3, False, 0)
    assert fit_calibration(p, temperature=1.3)["gender_fitted"]


def test_risk_coverage_is_the_mean_loss_of_the_most_certain():
    found = risk_coverage(np.array([4.0, 1.0, NAN, 2.0, 3.0]), np.array([0.9, 0.1, 0.0, 0.2, NAN]))
    assert found["coverage"] == pytest.approx([1 / 3, 2 / 3, 1]) and found["risk"] == pytest.approx([1, 1.5, 7 / 3])
    assert found["aurc"] == pytest.approx((1 + 1.5 + 7 / 3) / 3)
    assert risk_coverage(np.ones(5), np.ones(5)) is None and risk_coverage(np.ones(2), np.full(2, NAN)) is None


def test_an_honest_spread_lowers_the_risk_of_the_certain():
    p = people(5000)
    curve = risk_coverage(np.abs(p.age - p.age_lo), p.spread)
    assert len(curve["risk"]) == 100 and curve["risk"][9] < 0.6 * curve["risk"][-1]


def test_the_radius_is_the_error_of_the_rank_that_conformal_prediction_asks_for():
    errors, truth = np.random.default_rng(0).permutation(np.arange(1.0, 100.0)), np.zeros(99)
    assert [conformal_radius(errors, truth, truth, level) for level in (0.9, 0.95)] == [90, 95]  # of n + 1 = 100
    assert conformal_radius(errors[:9], truth[:9], truth[:9], 0.9) == errors[:9].max()
    assert conformal_radius(errors[:8], truth[:8], truth[:8], 0.9) is None


def test_every_year_of_a_range_is_as_likely():
    row, year, share = years_of(np.array([3.0, 70.0, 25.5]), np.array([5.0, 120.0, 25.5]))
    assert row.tolist() == [0] * 3 + [1] * 31 + [2] and year[[0, 2, 3, 33, 34]].tolist() == [3, 5, 70, 100, 25.5]
    assert np.bincount(row, share) == pytest.approx(np.ones(3))
    estimates, lo = np.full(200, 38.0), np.full(200, 30.0)  # errors of 0 and 1, of 1 and 2 to 8: one tenth each
    assert [conformal_radius(estimates, lo, lo + 9, level) for level in (0.2, 0.5, 0.9)] == [1, 4, 8]


def test_ages_are_covered_as_promised_by_what_was_calibrated_on_groups():
    """The distance to the group, in place of the years of it, held 71 % of these ages."""
    fitted, held_out = people(8000, seed=1), people(8000, seed=2)
    lo = 10 * np.floor(fitted.age_lo / 10)
    for by in ("all", "age"):
        calibration = fit_calibration(replace(fitted, age_lo=lo, age_hi=lo + 9), 0.9, by)
        ends = age_intervals(calibration, held_out.age, held_out.gender, held_out.group)
        assert 0.9 <= interval_coverage(*ends, held_out.age_lo, held_out.age_hi, {})["coverage"] < 0.97


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.8, 0.9])
@pytest.mark.parametrize("by", ["all", "age", "group"])
def test_held_out_ages_are_covered_as_promised(level, by):
    """Within 1 point of nominal, in all and in each of the subgroups that the promise is made to."""
    fitted, held_out = people(60_000, seed=1), people(60_000, seed=2)
    calibration = fit_calibration(fitted, level, by)
    lower, upper = age_intervals(calibration, held_out.age, held_out.gender, held_out.group)
    subgroups = {"all": [], "age": ten_year_bin(held_out.age, held_out.age), "group": held_out.group}
    subgroups = {name: names for name, names in subgroups.items() if name == by != "all"}
    found = interval_coverage(lower, upper, held_out.age_lo, held_out.age_hi, subgroups)
    assert found["coverage"] == pytest.approx(level, abs=0.01)
    for name, row in found["by"].get(by, {}).items():
        if row["n"] > 4000:
            assert row["coverage"] == pytest.approx(level, abs=0.02), name


@pytest.mark.slow
def test_one_radius_for_all_fails_the_old_and_their_own_does_not():
    fitted, held_out = people(30_000, seed=3), people(30_000, seed=4)
    estimated = ten_year_bin(held_out.age, held_out.age)
    rows = {}
    for by in ("all", "age"):
        ends = age_intervals(fit_calibration(fitted, 0.9, by), held_out.age, held_out.gender, held_out.group)
        rows[by] = interval_coverage(*ends, held_out.age_lo, held_out.age_hi, {"age": estimated})["by"]["age"]
    assert rows["all"]["70-79"]["coverage"] < 0.8 < 0.86 < rows["age"]["70-79"]["coverage"]
    assert rows["age"]["10-19"]["width"] < 0.8 * rows["all"]["10-19"]["width"]


def test_subgroups_of_few_images_have_the_common_radius():
    p = people(300)
    names = ["rare" if row < 20 else "common" for row in range(300)]
    calibration = fit_calibration(replace(p, group=names), 0.9, "group")
    assert list(calibration["radii"]) == ["common"]
    lower, upper = age_intervals(calibration, np.array([50.0, 50.0, NAN]), [None] * 3, ["rare", None, "common"])
    assert upper[0] - 50 == upper[1] - 50 == calibration["radius"] and np.isnan([lower[2], upper[2]]).all()
    assert calibration["few"] == {"rare": 20}
    assert "too few ages of their own, so the radius of all: rare (20)" in calibration_table(calibration)


def test_few_old_people_have_the_radius_of_the_nearest_in_age():
    """3 % are over 75, with four times the error of the others: the radius of all held half of them."""

    def world(n, seed):
        random = np.random.default_rng(seed)
        age = np.where(random.random(n) < 0.03, random.uniform(75, 95, n), random.uniform(0, 75, n))
        estimate = age + random.normal(0, np.where(age > 75, 16, 4))
        nobody = [None] * n
        return Predictions(nobody, estimate, np.full(n, NAN), age, age, nobody, nobody)

    covered = {"all": [], "age": []}
    held_out = world(20_000, 100)
    for seed in range(8):  # of the 1,200 some 20 are estimated over 80: sets differ by much
        for by, shares in covered.items():
            calibration = fit_calibration(world(1200, seed), 0.9, by)
            ends = age_intervals(calibration, held_out.age, held_out.gender, held_out.group)
            inside = (held_out.age_lo >= ends[0]) & (held_out.age_lo <= ends[1])
            shares.append(inside[held_out.age > 80].mean())
            assert inside.mean() == pytest.approx(0.9, abs=0.03)
    assert np.mean(covered["all"]) < 0.55 and np.mean(covered["age"]) > 0.8
    assert calibration["few"] and set(calibration["radii"]) == set(DECADES)
    assert "so with the nearest in age" in calibration_table(calibration)
    assert calibration["few"]["120-129"] == 0, "a bin without an image has the radius of others as well"


def test_ten_years_have_the_radius_of_their_own_estimates_also_where_those_are_whole_years():
    """Those of exactly 20 are as near to 10-19 as those inside."""
    age = np.concatenate([np.full(200, 20.0), np.arange(100) % 10 + 10.0])
    truth = age + np.concatenate([np.full(200, 10.0), np.ones(100)])
    p = Predictions(["key"] * 300, age, np.full(300, NAN), truth, truth, [None] * 300, [None] * 300)
    radii = fit_calibration(p, 0.9, "age")["radii"]
    assert radii["10-19"] == 1 and radii["20-29"] == 10


@pytest.mark.parametrize("n", [30, 60, 200])
def test_every_age_has_a_radius(n):
    calibration = fit_calibration(people(n, seed=1), 0.9, "age")
    lower, upper = age_intervals(calibration, np.arange(-5.0, 126), [None] * 131, [None] * 131)
    assert (upper >= lower).all() and set(calibration["radii"]) == set(DECADES)


def test_intervals_end_where_ages_do_and_too_few_ages_have_none():
    calibration = {"by": "all", "radius": 10.0, "radii": {}}
    lower, upper = age_intervals(calibration, np.array([3.0, 118.0]), [None] * 2, [None] * 2)
    assert lower.tolist() == [0, 108] and upper.tolist() == [13, 120]
    with pytest.raises(ValueError, match="8 known ages are too few"):
        fit_calibration(people(8), 0.9)


def test_an_age_known_as_a_range_is_covered_by_the_share_of_its_years():
    lower, upper = np.full(40, 20.0), np.full(40, 30.0)
    lo = np.array([10.0, 5.0, 30.0, 22.0] * 10)
    found = interval_coverage(lower, upper, lo, lo + 4, {})
    assert (
        found["coverage"] == pytest.approx((0 + 0 + 1 / 5 + 1) / 4)
        and found["interval"][0] < 0.3 < found["interval"][1]
    )
    few = interval_coverage(lower[:5], upper[:5], lo[:5], lo[:5], {"group": ["x"] * 5})
    assert few["coverage"] is few["width"] is None and few["by"]["group"] == {
        "x": {"n": 5, "coverage": None, "interval": None, "width": None}
    }


def test_ages_of_which_next_to_nothing_is_known_are_left_out_and_named():
    """ "18+" would be each year to 100; "70+" of FairFace still says something."""
    exact = np.linspace(25.0, 35.0, 40)

    def fitted(lo, hi):
        nobody, nothing = [None] * len(lo), np.full(len(lo), NAN)
        return fit_calibration(
            Predictions(["key"] * len(lo), np.full(len(lo), 30.0), nothing, lo, hi, nobody, nobody), 0.9
        )

    alone = fitted(exact, exact)
    for lo, wide in ((18.0, 60), (70.0, 0)):
        calibration = fitted(np.append(exact, [lo] * 60), np.append(exact, [116.0] * 60))
        assert calibration["wide"] == wide and (calibration == alone | {"wide": 60}) == bool(wide)
        named = "warning: 60 ages are ranges of more than 50 years" in calibration_table(calibration)
        assert named == bool(wide)
    with pytest.raises(ValueError, match="0 known ages are too few .*60 ranges of more than 50 years are left out"):
        fitted(np.full(60, 18.0), np.full(60, 116.0))


def test_an_age_of_which_next_to_nothing_is_known_has_no_coverage():
    lower, upper, lo = np.full(60, 20.0), np.full(60, 30.0), np.full(60, 25.0)
    half = np.where(np.arange(60) < 30, 116.0, 25.0)
    found = interval_coverage(lower, upper, np.where(half > 25, 18.0, lo), half, {})
    assert found["n"] == 30 and found["coverage"] == 1
