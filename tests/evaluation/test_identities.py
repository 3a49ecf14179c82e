"""Several images of one person: intervals are over people, of all that an evaluation says."""

import csv
from dataclasses import replace
from functools import reduce
from operator import getitem

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri

from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.evaluation.calibration.conformal import conformal_radius, fit_calibration
from mivolo_lite.evaluation.classes import class_accuracy
from mivolo_lite.evaluation.compare import compare, comparison_table
from mivolo_lite.evaluation.evaluate import evaluate
from mivolo_lite.evaluation.groups import gaps, macro_mae
from mivolo_lite.evaluation.headline import headline
from mivolo_lite.evaluation.intervals import (
    bootstrap_of_enough,
    counted,
    design_effect,
    half_width,
    means,
    paired_share_interval,
    percentiles,
    replicates,
    share_interval,
)
from mivolo_lite.evaluation.plots import curves
from mivolo_lite.evaluation.predictions import Predictions, read_csv, write_csv
from mivolo_lite.evaluation.report_tables import age_table
from mivolo_lite.evaluation.robustness import VERSIONS, degradation
from mivolo_lite.evaluation.summary import age_curves, summarise
from mivolo_lite.evaluation.table import metrics_table
from mivolo_lite.experiments.crossval import _concatenate
from mivolo_lite.experiments.spread import spread
from mivolo_lite.shards.scan import index_shards
from tests.evaluation.simulated import people, pick
from tests.shards.tiny_shards import sample, write_shard

PEOPLE, IMAGES = 82, 12
PERSON = np.repeat(np.arange(PEOPLE), IMAGES)
IDENTITY = PERSON.astype(float)


def errors_of(random, correlation, persons=PEOPLE):
    """Normal errors of 12 images of each person, which correlate within the person."""
    own, shared = random.normal(size=persons * IMAGES), np.repeat(random.normal(size=persons), IMAGES)
    return np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own


def covered(ends, truth):
    return ends[0] <= truth <= ends[1]


def without_people(metrics):
    if isinstance(metrics, dict):
        return {name: without_people(value) for name, value in metrics.items() if name != "people"}
    return [without_people(value) for value in metrics] if isinstance(metrics, list) else metrics


def test_where_nobody_is_in_two_images_identities_change_no_number():
    p = people(400, seed=3, unknown=0.1)
    p = replace(p, lower=p.age - 5, upper=p.age + 5)
    plain = summarise(p, (18,), 0.9)
    shuffled = np.random.default_rng(0).permutation(400).astype(float)
    shuffled[::7] = np.nan  # nobody knows who these are
    known = summarise(replace(p, identity=shuffled), (18,), 0.9)
    assert without_people(known) == plain and known["people"] == known["n"] and "people" not in plain
    assert known["by"]["gender"]["F"]["people"] == plain["by"]["gender"]["F"]["n"]
    assert without_people(fit_calibration(replace(p, identity=shuffled), by="age")) == fit_calibration(p, by="age")


