"""Several checkpoints on several data sets: the matrix, and that each pair is the evaluation that it would be alone."""

import csv
import json
import re
import shutil

import pytest
import torch

from mivolo_lite.card import NO_AGES
from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.evaluation import evaluation_report
from mivolo_lite.evaluation.evaluate import evaluate
from mivolo_lite.evaluation.headline import between
from mivolo_lite.evaluation.matrix import evaluate_all, matrix_table
from mivolo_lite.evaluation.short_names import short_names
from mivolo_lite.packing.crops import CropRules
from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.people import PeopleSource

SIDE = 32


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two untrained models of synthetic people, in the folders of runs."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("x", "y")):
        torch.manual_seed(seed)
        model = {"name": "single", "backbone": "test_resnet"}
        card = Card(model, {"name": "classification"}, {"min_age": 0, "max_age": 100}, SIDE)
        Estimator(card).save(folder / name / "best")
    return folder


@pytest.fixture(scope="module")
def found(runs, people, tmp_path_factory):
    """What the command wrote of two checkpoints on two data sets, reports and all but for their plots."""
    out = tmp_path_factory.mktemp("matrix") / "out"
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("age", "subgroup", "gender", "confidence", "threshold", "robustness"):
            patch.setattr(f"mivolo_lite.evaluation.report_sections.{kind}_plots", lambda *_: [])
        main(["evaluate", "--checkpoint", f"{runs}/x/best", f"{runs}/y/best", "--data", f"{people}/val",
              f"{people}/train", "--out", f"{out}", "--workers", "0", "--robustness", "yes",
              "--robustness_samples", "2"])  # fmt: skip
    return out


def rows_of(folder, checkpoint):
    (row,) = [
        row for row in json.loads((folder / "matrix.json").read_text())["rows"] if row["checkpoint"] == checkpoint
    ]
    return row


@pytest.mark.slow
def test_one_evaluation_and_a_matrix_leave_no_files_of_each_other(runs, people, tmp_path):
    one, val = f"{runs}/x/best", f"{people}/val"
    evaluate(one, val, tmp_path, report=False)
    evaluate_all([one, f"{runs}/y/best"], [val], tmp_path, report=False)
    files = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert files == {"matrix.json", "matrix.csv", "report.html"}
    evaluate(one, val, tmp_path, report=False)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"metrics.json", "predictions.csv"}


def test_every_pair_is_there_as_if_it_had_been_evaluated_alone(found, runs, people, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation_report, "write_evaluation_report", lambda *_: None)
    checkpoints, sets = (f"{runs.name}-x", f"{runs.name}-y"), ("people-val", "people-train")
    matrix = json.loads((found / "matrix.json").read_text())
    assert [row["checkpoint"] for row in matrix["rows"]] == list(checkpoints) and list(matrix["data"]) == list(sets)
    assert {path.name for path in found.iterdir() if path.is_dir()} == {
        f"{c}_on_{s}" for c in checkpoints for s in sets
    }
    for checkpoint in checkpoints:
        for name in sets:
            cell = rows_of(found, checkpoint)["cells"][name]
            metrics = json.loads((found / cell["folder"] / "metrics.json").read_text())
            assert (cell["mae"], cell["n"], cell["mae_interval"]) == (
                metrics["mae"], metrics["n"], metrics["intervals"]["mae"]
            )  # fmt: skip
            assert cell["mean_relative_degradation"] == metrics["robustness"]["mean_relative_degradation"]
            assert metrics["data"]["digest"] == matrix["data"][name]["digest"]
    alone = evaluate(f"{runs}/y/best", f"{people}/val", tmp_path)
    cell = rows_of(found, checkpoints[1])["cells"]["people-val"]
    assert alone == {
        name: value
        for name, value in json.loads((found / cell["folder"] / "metrics.json").read_text()).items()
        if name != "robustness"
    }
    assert (tmp_path / "predictions.csv").read_text() == (found / cell["folder"] / "predictions.csv").read_text()
    maes = [cell["mae"] for row in matrix["rows"] for cell in row["cells"].values()]
    assert len(set(maes)) == 4 and matrix["data"]["people-val"]["samples"] == alone["n"]


