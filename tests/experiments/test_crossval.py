"""Cross-validation by real trainings: every sample is estimated once, by a model that never saw its fold."""

import csv
import json
from types import SimpleNamespace

import pytest
import yaml

from mivolo_lite.card import Card
from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.experiments.crossval import CrossValidation, cross_validate, crossval_table
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.selection import load_selected
from tests.experiments.test_seeds import SMALL
from tests.forked import popen_forked


@pytest.mark.slow
def test_every_sample_is_estimated_once_by_a_model_that_never_saw_it(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("mivolo_lite.distributed.preemption.subprocess", SimpleNamespace(Popen=popen_forked))
    main(["pack", "people", "--count", "60", "--folds", "2", "--out", f"{tmp_path}/data", "--workers", "1"])
    (data,) = (path for path in (tmp_path / "data").iterdir() if path.is_dir())
    excluded = ShardIndex.load(data).key(0)
    (tmp_path / "exclude.txt").write_text(f"{excluded}\n")
    words = ["--run", f"{tmp_path}/run", "--data.train", str(data), "--data.exclude", f"{tmp_path}/exclude.txt", *SMALL]
    main(["crossval", *words, "--folds", "2", "--workers", "0"])
    table = capfd.readouterr().out
    keys = []
    for fold in (0, 1):
        config = yaml.safe_load((tmp_path / f"run/fold-{fold}/config.yaml").read_text())["data"]
        assert config["train"][0]["folds"] == [1 - fold] and config["val"]["folds"] == [fold]
        evaluated = json.loads((tmp_path / f"run/fold-{fold}/evaluation/metrics.json").read_text())["checkpoint"]
        assert "fold-" in evaluated and "/checkpoints/step-" in evaluated  # the last weights, not the best
        with open(tmp_path / f"run/fold-{fold}/evaluation/predictions.csv", newline="") as file:
            keys += [row["key"] for row in csv.DictReader(file)]
    with open(tmp_path / "run/evaluation/predictions.csv", newline="") as file:
        pooled = list(csv.DictReader(file))
    assert [row["key"] for row in pooled] == keys and len(set(keys)) == 59 and excluded not in keys
    error = sum(abs(float(row["age_pred"]) - float(row["age"])) for row in pooled) / 59
    metrics = json.loads((tmp_path / "run/evaluation/metrics.json").read_text())
    assert metrics["mae"] == pytest.approx(error, abs=1e-3) and f"{error:.2f}" in table
    assert (tmp_path / "run/evaluation/report.html").is_file()
    said = metrics["data"]
    assert (
        said["excluded"] == 1
        and said["folds"] == [0, 1]
        and said["digest"] == load_selected(data, exclude=tmp_path / "exclude.txt").digest
    )
    with pytest.raises(UserError, match="fold-0: holds a training with another optim.lr; choose another --run"):
        cross_validate([*words, "--optim.lr", "0.1"], 2)
    with pytest.raises(UserError, match="--folds 3: .* has the folds 0, 1"):
        cross_validate(words, 3)
    before = (tmp_path / "run/fold-0/metrics.jsonl").read_text()
    cross_validate(words, 2, workers=0, tta="flip")
    flipped = json.loads((tmp_path / "run/evaluation/metrics.json").read_text())
    assert flipped["tta"] == "flip" and "tta" not in metrics and flipped["checkpoint"] == f"{tmp_path}/run"
    assert flipped["mae"] != metrics["mae"] and (tmp_path / "run/fold-0/metrics.jsonl").read_text() == before


def test_a_fold_without_genders_stays_in_the_table():
    folds = [{"mae": 4.0, "cs5": 0.75, "gender_accuracy": accuracy} for accuracy in (0.8, None, 0.9)]
    pooled = {"n": 90, "mae": 4.0, "cs5": 0.75, "gender_accuracy": 0.86, "gender_n": 50}
    *_, gender, _, _ = crossval_table(CrossValidation(folds, pooled)).splitlines()
    assert gender.split()[2:] == ["50", "86.0%", "85.0%", "7.1%", "80.0%,", "-,", "90.0%"]
    folds[0]["gender_accuracy"] = None
    assert "86.0%                  -, -, 90.0%" in crossval_table(CrossValidation(folds, pooled))


def test_the_error_on_the_fold_decides_nothing(tmp_path):
    for words in (["--train.patience", "3"], ["--optim.schedule", "plateau"]):
        with pytest.raises(UserError, match="go by the error on the fold"):
            cross_validate(["--run", f"{tmp_path}/run", "--data.train", "a", *words], 2)


def test_a_validation_set_is_one_line():
    with pytest.raises(UserError, match="--data.val: each model is evaluated on the fold that it left out"):
        cross_validate(["--run", "r", "--data.train", "a", "--data", "{val: b}"], 2)


def test_some_of_the_folds_are_one_line(tmp_path):
    with pytest.raises(UserError, match="crossval: data.train a, folds 0, 1: takes all of them; name the folder alone"):
        cross_validate(["--run", f"{tmp_path}/run", "--data.train", "[{path: a, folds: [0, 1]}]"], 3)


@pytest.mark.parametrize("option", ["--init_from {}", "--optim.teachers [{}]"])
def test_no_fold_is_new_to_a_model_that_was_trained_on_them_all(tmp_path, option):
    main(["pack", "people", "--count", "12", "--folds", "2", "--out", f"{tmp_path}/data", "--workers", "1"])
    (data,) = (path for path in (tmp_path / "data").iterdir() if path.is_dir())
    (before := tmp_path / "before").mkdir()
    Card({"name": "single"}, {"name": "dldl"}, {}, 64, data_digest=ShardIndex.load(data).digest).save(before)
    words = ["--run", f"{tmp_path}/run", "--data.train", f"{data}", *option.format(before).split()]
    with pytest.raises(UserError, match=f"crossval: {before} was trained on {data}, so no fold is new to it"):
        cross_validate(words, 2)


def test_the_evaluation_of_a_run_is_not_replaced(tmp_path):
    main(["pack", "people", "--count", "12", "--folds", "2", "--out", f"{tmp_path}/data", "--workers", "1"])
    (data,) = (path for path in (tmp_path / "data").iterdir() if path.is_dir())
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").touch()
    with pytest.raises(UserError, match=f"--run {tmp_path}/run: holds a run, whose evaluation it would replace"):
        cross_validate(["--run", f"{tmp_path}/run", "--data.train", f"{data}"], 2)


def test_several_data_sets_have_no_folds_in_common(tmp_path):
    with pytest.raises(UserError, match="names several data sets"):
        cross_validate(["--run", f"{tmp_path}/run", "--data.train", "[a, b]"], 2)
