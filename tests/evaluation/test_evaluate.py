"""One model with each of its inputs: what is shown, what is hidden, and what cannot be estimated."""

import csv
import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from mivolo_lite.cli import main
from mivolo_lite.distributed.accelerator import forget_earlier_run
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.evaluation.evaluate import INPUT_SETS, evaluate
from mivolo_lite.evaluation.table import metrics_table
from mivolo_lite.files import save_tensors
from mivolo_lite.loading.dataset import ShardDataset
from mivolo_lite.reporting.plot_folder import LIST
from mivolo_lite.shards.sample_ref import SampleRef
from tests.evaluation.untrained import SIDE, save
from tests.shards.tiny_shards import damage, make_shards

pytestmark = pytest.mark.usefixtures("no_drawing")

SAMPLES = 30
HAS = {"face": (0, 2), "body": (1, 2), "both": (0, 1, 2)}  # of the three types of samples in the tiny shards
TRUTH = ["key", "age", "gender", "group"]


def rows_of(folder):
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_each_column_is_the_model_shown_these_images_alone(dual, index, tmp_path):
    metrics = evaluate(dual, index.folder, tmp_path, "face,body,both", batch=7)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert list(metrics["inputs"]) == ["face", "body", "both"] and set(metrics) == {"checkpoint", "data", "inputs"}
    rows = rows_of(tmp_path)
    assert list(rows[0]) == [
        "key", "age", "age_pred_face", "age_pred_body", "age_pred_both",
        "gender", "gender_prob_face", "gender_prob_body", "gender_prob_both", "group",
        "age_spread_face", "age_spread_body", "age_spread_both",
    ]  # fmt: skip
    estimator = Estimator.load(dual)
    for name, shown in INPUT_SETS.items():
        dataset = ShardDataset(index, shown, SIDE)
        for number, row in enumerate(rows):
            assert row["key"] == index.key(number)
            if number % 3 not in HAS[name]:
                assert row[f"age_pred_{name}"] == row[f"gender_prob_{name}"] == row[f"age_spread_{name}"] == ""
                continue
            with torch.inference_mode():
                age, gender = estimator.estimate(estimator(**dataset.read([SampleRef(0, number)]).images()))
            assert float(row[f"age_pred_{name}"]) == pytest.approx(age.age.item(), abs=1e-3)
            ages = np.arange(101.0)
            spread = np.sqrt(np.cov(ages, aweights=age.probability[0].double().numpy(), ddof=0))
            assert float(row[f"age_spread_{name}"]) == pytest.approx(spread, abs=1e-2)
            assert float(row[f"gender_prob_{name}"]) == pytest.approx(gender[0, 1].item(), abs=1e-5)


def test_samples_without_the_image_are_counted_apart(dual, index, tmp_path):
    metrics = evaluate(dual, index.folder, tmp_path, "body,both")
    rows = rows_of(tmp_path)
    known_age = ~np.isnan(index.columns["age_lo"])
    kind = np.arange(SAMPLES) % 3
    for name, section in metrics["inputs"].items():
        seen = np.isin(kind, HAS[name])
        assert section["missing"] == (~seen).sum() and section["n"] == (seen & known_age).sum()
        assert section["gender_n"] == sum(bool(row["gender"]) for row, there in zip(rows, seen, strict=True) if there)
        errors = [
            max(float(lo) - float(row[f"age_pred_{name}"]), float(row[f"age_pred_{name}"]) - float(hi), 0)
            for row, there in zip(rows, seen, strict=True)
            if there and row["age"]
            for lo, hi in [(row["age"].split(";") * 2)[:2]]
        ]
        assert section["mae"] == pytest.approx(np.mean(errors), abs=1e-3)
        for kind_of_person in ("age", "gender", "group"):
            assert list(section["by"][kind_of_person]) == list(metrics["inputs"]["both"]["by"][kind_of_person])
    assert metrics["inputs"]["body"]["baseline_mae"] != metrics["inputs"]["both"]["baseline_mae"]