def test_the_table_and_the_csv_say_the_same(found):
    matrix = json.loads((found / "matrix.json").read_text())
    with open(found / "matrix.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    text = matrix_table(matrix).splitlines()
    assert text[0].split() == ["MAE", *matrix["data"]] and len(text) == 1 + 2 * len(matrix["rows"])
    for place, (line, row) in enumerate(zip(lines, matrix["rows"], strict=True)):
        cells = row["cells"].values()
        assert text[1 + 2 * place].split() == [row["checkpoint"], *(f"{cell['mae']:.2f}" for cell in cells)]
        assert text[2 + 2 * place].split() == [f"n={cell['n']}" for cell in cells]
        assert line["checkpoint"] == row["checkpoint"]
        for name, cell in row["cells"].items():
            assert (line[f"{name} mae"], line[f"{name} n"]) == (f"{cell['mae']:.4f}", f"{cell['n']}")


def test_the_page_leads_to_every_report_and_asks_for_nothing_else(found):
    text = (found / "report.html").read_text()
    links = re.findall(r'(?:src|href)="(?!data:)([^"]*)"', text)
    links = [link for link in links if not link.startswith("#")]
    assert len(links) == 4 + 2 and all((found / link).is_file() for link in links)
    assert {"matrix.json", "matrix.csv"} < set(links) and "<td>32 px</td>" in text and "lower is better" in text.lower()
    assert "<script" not in text and "@import" not in text
    for row in json.loads((found / "matrix.json").read_text())["rows"]:
        for cell in row["cells"].values():
            assert f"{cell['mae']:.2f}" in text and f"n={cell['n']}" in text
            assert f"{cell['mean_relative_degradation']:+.1%}" in text and "n=2<" in text  # --robustness_samples 2
            assert between(cell["gender_accuracy_interval"], ".1%") in text and f"n={cell['gender_n']}" in text


def test_a_cell_of_images_that_the_model_was_trained_on_is_marked():
    figures = {"n": 30, "mae_interval": None, "folder": "x_on_seen"}
    cells = {"seen": figures | {"mae": 0.5, "trained_on": True}, "new": figures | {"mae": 5.0}}
    described = {name: {"folder": name, "digest": "0" * 64, "samples": 30} for name in cells}
    matrix = {"data": described, "rows": [{"checkpoint": "x", "folder": "x", "inputs": None, "cells": cells}]}
    lines = matrix_table(matrix).splitlines()
    assert lines[1].split() == ["x", "0.50*", "5.00"] and lines[-1].startswith(
        "* The model was trained on these images"
    )


def test_errors_that_are_no_measure_of_a_model_are_said_of_the_pair():
    figures = {"n": 30, "mae": 5.0, "mae_interval": None, "folder": "x_on_val"}
    cells = {"val": figures | {"no_ages": True, "tta": "flip"}, "test": figures | {"no_ages": True}}
    rows = [{"checkpoint": "x", "folder": "x", "inputs": inputs, "cells": cells} for inputs in ("face", "both")]
    lines = matrix_table({"data": dict.fromkeys(cells), "rows": rows}).splitlines()
    assert lines[-2] == f"x on val, x on test: {NO_AGES}"
    assert lines[-1].startswith("x on val: The estimates are with --tta flip")


@pytest.mark.slow
def test_inputs_have_rows_of_their_own(runs, people, tmp_path):
    matrix = evaluate_all(
        [f"{runs}/x/best"], [f"{people}/val", f"{people}/train"], tmp_path, inputs="face", report=False
    )
    (row,) = matrix["rows"]
    assert row["inputs"] == "face" and (tmp_path / row["cells"]["people-val"]["folder"] / "metrics.json").is_file()
    assert matrix_table(matrix).splitlines()[1].startswith(f"{runs.name}-x (face)")
    assert re.findall(r'<a href="(?!#)([^"]*)', (tmp_path / "report.html").read_text()) == ["matrix.json", "matrix.csv"]


@pytest.mark.parametrize(
    "folders, names",
    [
        (["runs/a/val", "runs/b/val"], ["a-val", "b-val"]),
        (["a/x/val", "b/x/val"], ["a-x-val", "b-x-val"]),
        (["val", "x/val"], ["val", "x-val"]),
        (["../val", "/val/"], None),
        (["s3://one/set/val", "s3://two/set/val"], ["one-set-val", "two-set-val"]),
        (["a/val", "a//val"], None),
    ],
)
def test_names_tell_the_folders_apart(folders, names):
    if names is None:
        with pytest.raises(UserError, match="--data .*given twice"):
            short_names(folders, "--data")
    else:
        assert short_names(folders, "--data") == names


def test_what_is_missing_or_damaged_is_told_before_anything_is_evaluated(runs, people, tmp_path, capsys):
    damaged = shutil.copytree(f"{runs}/y/best", tmp_path / "damaged") / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    for checkpoint, data, message in (
        (f"{runs}/z/best", f"{people}/val", "z/best: no model"),
        (f"{damaged.parent}", f"{people}/val", "model.safetensors: damaged"),
        (f"{runs}/y/best", f"{people}/test", "test: no such folder"),
        (f"{runs}/x/best", f"{people}/val", "given twice"),
        (f"{runs}/y/best", f"{people}/val", "looks at the face alone"),
    ):
        inputs = "both" if "face" in message else "face"
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", "--checkpoint", f"{runs}/x/best", checkpoint, "--data", f"{people}/train", data,
                  "--out", f"{tmp_path}/o", "--inputs", inputs])  # fmt: skip
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.count("\n") == 1 and message in error
        assert not (tmp_path / "o").exists()


def test_a_data_set_without_the_images_of_a_checkpoint_is_named_before_anything_is_evaluated(runs, tmp_path):
    model = {"name": "single", "input": "body", "backbone": "test_resnet"}
    Estimator(Card(model, {"name": "classification"}, {"min_age": 0, "max_age": 100}, SIDE)).save(tmp_path / "body")
    faces = PeopleSource(count=4, crop_size=64)
    faces.rules = CropRules(crop_size=64, min_body=10_000)
    pack(faces, tmp_path / "faces", {"val": 1.0})
    with pytest.raises(UserError, match=f"faces/val: no sample has a body, which is all that {tmp_path}/body looks at"):
        evaluate_all([f"{runs}/x/best", f"{tmp_path}/body"], [f"{tmp_path}/faces/val"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
