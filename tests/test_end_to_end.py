"""The commands of the README, one after another, on a few synthetic people."""

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from mivolo_lite.cli import main
from mivolo_lite.shards.index import ShardIndex
from tests.shards.servers import RangeServer, serving
from tests.training.forked_ranks import run_launched

REPOSITORY = Path(__file__).parents[1]
SMALL = [
    "--model.backbone", "test_resnet", "--data.image_size", "32", "--data.workers", "0",
    "--optim.global_batch", "16", "--optim.epochs", "1",
]  # fmt: skip


def launch(*words):
    return subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--num_processes", "1", "--num_machines", "1",
         "--mixed_precision", "no", "--dynamo_backend", "no", "train.py", *map(str, words)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_train_through_accelerate_then_evaluate(people, tmp_path, capsys):
    run = tmp_path / "run"
    done = launch("--run", run, "--data.train", people / "train", "--data.val", people / "val", *SMALL)
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["backbone"] == "test_resnet" and config["optim"]["lr"] == 1e-3
    card = yaml.safe_load((run / "best" / "model.yaml").read_text())
    info = json.loads((people / "train" / "dataset.json").read_text())
    assert card["data_digest"] == info["digest"] and card["image_size"] == 32 and card["crop_policy"]

    main(["evaluate", "--checkpoint", f"{run}/best", "--data", f"{people}/val", "--out", f"{tmp_path}/out"])
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    samples = json.loads((people / "val" / "dataset.json").read_text())["samples"]
    assert metrics["n"] == len(rows) == len({row["key"] for row in rows}) == samples
    errors = [abs(float(row["age_pred"]) - float(row["age"])) for row in rows]
    assert metrics["mae"] == pytest.approx(sum(errors) / len(errors), abs=1e-3)
    assert metrics["mae"] == pytest.approx(card["metrics"]["mae"], abs=1e-3)
    assert "mean-age baseline" in capsys.readouterr().out


@pytest.mark.slow
def test_a_user_error_through_the_launcher_is_one_line(tmp_path):
    nothing = tmp_path / "nothing"
    done = launch("--run", tmp_path / "run", "--data.train", nothing, "--data.val", nothing)
    assert done.returncode != 0  # the launcher answers 1 for the command's 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("mivolo-lite:")]
    assert len(lines) == 1 and "no such folder" in lines[0] and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words, message",
    [
        (["trian"], "no such command; did you mean train?"),
        (["zip"], "no such command; there are predict, "),
        (["pack", "imdb"], "no source 'imdb'"),
        (["pack", "people", "--count", "x", "--out", "o"], "count"),
        (["evaluate", "--checkpoint", "nowhere", "--data", "d", "--out", "o"], "nowhere"),
        (["train", "--optim.lr", "1"], "run"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(words)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("mivolo-lite: ") and error.count("\n") == 1 and message in error
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif("UTKFACE_DIR" not in os.environ, reason="UTKFACE_DIR does not name UTKFace's images")
def test_real_faces_are_packed_and_read(tmp_path):
    main(["pack", "utkface", "--images", os.environ["UTKFACE_DIR"], "--out", f"{tmp_path}/utkface", "--workers", "2"])
    rejected = (tmp_path / "utkface" / "rejected.jsonl").read_text().splitlines()
    splits = [json.loads((tmp_path / "utkface" / name / "dataset.json").read_text()) for name in ("train", "val")]
    assert sum(split["samples"] for split in splits) + len(rejected) > 7000
    assert all("file name" in line for line in rejected) and len(rejected) < 10


@pytest.mark.slow
def test_a_run_from_a_url_is_the_run_from_the_folder(people, tmp_path):
    with serving(RangeServer(people)) as server:
        for name, address in (("disk", people), ("url", server.url)):
            data = ["--data.train", f"{address}/train", "--data.val", f"{address}/val"]
            options = [*SMALL, "--data.block_samples", "8", "--data.cache.folder", f"{tmp_path}/cache"]
            words = ["train", "--run", f"{tmp_path}/{name}", *data, *options]
            codes, said = run_launched("single", 1, main, (words,), tmp_path)
            assert codes == [0] and "Unclosed" not in said, said
        weights = [load_file(tmp_path / name / "best" / "model.safetensors") for name in ("disk", "url")]
        assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
        asked = ["--data", f"{server.url}/val", "--cache.folder", f"{tmp_path}/cache", "--workers", "0"]
        main(["evaluate", "--checkpoint", f"{tmp_path}/url/best", *asked, "--out", f"{tmp_path}/out"])
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    card = yaml.safe_load((tmp_path / "disk" / "best" / "model.yaml").read_text())
    assert metrics["mae"] == pytest.approx(card["metrics"]["mae"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.skipif("FAIRFACE_DIR" not in os.environ, reason="FAIRFACE_DIR does not name FairFace's images")
def test_real_faces_and_bodies_with_ages_as_ranges_are_packed_trained_on_and_evaluated(tmp_path):
    images, data, run, out = Path(os.environ["FAIRFACE_DIR"]), tmp_path / "data", tmp_path / "run", tmp_path / "out"
    main(["pack", "fairface", "--images", f"{images}", "--csv", f"{images}/labels.csv", "--out", f"{data}",
          "--split", "train=0.74,val=0.26", "--workers", "2"])  # fmt: skip
    with open(images / "labels.csv", newline="") as file:
        labelled = Counter(row["age"] for row in csv.DictReader(file))
    train, val = (ShardIndex.load(data / split) for split in ("train", "val"))
    packed = Counter()
    for index in (train, val):
        packed += Counter(zip(index.columns["age_lo"].tolist(), index.columns["age_hi"].tolist(), strict=True))
    assert not (data / "rejected.jsonl").read_text() and len(train) + len(val) == labelled.total()
    ages = {
        age: (float(age.split("-")[0].rstrip("+")), float(age.split("-")[-1].replace("70+", "100"))) for age in labelled
    }
    assert packed == {ages[age]: count for age, count in labelled.items()}
    assert 0.6 < len(train) / labelled.total() < 0.85

    main([
        "train", "--run", f"{run}", "--data.train", f"{data}/train", "--data.val", f"{data}/val", "--data.image_size",
        "64", "--data.workers", "0", "--data.drop_face", "0.3", "--data.drop_body", "0.1", "--model", "dual",
        "--model.dim", "64", "--model.face", "test_resnet", "--model.body", "test_resnet", "--optim.epochs", "3",
        "--optim.global_batch", "20",
    ])  # fmt: skip
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in log if line["kind"] == "train"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]

    main(["evaluate", "--checkpoint", f"{run}/best", "--data", f"{data}/val", "--out", f"{out}",
          "--inputs", "face,body,both", "--workers", "0"])  # fmt: skip
    sections = json.loads((out / "metrics.json").read_text())["inputs"]
    without_body = int((val.columns["body_size"] == 0).sum())
    assert {name: section["missing"] for name, section in sections.items()} == {
        "face": 0, "body": without_body, "both": 0
    }  # fmt: skip
    for section in sections.values():
        assert section["n"] + section["missing"] == len(val)
        assert np.isfinite([section[name] for name in ("mae", "cs5", "bias", "gender_accuracy")]).all()
    with open(out / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == [val.key(number) for number in range(len(val))]
    assert {row["age"] for row in rows} <= {f"{lo:g};{hi:g}" for lo, hi in ages.values()}