def test_without_inputs_the_files_are_as_they_always_were(dual, index, tmp_path):
    plain, both = tmp_path / "plain", tmp_path / "both"
    metrics = evaluate(dual, index.folder, plain)
    section = evaluate(dual, index.folder, both, "both")["inputs"]["both"]
    assert list(metrics)[:10] == [
        "checkpoint", "data", "n", "mae", "cs5", "bias", "gender_accuracy", "gender_n", "baseline_mae", "by"
    ]  # fmt: skip
    assert metrics | section | {"missing": 0} == metrics | {"missing": 0}
    rows = rows_of(plain)
    assert list(rows[0]) == ["key", "age", "age_pred", "gender", "gender_prob", "group", "age_spread"]
    assert [row["age_pred"] for row in rows] == [row["age_pred_both"] for row in rows_of(both)]


def test_the_precision_of_an_earlier_run_in_this_process_is_forgotten(dual, index, tmp_path):
    evaluate(dual, index.folder, tmp_path / "before")
    forget_earlier_run()
    Accelerator(cpu=True, mixed_precision="bf16")
    evaluate(dual, index.folder, tmp_path / "after")
    assert rows_of(tmp_path / "after") == rows_of(tmp_path / "before")


def test_the_half_precision_of_a_launcher_is_in_the_metrics(dual, index, tmp_path, monkeypatch):
    assert "precision" not in evaluate(dual, index.folder, tmp_path / "full")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert evaluate(dual, index.folder, tmp_path / "half")["precision"] == "bf16"
    assert rows_of(tmp_path / "half") != rows_of(tmp_path / "full")


def test_the_columns_stand_side_by_side(dual, index, tmp_path, capsys):
    (tmp_path / "o" / "plots").mkdir(parents=True)
    (tmp_path / "o" / "plots" / "of_an_earlier_run.png").write_bytes(b"")
    (tmp_path / "o" / "plots" / LIST).write_text("of_an_earlier_run.png")
    main(["evaluate", "--checkpoint", f"{dual}", "--data", f"{index.folder}", "--out", f"{tmp_path}/o",
          "--inputs", "face,both", "--workers", "0", "--report", "no"])  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["metrics.json", "predictions.csv"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["face", "both"] and lines[1].split() == ["n", "MAE", "CS@5", "bias"] * 2
    sections = json.loads((tmp_path / "o" / "metrics.json").read_text())["inputs"].values()
    expected = [f"{number}" for s in sections for number in (s["n"], f"{s['mae']:.2f}", f"{s['cs5']:.1%}")]
    words = next(line for line in lines if line.startswith("all")).split()
    assert [word for place, word in enumerate(words[1:]) if place % 4 != 3] == expected
    for label in ("20-29", "M", "x", "gender accuracy", "no such image", "mean-age MAE"):
        assert any(line.strip().startswith(label) for line in lines), label
    assert next(line for line in lines if line.startswith("no such")).split()[-2:] == ["10", "0"]


def test_a_hidden_image_is_not_even_read(dual, tmp_path):
    index = make_shards(tmp_path / "shards", [6])
    columns = index.columns
    for number in np.flatnonzero(columns["body_size"]):
        index = damage(index, number, "body")
    assert evaluate(dual, index.folder, tmp_path / "face", "face")["inputs"]["face"]["missing"] == 2
    both = evaluate(dual, index.folder, tmp_path / "both", "face,both")["inputs"]["both"]
    assert both["unreadable"]["n"] == (columns["body_size"] > 0).sum()


def test_an_image_that_cannot_be_decoded_is_missing_and_counted(dual, tmp_path, capsys):
    index = make_shards(tmp_path / "shards", [6])
    broken = int(np.flatnonzero((index.columns["face_size"] > 0) & (index.columns["body_size"] == 0))[0])
    damage(index, broken, "face")
    main(["evaluate", "--checkpoint", f"{dual}", "--data", f"{index.folder}", "--out", f"{tmp_path}/o", "--report",
          "no", "--workers", "0"])  # fmt: skip
    metrics = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert metrics["unreadable"]["n"] == metrics["missing"] == 1 and metrics["n"] < 6
    assert f"1 images cannot be decoded and count as missing: {index.key(broken)}.face" in capsys.readouterr().out


@pytest.mark.parametrize("inputs", ["body", "both", "face,both"])
def test_a_model_of_one_input_says_that_it_has_no_other(inputs, index, tmp_path, capsys):
    single = save({"name": "single", "backbone": "test_resnet"}, tmp_path / "single")
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--checkpoint", f"{single}", "--data", f"{index.folder}", "--out", f"{tmp_path}/o",
              "--inputs", inputs])  # fmt: skip
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and "looks at the face alone; ask for face" in error
    assert not (tmp_path / "o").exists()


