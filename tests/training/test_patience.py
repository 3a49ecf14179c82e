"""A run that no longer improves ends early, and stays ended."""

import json

import pytest

from mivolo_lite.cli import main
from mivolo_lite.training import loop

SMALL = [
    "--model.backbone", "test_resnet", "--data.image_size", "32", "--data.workers", "0",
    "--optim.global_batch", "16", "--optim.epochs", "4", "--train.eval_every", "0.5",
]  # fmt: skip


@pytest.mark.slow
def test_the_learning_rate_falls_on_a_plateau_also_in_a_resumed_run(people, tmp_path, monkeypatch):
    errors = iter([5.0, 5.0, 6.0, 5.0, 4.0])  # an equal one is no progress
    monkeypatch.setattr(loop, "validation_error", lambda metrics, unlearnt: next(errors))
    words = ["train", "--run", f"{tmp_path}/run", "--data.train", f"{people}/train", "--data.val", f"{people}/val"]
    words += [*SMALL, "--optim.schedule", "plateau", "--optim.plateau_patience", "0", "--optim.warmup_epochs", "0"]
    words += ["--optim.lr", "0.001", "--train.log_every", "1", "--train.eval_every", "1", "--optim.global_batch", "13"]
    main([*words, "--optim.epochs", "3"])
    main([*words, "--optim.epochs", "5", "--resume", "auto"])
    log = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    rates = [record["lr"] for record in log if record["kind"] == "train"]
    assert rates == pytest.approx([1e-3] * 10 + [1e-4] * 5 + [1e-5] * 5 + [1e-6] * 5)


@pytest.mark.slow
def test_it_ends_after_so_many_evaluations_without_a_new_best(people, tmp_path, monkeypatch, capfd):
    errors = [9.0, 8.0, 8.5, 7.0, 7.5, 7.5, 6.0, 6.0]
    measured = iter(errors)
    monkeypatch.setattr(loop, "validation_error", lambda metrics, unlearnt: next(measured))
    words = ["train", "--run", f"{tmp_path}/run", "--data.train", f"{people}/train", "--data.val", f"{people}/val"]
    words += [*SMALL, "--train.patience", "2"]
    main(words)
    log = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert sum(record["kind"] == "val" for record in log) == 6
    ends = [max(record["step"] for record in log if record["kind"] == kind) for kind in ("train", "val")]
    assert ends[0] == ends[1] and ends[0] % 10  # the losses after the last multiple of train.log_every are logged too
    text = capfd.readouterr().out
    assert (
        "train.patience 2: 2 evaluations without a lower error" in text
        and "complete: lowest validation error 7" in text
    )
    steps = max(record["step"] for record in log)
    main([*words, "--resume", "auto"])  # would ask for a seventh evaluation
    assert next(measured) == 6.0
    log = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert max(record["step"] for record in log) == steps and "complete" in capfd.readouterr().out
