"""``calibrate`` and what it leaves in a checkpoint: intervals and a temperature that evaluation and inference use."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import MODEL_FILE, Card, Estimator
from mivolo_lite.evaluation.calibration.calibrate import calibrate
from mivolo_lite.evaluation.evaluate import evaluate
from mivolo_lite.evaluation.table import metrics_table
from mivolo_lite.shards.scan import index_shards
from tests.shards.tiny_shards import make_shards, sample, write_shard


@pytest.fixture(scope="module")
def indexes(tmp_path_factory):
    """Shards to calibrate on, and others to evaluate on."""
    return [make_shards(tmp_path_factory.mktemp(name), [size]) for name, size in (("one", 60), ("other", 45))]


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    card = Card(
        {"name": "single", "backbone": "test_resnet"}, {"name": "classification"}, {"min_age": 0, "max_age": 100}, 32
    )
    estimator = Estimator(card)
    torch.nn.init.normal_(estimator.gender_head.weight, std=2)
    estimator.save(tmp_path / "best")
    return tmp_path / "best"


def rows_of(folder):
    with open(folder / "predictions.csv", newline="") as file:
        return [row for row in csv.DictReader(file) if row["age_pred"]]


def test_the_card_has_what_was_fitted_and_the_weights_stay(checkpoint, indexes, capsys):
    weights = (checkpoint / MODEL_FILE).read_bytes()
    before = yaml.safe_load((checkpoint / "model.yaml").read_text())
    assert before.pop("calibration") == {}
    main(["calibrate", "--checkpoint", f"{checkpoint}", "--data", f"{indexes[0].folder}", "--level", "0.8",
          "--workers", "0"])  # fmt: skip
    out = capsys.readouterr().out
    after = yaml.safe_load((checkpoint / "model.yaml").read_text())
    calibration = after.pop("calibration")
    assert after == before and (checkpoint / MODEL_FILE).read_bytes() == weights
    assert (
        calibration["data_digest"] == indexes[0].digest and calibration["level"] == 0.8 and calibration["by"] == "all"
    )
    assert f"80% of ages lie within {calibration['radius']:.2f} years" in out and "gender logits" in out
    assert sorted(path.name for path in checkpoint.iterdir()) == ["model.safetensors", "model.yaml"]


def test_evaluation_gives_each_estimate_its_interval_and_says_how_often_it_holds(checkpoint, indexes, tmp_path):
    radius = calibrate(checkpoint, indexes[0].folder, 0.8)["radius"]
    metrics = evaluate(checkpoint, indexes[1].folder, tmp_path / "out", report=False)
    inside, width = [], []
    for row in rows_of(tmp_path / "out"):
        age, lower, upper = (float(row[name]) for name in ("age_pred", "age_lower", "age_upper"))
        assert (lower, upper) == pytest.approx((max(age - radius, 0), min(age + radius, 120)), abs=2e-4)
        if row["age"]:
            lo, hi = (float(end) for end in (row["age"].split(";") * 2)[:2])
            inside.append(lo <= upper and hi >= lower)
            width.append(upper - lower)
    assert len(inside) < 30 and metrics["age_intervals"]["coverage"] is None, "too few for a figure"
    assert metrics["age_intervals"]["nominal"] == 0.8 and metrics["age_intervals"]["n"] == len(inside)
    assert metrics["calibrated_on_these_images"] is False
    again = evaluate(checkpoint, indexes[0].folder, tmp_path / "again", report=False)
    assert again["calibrated_on_these_images"] is True
    (tmp_path / "list").write_text(indexes[0].key(3))
    fewer = evaluate(checkpoint, indexes[0].folder, tmp_path / "fewer", report=False, exclude=tmp_path / "list")
    assert fewer["calibrated_on_these_images"] is True
    again["age_intervals"] |= {"coverage": 0.8, "width": 9.0}  # as of enough images
    assert "9.0 years wide; calibrated on these images, so no evidence" in metrics_table(again)


def test_the_interval_covers_at_least_what_it_promises_of_its_own_images(checkpoint, indexes, tmp_path):
    calibrate(checkpoint, indexes[0].folder, 0.8)
    evaluate(checkpoint, indexes[0].folder, tmp_path / "out", report=False)
    inside = [
        float(row["age"].split(";")[0]) <= float(row["age_upper"]) + 1e-3
        and float(row["age"].split(";")[-1]) >= float(row["age_lower"]) - 1e-3
        for row in rows_of(tmp_path / "out")
        if row["age"]
    ]
    assert len(inside) > 20 and 0.8 <= np.mean(inside) < 0.9


def test_the_temperature_divides_the_logits_and_is_not_applied_twice(checkpoint, indexes, tmp_path):
    evaluate(checkpoint, indexes[0].folder, tmp_path / "before", report=False)
    first = calibrate(checkpoint, indexes[0].folder)
    evaluate(checkpoint, indexes[0].folder, tmp_path / "after", report=False)
    temperature = first["gender_temperature"]
    assert temperature != 1
    before, after = (
        np.array([float(row["gender_prob"]) for row in rows_of(tmp_path / name)]) for name in ("before", "after")
    )
    usual = (before > 1e-3) & (before < 1 - 1e-3)
    logit = np.log(before[usual] / (1 - before[usual]))
    np.testing.assert_allclose(after[usual], 1 / (1 + np.exp(-logit / temperature)), atol=2e-3)
    assert calibrate(checkpoint, indexes[0].folder) == first


def test_images_without_genders_leave_the_temperature(checkpoint, indexes, tmp_path, capsys):
    temperature = calibrate(checkpoint, indexes[0].folder)["gender_temperature"]
    (tmp_path / "ages").mkdir()
    ages = [replace(one, labels=replace(one.labels, gender=None)) for one in map(sample, range(60))]
    write_shard(tmp_path / "ages" / "a.tar", ages)
    index_shards(tmp_path / "ages")
    main(["calibrate", "--checkpoint", f"{checkpoint}", "--data", f"{tmp_path / 'ages'}", "--workers", "0"])
    assert f"gender logits are divided by {temperature:.3f} as before" in capsys.readouterr().out
    calibration = Estimator.load(checkpoint).card.calibration
    assert calibration["gender_temperature"] == temperature and calibration["gender_n"] == 0


def test_intervals_by_subgroup_are_those_of_the_subgroup(checkpoint, indexes, tmp_path):
    calibration = calibrate(checkpoint, make_shards(tmp_path / "many", [240]).folder, 0.8, by="group")
    assert set(calibration["radii"]) == {"x", "y"}
    evaluate(checkpoint, indexes[1].folder, tmp_path / "out", report=False)
    for row in rows_of(tmp_path / "out"):
        radius = calibration["radii"][row["group"]]
        assert float(row["age_upper"]) == pytest.approx(min(float(row["age_pred"]) + radius, 120), abs=2e-4)


def test_calibrated_with_mirror_images_the_checkpoint_estimates_with_them(checkpoint, indexes, tmp_path):
    plain, flipped = (
        evaluate(checkpoint, indexes[1].folder, tmp_path / tta, report=False, tta=tta) for tta in ("none", "flip")
    )
    calibrate(checkpoint, indexes[0].folder, 0.8, tta="flip")
    assert Card.load(checkpoint).tta == "flip"
    after = evaluate(checkpoint, indexes[1].folder, tmp_path / "after", report=False)
    asked = evaluate(checkpoint, indexes[1].folder, tmp_path / "asked", report=False, tta="none")
    assert after["tta"] == "flip" and after["mae"] == flipped["mae"] != plain["mae"]
    assert "tta" not in asked and asked["mae"] == plain["mae"]


def test_what_cannot_be_calibrated_on_is_one_line(checkpoint, indexes, tmp_path, capsys):
    card = Estimator.load(checkpoint).card
    with pytest.raises(UserError, match="too few for intervals of level 0.99"):
        calibrate(checkpoint, indexes[0].folder, 0.99)
    estimator = Estimator.load(checkpoint)
    replace(estimator.card, age=False).save(checkpoint)
    with pytest.raises(UserError, match="it learnt no ages, so it has no age intervals; give another one"):
        calibrate(checkpoint, indexes[0].folder)
    estimator.card.data_digest = indexes[0].digest
    estimator.card.save(checkpoint)
    with pytest.raises(UserError, match="was trained on these images"):
        calibrate(checkpoint, indexes[0].folder)
    assert Estimator.load(checkpoint).card.calibration == card.calibration == {}
    for words in (["--level", "1.5"], ["--by", "height"]):
        with pytest.raises(SystemExit) as stop:
            main(["calibrate", "--checkpoint", f"{checkpoint}", "--data", f"{indexes[0].folder}", *words])
        assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "trained, folds, is_seen",
    [
        ("{data}", None, True),  # with data.exclude, the digest in the card is another one
        ("[other, {{path: {data}/../DATA, folds: [0, 1, 2, 3]}}]", None, True),
        ("{{path: {data}, folds: [0, 1, 2, 3]}}", [3, 4], True),
        ("{{path: {data}, folds: [0, 1, 2, 3]}}", [4], False),
        ("other", None, False),
    ],
)
def test_a_part_of_the_training_data_is_noticed_as_well(trained, folds, is_seen, checkpoint, tmp_path):
    samples = [sample(number) for number in range(150)]
    folded = [replace(one, labels=replace(one.labels, extra={"fold": n % 5})) for n, one in enumerate(samples)]
    (tmp_path / "DATA").mkdir()
    write_shard(tmp_path / "DATA" / "a.tar", folded)
    index_shards(tmp_path / "DATA")
    config = f"data: {{train: {trained.format(data=tmp_path / 'DATA')}}}\n"
    (tmp_path / "config.yaml").write_text(config)
    metrics = evaluate(checkpoint, tmp_path / "DATA", tmp_path / "out", report=False, folds=folds)
    assert metrics["data"].get("trained_on", False) is is_seen
    assert ("The model was trained on these images" in metrics_table(metrics)) is is_seen
    if is_seen:
        with pytest.raises(UserError, match="DATA: the model was trained on these images"):
            calibrate(checkpoint, tmp_path / "DATA", 0.5, folds=folds)
    else:
        assert 0 < calibrate(checkpoint, tmp_path / "DATA", 0.5, folds=folds)["n"] <= (20 if folds else 150)


def test_a_copy_that_cannot_be_written_is_noticed_before_the_work(checkpoint, indexes, tmp_path, monkeypatch):
    monkeypatch.setattr("mivolo_lite.evaluation.calibration.calibrate.predict", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: cannot be written"):
        calibrate(checkpoint, indexes[0].folder, out=tmp_path / "file")


def test_the_packages_own_checkpoint_stays_as_it_is(indexes):
    with pytest.raises(UserError, match="part of the package; give --out"):
        calibrate("default", indexes[0].folder)


def test_checkpoints_from_before_there_were_calibrations_load(checkpoint, indexes, tmp_path):
    card = yaml.safe_load((checkpoint / "model.yaml").read_text())
    del card["calibration"]
    (checkpoint / "model.yaml").write_text(yaml.safe_dump(card))
    metrics = evaluate(checkpoint, indexes[1].folder, tmp_path / "out", report=False)
    assert metrics["age_intervals"] is None and "calibrated_on_these_images" not in metrics
    json.dumps(metrics, allow_nan=False)