def test_a_task_that_the_labels_do_not_fit_is_left_out_and_named(index, tmp_path, capsys):
    tasks = [{"name": "group", "classes": ["x", "z"]}, {"name": "number", "kind": "regression"}]
    single = save({"name": "single", "backbone": "test_resnet"}, tmp_path / "single", tasks=tasks)
    main(["evaluate", "--checkpoint", f"{single}", "--data", f"{index.folder}", "--out", f"{tmp_path}/o",
          "--workers", "0"])  # fmt: skip
    assert "task group is left out: 'y' is not one of its classes x, z" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert list(metrics["tasks_left_out"]) == ["group"] and "group_n" not in metrics and metrics["number_n"] == 20
    assert metrics["n"]


def test_an_option_of_robustness_alone_is_one_line(dual, index, tmp_path):
    with pytest.raises(UserError, match="--robustness_samples 5: give --robustness yes as well"):
        evaluate(dual, index.folder, tmp_path / "o", robustness_samples=5)


@pytest.mark.parametrize("inputs", ["head", "face,", "", "face body"])
def test_an_unknown_input_is_named(inputs, dual, index, tmp_path):
    with pytest.raises(UserError, match="is not one of face, body, both"):
        evaluate(dual, index.folder, tmp_path, inputs)


def test_a_model_of_one_input_does_not_guess_from_nothing(index, tmp_path):
    single = save({"name": "single", "backbone": "test_resnet", "input": "body"}, tmp_path / "single")
    metrics = evaluate(single, index.folder, tmp_path / "plain")
    assert metrics["missing"] == 10 and "10 samples have no such image" in metrics_table(metrics)
    section = evaluate(single, index.folder, tmp_path / "o", "body")["inputs"]["body"]
    assert section == {name: value for name, value in metrics.items() if name not in ("checkpoint", "data")}
    assert sum(row["age_pred"] == "" for row in rows_of(tmp_path / "plain")) == 10


def test_a_model_that_learnt_no_gender_has_none_in_the_evaluation(index, tmp_path):
    aged = save({"name": "single", "backbone": "test_resnet"}, tmp_path / "aged", gender=False)
    metrics = evaluate(aged, index.folder, tmp_path / "o")
    assert metrics["gender_accuracy"] is metrics["gender"] is None and metrics["gender_n"] == 0 < metrics["n"]
    assert {row["gender_prob"] for row in rows_of(tmp_path / "o")} == {""}


def test_data_that_the_model_cannot_see_and_estimates_that_are_none_are_told(tmp_path):
    single = save({"name": "single", "backbone": "test_resnet", "input": "body"}, tmp_path / "single")
    faces = make_shards(tmp_path / "faces", [1])
    with pytest.raises(UserError, match="no sample has a body, which is all that the model looks at$"):
        evaluate(single, faces.folder, tmp_path / "o")
    weights = load_file(single / "model.safetensors")
    save_tensors(weights | {"gender_head.bias": torch.full((2,), torch.nan)}, single / "model.safetensors")
    with pytest.raises(UserError, match="gender_head.bias is not finite, as after a training that diverged"):
        evaluate(single, make_shards(tmp_path / "shards", [3]).folder, tmp_path / "o")