def test_identities_widen_every_interval_and_change_no_figure():
    """Of four copies of each image they are those of one, about twice as wide; of a share of 0 four times."""
    p = pick(people(600, seed=3), np.repeat(np.arange(600), 4))
    p = replace(p, lower=p.age - 5, upper=p.age + 5)
    plain, known = (summarise(replace(p, identity=who), (18,), 0.9) for who in (None, np.arange(2400.0) // 4))
    for name in ("n", "mae", "bias", "cs5", "ce20", "gender_accuracy", "risk_coverage"):
        assert known[name] == plain[name]
    assert known["macro_mae"]["value"] == plain["macro_mae"]["value"] and known["people"] == 600
    for where in (
        *(("intervals", name) for name in plain["intervals"]),
        *(("by", "gender", "F", f"{name}_interval") for name in ("mae", "bias")),
        ("gaps", "group", "rows", "a", "interval"),
        ("gaps", "group", "rows", "a", "standardised_interval"),
        *(("nist", name, "interval") for name in ("teen_mae", "teen_tpr", "adult_fpr")),
        ("thresholds", 0, "false_pass", "interval", 0),
        ("gender", "by", "group", "a", "interval"),
        ("age_intervals", "interval"),
        ("age_intervals", "by", "group", "a", "interval"),
    ):
        ends = [reduce(getitem, where, metrics) for metrics in (plain, known)]
        assert 1.5 < np.ptp(ends[1]) / np.ptp(ends[0]) < 4, where
    assert known["gender"]["ece_by_chance"] > 1.5 * plain["gender"]["ece_by_chance"]
    assert known["gaps"]["group"]["raw"]["by_chance"] > 1.5 * plain["gaps"]["group"]["raw"]["by_chance"]


def test_shares_of_age_groups_are_over_people():
    lo = np.repeat(np.tile([0.0, 10, 20], 30), 5)
    age = lo + np.repeat(np.random.default_rng(0).normal(5, 5, 90), 5)
    plain, known = class_accuracy(age, lo, lo + 9), class_accuracy(age, lo, lo + 9, np.arange(450.0) // 5)
    for one, other in ((plain, known), (plain["by"]["10-19"], known["by"]["10-19"])):
        assert one["accuracy"] == other["accuracy"]
        assert np.ptp(other["accuracy_interval"]) > 1.8 * np.ptp(one["accuracy_interval"])


def test_the_bootstrap_draws_people_with_all_of_their_images():
    random = np.random.default_rng(1)
    identity = np.array([5, np.nan, 2, 5, np.nan, 2, 2, 9.0])
    values, cell, seen = random.random((8, 2)), np.array([1, 0, 1, 0, 1, 0, 1, 0]), []

    def keep(sums):
        seen.append(sums)
        return sums.reshape(len(sums), -1)

    replicates(values, keep, cell, times=30, seed=5, identity=identity)
    persons = [[2, 5, 6], [0, 3], [7], [1], [4]]  # by number, then those whom nobody knows
    draws = np.random.default_rng(5)
    for replicate in np.concatenate(seen):
        rows = [row for person in draws.integers(0, 5, 5) for row in persons[person]]
        plain = [values[[row for row in rows if cell[row] == number]].sum(axis=0) for number in range(2)]
        np.testing.assert_allclose(replicate, plain)


def test_few_people_have_no_bootstrap_interval_however_many_images_they_have():
    values, identity = counted(np.random.default_rng(0).random(290)), np.arange(290.0) % 29
    assert np.isnan(bootstrap_of_enough(values, means, identity=identity)).all()
    assert not np.isnan(bootstrap_of_enough(values, means, identity=np.arange(290.0) % 30)).any()


def test_images_that_are_all_alike_count_as_one_a_person():
    hits = np.repeat(np.arange(40) < 10, 6)
    of_people, of_images = share_interval(hits[::6]), share_interval(hits, identity=np.arange(240.0) // 6)
    assert of_images == pytest.approx(of_people, abs=0.01) and np.ptp(share_interval(hits)) < 0.6 * np.ptp(of_people)
    nothing = np.zeros(240, bool)
    assert share_interval(nothing, identity=np.arange(240.0) // 6) == pytest.approx(share_interval(nothing[:40]))
    difference = np.repeat(np.arange(40) % 4 - 1.0, 6).clip(-1, 1)
    paired = paired_share_interval(difference, identity=np.arange(240.0) // 6)
    assert paired == pytest.approx(paired_share_interval(difference[::6]), abs=0.03)
    values = np.repeat(np.random.default_rng(0).normal(size=40), 6)
    assert half_width(values, identity=np.arange(240.0) // 6) == pytest.approx(half_width(values[::6]))
    assert half_width(values, identity=np.zeros(240)) != half_width(values)  # NaN of one person


def test_images_of_one_person_that_are_unlike_count_no_more_than_independent_ones():
    assert design_effect(np.tile([1.0, -1.0], 50), np.arange(100.0) // 2) == 1
    assert design_effect(np.ones(3), np.zeros(3)) == 3  # of one person nothing is known of others


@pytest.mark.parametrize("correlation", [0.3, 0.9])
def test_intervals_hold_the_truth_as_often_as_they_say(correlation):
    random, trials = np.random.default_rng(0), 150
    held = dict.fromkeys(("mae", "bias", "student", "share", "rare", "paired"), 0)
    for seed in range(trials):
        errors = errors_of(random, correlation)
        resampled = replicates(counted(np.abs(errors), errors), means, times=200, seed=seed, identity=IDENTITY)
        mae, bias = percentiles(resampled)[:, 0].T
        half = half_width(errors, identity=IDENTITY)
        difference = np.where(errors < ndtri(0.2), 1, np.where(errors > ndtri(0.9), -1, 0))
        held["mae"] += covered(mae, np.sqrt(2 / np.pi))
        held["bias"] += covered(bias, 0)
        held["student"] += abs(errors.mean()) <= half
        held["share"] += covered(share_interval(errors < ndtri(0.7), identity=IDENTITY), 0.7)
        held["rare"] += covered(share_interval(errors < ndtri(0.02), identity=IDENTITY), 0.02)
        held["paired"] += covered(paired_share_interval(difference, identity=IDENTITY), 0.1)
    assert min(held.values()) >= 0.89 * trials, held


def test_the_interval_over_trainings_and_people_holds_the_true_mean_as_often_as_it_says():
    random, held = np.random.default_rng(0), 0
    for _ in range(300):
        shared, training = errors_of(random, 0.5), random.normal(0, 0.05, (3, 1))
        found = spread(list(5 + training + shared + random.normal(0, 0.5, (3, len(shared)))), identity=IDENTITY)
        held += covered(found.over_both, 5)
    assert held / 300 >= 0.92 and (found.n, found.people) == (PEOPLE * IMAGES, PEOPLE)


def test_the_gap_between_equals_is_taken_for_chance_as_often_as_promised():
    """Of people whose errors are alike, a shuffle of images calls half of such gaps more than chance."""
    random, above = np.random.default_rng(0), 0
    subgroup = np.where(PERSON % 2, "x", "y").tolist()
    for _ in range(40):
        raw = gaps(errors_of(random, 0.8), subgroup, ["20-29"] * len(PERSON), IDENTITY)["raw"]
        above += raw["gap"] > raw["by_chance"]
    assert above <= 6  # 2 expected of 40


def test_a_subgroup_of_few_people_has_no_interval_nor_has_the_gap():
    errors = np.random.default_rng(0).normal(size=200)
    identity = np.concatenate([np.arange(100.0), 100 + np.arange(100) % 29])
    bins, names = ["0-9"] * 100 + ["10-19"] * 100, ["x"] * 100 + ["y"] * 100
    macro, gap = macro_mae(errors, bins, identity), gaps(errors, names, ["0-9"] * 200, identity)
    assert macro["value"] is not None and macro["interval"] is macro["worst"]["interval"] is None
    assert gap["rows"]["x"]["interval"] and gap["rows"]["y"]["interval"] is gap["raw"]["interval"] is None
    assert gap["rows"]["y"]["standardised_interval"] is None and gap["raw"]["by_chance"] > 0
    curve = age_curves(replace(people(200), age_lo=np.full(200, 5.0), age_hi=np.full(200, 5.0), identity=identity % 9))
    assert curve["by"]["age"]["0-9"]["mae_interval"] is None and next(curves({"": curve})).svg


def test_degradation_samples_people():
    random = np.random.default_rng(0)
    errors = np.abs(np.repeat(random.normal(size=(50, 1)), 6, axis=0)) + random.random((300, VERSIONS)) / 10
    plain, known = degradation(errors), degradation(errors, np.arange(300.0) // 6)
    assert np.ptp(known["clean_mae_interval"]) > 1.7 * np.ptp(plain["clean_mae_interval"])


def test_a_radius_weighs_people_and_not_images():
    truth, errors = np.zeros(200), np.concatenate([np.arange(1.0, 101), np.full(100, 1000.0)])
    identity = np.concatenate([np.arange(1.0, 101), np.zeros(100)])  # one person with 100 images, all far off
    assert conformal_radius(errors, truth, truth, 0.9) == 1000
    assert conformal_radius(errors, truth, truth, 0.9, identity) == 92  # of m + 1 = 102
    assert conformal_radius(errors[:80], truth[:80], truth[:80], 0.9, np.arange(80.0) % 8) is None


def test_intervals_hold_the_age_of_a_new_person_as_often_as_they_say():
    random, held = np.random.default_rng(0), []
    for _ in range(200):
        errors = errors_of(random, 0.8, 20)
        p = Predictions(["k"] * 240, errors, np.full(240, np.nan), *np.zeros((2, 240)), [None] * 240, [None] * 240)
        radius = fit_calibration(replace(p, identity=IDENTITY[:240]), 0.9)["radius"]
        held.append(2 * ndtr(radius) - 1)
    assert np.mean(held) >= 0.9


def test_a_bin_takes_neighbours_until_it_has_enough_people(monkeypatch):
    """One of many images of few people would have the radius of these few."""
    age = np.concatenate([np.full(40, 5.0), np.full(40, 15.0)])
    errors = np.concatenate([np.zeros(40), np.full(40, 3.0)])
    columns = ["k"] * 80, age, np.full(80, np.nan), age + errors, age + errors, [None] * 80, [None] * 80
    plain, identity = Predictions(*columns), np.concatenate([np.arange(40.0) % 4, np.arange(4.0, 44)])
    assert fit_calibration(plain, by="age")["radii"]["0-9"] == 0
    known = fit_calibration(replace(plain, identity=identity), by="age")
    assert known["radii"]["0-9"] == 3 and known["few"]["0-9"] == 4 and known["people"] == 44


def test_the_csv_has_numbers_of_people_and_no_names(tmp_path):
    p = replace(people(4), identity=np.array([3, np.nan, 0, 3.0]))
    write_csv({"face": p, "both": p}, tmp_path / "p.csv")
    with open(tmp_path / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-1] == "identity" and [row["identity"] for row in rows] == ["3", "", "0", "3"]
    for back in read_csv(tmp_path / "p.csv").values():
        np.testing.assert_array_equal(back.identity, p.identity)
    write_csv({None: people(4)}, tmp_path / "plain.csv")
    assert (
        "identity" not in (tmp_path / "plain.csv").read_text()
        and read_csv(tmp_path / "plain.csv")[None].identity is None
    )
    (tmp_path / "p.csv").write_text((tmp_path / "p.csv").read_text().replace(",3\n", ",Jane\n"))
    with pytest.raises(UserError, match="identity 'Jane' is not the whole number of a person; evaluate again"):
        read_csv(tmp_path / "p.csv")


def test_compare_is_over_people_also_where_only_one_evaluation_has_them(tmp_path):
    random = np.random.default_rng(0)
    p = people(PEOPLE * IMAGES)
    off = p.age_lo + 20 + 3 * np.repeat(random.normal(size=PEOPLE), IMAGES)
    first, other = replace(p, age=off, identity=IDENTITY), replace(p, age=off + errors_of(random, 0.9))
    for name in "ab":
        (tmp_path / name).mkdir()
    write_csv({None: first}, tmp_path / "a" / "predictions.csv")
    write_csv({None: pick(other, np.arange(len(off))[::-1])}, tmp_path / "b" / "predictions.csv")
    rows = compare([tmp_path / "a", tmp_path / "b"])["rows"]
    swapped = compare([tmp_path / "b", tmp_path / "a"])
    difference = rows[1]["mae"]["difference"]
    assert difference["people"] == PEOPLE and np.ptp(difference["interval"]) > 2.5 * 4 / np.sqrt(len(off))
    assert swapped["rows"][1]["mae"]["interval"] == pytest.approx(rows[0]["mae"]["interval"], rel=0.1)
    assert comparison_table(swapped).endswith(f"people are sampled: {len(off)} images of {PEOPLE} people")


def test_reports_say_how_many_people_the_images_are_of():
    metrics = summarise(replace(people(240), identity=np.arange(240.0) // 6), (18,))
    notes = {measure.name: measure.note for measure in headline(metrics)}
    assert notes["MAE, years"].startswith("240 images of 40 people; ")
    assert "bootstrap samples; of 240 images of 40 people, people are sampled" in metrics_table(metrics)
    row = next(row for row in age_table(metrics).rows if row[0] == "20-29")
    assert row[1].small == f"of {metrics['by']['age']['20-29']['people']} people"


def test_evaluate_writes_the_numbers_that_the_index_gave_to_names(tmp_path, capsys):
    samples = [sample(3 * number) for number in range(8)]  # faces
    for number, one in enumerate(samples):
        one.labels.extra["identity"] = ["Jane Doe", "Ann"][number % 2]
    del samples[5].labels.extra["identity"]
    (tmp_path / "shards").mkdir()
    write_shard(tmp_path / "shards" / "0.tar", samples)
    index_shards(tmp_path / "shards")
    torch.manual_seed(1)
    card = {"name": "single", "backbone": "test_resnet"}, {"name": "classification"}, {"min_age": 0, "max_age": 100}, 32
    Estimator(Card(*card)).save(tmp_path / "best")
    metrics = evaluate(tmp_path / "best", tmp_path / "shards", tmp_path / "out", report=False)
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        assert [row["identity"] for row in csv.DictReader(file)] == ["1", "0", "1", "0", "1", "", "1", "0"]
    assert (metrics["n"], metrics["people"]) == (7, 3)
    assert not any(b"Jane" in path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file())
    main(["calibrate", "--checkpoint", f"{tmp_path}/best", "--data", f"{tmp_path}/shards", "--level", "0.5",
          "--workers", "0"])  # fmt: skip
    assert "from 7 ages of 3 people and" in capsys.readouterr().out


def test_folds_that_an_earlier_version_evaluated_leave_all_without_identities():
    old, new = people(2), replace(people(3), identity=np.array([0.0, 0, 1]))
    assert _concatenate([new, old]).identity is _concatenate([old, new]).identity is None
    assert _concatenate([new, new]).identity.tolist() == [0, 0, 1] * 2
