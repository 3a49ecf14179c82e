"""Experiment trackers, by the real clients, offline."""

import json
import time

import pytest
from accelerate import PartialState

from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.training import trackers
from mivolo_lite.training.trackers import log_report, require_trackers, start_trackers, tracked_run
from tests.waiting import wait_until

CONFIG = {"run": "r", "optim": {"lr": 1e-3}, "tasks": [{"name": "mood"}]}


def log_and_finish(tracker, step):
    tracker.log({"val/mae": 10.0 - step}, step=step)
    tracker.finish()


def report_in(folder):
    report = folder / "evaluation"
    report.mkdir()
    (report / "report.html").write_text("<p>MAE 4</p>")
    return report


def logged_offline(folder):
    return b"".join(file.read_bytes() for file in folder.glob("wandb/offline-run-*/*.wandb"))


def test_tensorboard_drops_what_a_killed_run_logged_after_its_checkpoint(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (first,) = start_trackers(["auto", "tensorboard"], tmp_path, CONFIG, 0)
    for step in (1, 2, 3):
        first.log({"val/mae": float(step)}, step=step)
    first.finish()
    # TensorBoard reads the files of one second by name, where the 10th of a process precedes its 9th.
    time.sleep(1)
    log_and_finish(start_trackers(["tensorboard"], tmp_path, CONFIG, 1)[0], 2)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("val/mae")
    assert [(event.step, event.value) for event in events] == [(1, 1.0), (2, 8.0)]


@pytest.mark.slow
def test_wandb_offline_gets_metrics_and_configuration_and_resumes_one_run(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    PartialState()  # as a training or an evaluation has it
    monkeypatch.setenv("WANDB_MODE", "offline")
    for step in (1, 2):
        (tracker,) = start_trackers(["wandb"], tmp_path, CONFIG, step)
        assert wandb.config["optim.lr"] == 1e-3
        log_and_finish(tracker, step)
    ids = json.loads((tmp_path / "trackers.json").read_text())
    assert log_report(tracked_run(tmp_path / "best"), report_in(tmp_path)) == ["wandb"]
    # Offline, its service writes the last file after `finish` has returned.
    artifact = f"evaluation-{tmp_path.name}".encode()
    wait_until(
        lambda: artifact in logged_offline(tmp_path), 60, lambda: f"{artifact!r} in {logged_offline(tmp_path)!r}"
    )
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert runs and all(
        ids["wandb"] in run.name for run in runs
    )  # two runs of one second: the second's name ends in -1


@pytest.mark.slow
def test_mlflow_gets_metrics_and_configuration_and_resumes_one_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # its newest versions ask for a database otherwise
    mlflow.set_tracking_uri(f"file://{tmp_path}/mlruns")
    # A run that resumes says so in its options, and others may be new or have changed.
    resumed = CONFIG | {"resume": "auto", "optim": {"lr": 1e-4, "clip_norm": 1.0}}
    for step, config in ((1, CONFIG | {"resume": "no"}), (2, resumed)):
        (tracker,) = start_trackers(["mlflow"], tmp_path, config, step)
        log_and_finish(tracker, step)
    run_id = json.loads((tmp_path / "trackers.json").read_text())["mlflow"]
    client = mlflow.MlflowClient()
    assert [metric.value for metric in client.get_metric_history(run_id, "val/mae")] == [9.0, 8.0]
    data = client.get_run(run_id).data
    assert [data.params[f"optim.{name}"] for name in ("lr", "clip_norm")] == ["0.001", "1.0"]
    assert data.tags["optim.lr"] == "0.0001" and data.tags["resume"] == "auto" and "run" not in data.tags
    start_trackers(["mlflow"], tmp_path, CONFIG, 2)[0].finish()  # as it began
    assert client.get_run(run_id).data.tags["optim.lr"] == "0.001"
    assert log_report(tracked_run(tmp_path / "checkpoints" / "step-1"), report_in(tmp_path)) == ["mlflow"]
    assert [file.path for file in client.list_artifacts(run_id, "evaluation")] == ["evaluation/report.html"]
    assert len(client.search_runs([client.get_run(run_id).info.experiment_id])) == 1


def test_a_run_that_nobody_tracked_is_one_line(tmp_path):
    with pytest.raises(UserError, match="lies in no run that wandb or mlflow tracked"):
        tracked_run(tmp_path / "best")
    (tmp_path / "trackers.json").write_text("{}")
    with pytest.raises(UserError, match="lies in no run that wandb or mlflow tracked"):
        tracked_run(tmp_path / "best")
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--checkpoint", "a", "b", "--data", "d", "--out", "o", "--to_trackers", "yes"])
    assert stop.value.code == 2


def test_what_is_not_installed_or_does_not_start_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    require_trackers(["auto"])
    assert start_trackers(["auto"], tmp_path, CONFIG, 0) == []
    with pytest.raises(UserError, match="wandb is not installed; pip install wandb"):
        require_trackers(["wandb"])

    def fail(*arguments):
        raise RuntimeError("no API key\nrun wandb login")

    monkeypatch.setitem(trackers._START, "wandb", fail)
    with pytest.raises(UserError, match="wandb does not start: no API key$"):
        start_trackers(["wandb"], tmp_path, CONFIG, 0)
    monkeypatch.setitem(trackers._START, "mlflow", fail)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="mlflow does not start: no API key; give a server's address as MLFLOW"):
        start_trackers(["mlflow"], tmp_path, CONFIG, 0)
    with pytest.raises(SystemExit) as stop:
        main(["train", "--run", "r", "--data.train", "t", "--data.val", "v", "--train.trackers", "[comet]"])
    assert stop.value.code == 2 and "train.trackers" in capsys.readouterr().err
