"""Cross-validation by real trainings: every sample is estimated once, by a model that never saw its fold."""

import csv
import json

import pytest
import yaml

from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.experiments.crossval import cross_validate
from tests.experiments.test_seeds import SMALL


@pytest.mark.slow
def test_every_sample_is_estimated_once_by_a_model_that_never_saw_it(tmp_path, capfd):
    main(["pack", "people", "--count", "60", "--folds", "2", "--out", f"{tmp_path}/data", "--workers", "1"])
    (data,) = (path for path in (tmp_path / "data").iterdir() if path.is_dir())
    words = ["--run", f"{tmp_path}/run", "--data.train", str(data), *SMALL]
    main(["crossval", *words, "--folds", "2", "--workers", "0"])
    table = capfd.readouterr().out
    keys = []
    for fold in (0, 1):
        config = yaml.safe_load((tmp_path / f"run/fold-{fold}/config.yaml").read_text())["data"]
        assert config["train"][0]["folds"] == [1 - fold] and config["val"]["folds"] == [fold]
        with open(tmp_path / f"run/fold-{fold}/evaluation/predictions.csv", newline="") as file:
            keys += [row["key"] for row in csv.DictReader(file)]
    with open(tmp_path / "run/evaluation/predictions.csv", newline="") as file:
        pooled = list(csv.DictReader(file))
    assert [row["key"] for row in pooled] == keys and len(set(keys)) == 60
    error = sum(abs(float(row["age_pred"]) - float(row["age"])) for row in pooled) / 60
    metrics = json.loads((tmp_path / "run/evaluation/metrics.json").read_text())
    assert metrics["mae"] == pytest.approx(error, abs=1e-3) and f"{error:.2f}" in table
    assert (tmp_path / "run/evaluation/report.html").is_file()


def test_several_data_sets_have_no_folds_in_common(tmp_path):
    with pytest.raises(UserError, match="names several data sets"):
        cross_validate(["--run", f"{tmp_path}/run", "--data.train", "[a, b]"], 2)
