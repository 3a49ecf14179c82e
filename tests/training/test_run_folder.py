"""One job a run, at most; and a disk that is full is said to be full."""

import json
import multiprocessing
import os
import signal
import time

import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.training import run_folder
from mivolo_lite.training.run_folder import RunFolder

FORK = multiprocessing.get_context("fork")


def hold(path, held):
    """A job: it locks its run, and forks a loader's worker that lives a little longer than it."""
    kept = RunFolder(path)
    kept.begin("auto")
    worker = FORK.Process(target=time.sleep, args=(30,))
    worker.start()
    held.send(worker.pid)
    time.sleep(60)


@pytest.fixture
def job(tmp_path):
    here, there = FORK.Pipe()
    process = FORK.Process(target=hold, args=(tmp_path / "run", there))
    process.start()
    worker = here.recv()
    yield process
    process.kill()
    os.kill(worker, signal.SIGKILL)
    process.join()


def test_a_second_job_stops(job, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "_LOCK_PATIENCE", 0.2)
    with pytest.raises(UserError, match=f"another job is at work in it .process {job.pid} on "):
        RunFolder(tmp_path / "run").begin("auto")


def test_a_killed_job_locks_nobody_out(job, tmp_path):
    job.kill()
    job.join()
    RunFolder(tmp_path / "run").begin("auto")


def test_a_folder_that_only_holds_a_lock_is_a_new_one(tmp_path):
    (tmp_path / "lock").touch()
    RunFolder(tmp_path).begin("no")


def test_best_weights_come_back_when_killed_between_two_renames(tmp_path):
    (tmp_path / "best.old").mkdir()
    RunFolder(tmp_path).begin("auto")
    assert (tmp_path / "best").is_dir() and not (tmp_path / "best.old").exists()


@pytest.mark.parametrize("rest", ['{"kind": "tr', '{"kind": "val", "step": 1, "by": {"age": {"0-9": {"n": 40}'])
def test_a_log_cut_in_the_middle_of_a_line_is_mended(tmp_path, rest):
    folder = RunFolder(tmp_path)
    folder.metrics.write_text('{"kind": "train", "step": 1}\n{"kind": "train", "step": 2}\n' + rest)
    folder.cut_log(1)
    assert folder.metrics.read_text() == '{"kind": "train", "step": 1}\n'


def test_what_is_no_record_is_dropped_and_counted(tmp_path):
    folder = RunFolder(tmp_path)
    folder.metrics.write_bytes(b'5\n{"kind": "train", "step": 1}\n\xff\n[1]\n{"kind": "val", "step": 1}\n{"kind')
    assert folder.cut_log(1) == 3
    assert folder.metrics.read_text() == '{"kind": "train", "step": 1}\n{"kind": "val", "step": 1}\n'


def test_an_evaluation_that_is_done_again_is_logged_once(tmp_path):
    folder = RunFolder(tmp_path)
    folder.metrics.write_text('{"kind": "train", "step": 1}\n{"kind": "val", "step": 1}\n')
    folder.cut_log(1, evaluated=False)
    assert folder.metrics.read_text() == '{"kind": "train", "step": 1}\n'


def test_the_log_is_json_whatever_the_numbers(tmp_path):
    folder = RunFolder(tmp_path)
    folder.log({"kind": "train", "step": 1, "loss": float("nan"), "by": {"age": [float("inf"), 1.5]}})
    text = folder.metrics.read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "kind": "train", "step": 1, "loss": None, "by": {"age": [None, 1.5]}
    }  # fmt: skip


def test_a_run_that_never_saved_has_no_claim(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin("no")
    folder.log({"kind": "train", "step": 1})
    (folder.path / "trackers.json").write_text('{"mlflow": "0123"}')
    RunFolder(tmp_path / "run").begin("no")
    assert not folder.metrics.exists() and not (folder.path / "trackers.json").exists()


@pytest.mark.parametrize("name", ["checkpoints/step-000000001", "best", "checkpoints/my-copy", "thesis"])
def test_what_was_saved_is_not_begun_again(tmp_path, name):
    RunFolder(tmp_path).begin("no")
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="holds a run already"):
        RunFolder(tmp_path).begin("no")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written: Not a directory"):
        RunFolder(tmp_path / "file" / "run").begin("no")


def test_a_log_that_is_no_file_is_one_line_and_is_not_read_without_end(tmp_path):
    folder = RunFolder(tmp_path)
    folder.metrics.mkdir()
    folder.broken.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="metrics.jsonl: is a directory"):
        folder.cut_log(3)
    with pytest.raises(UserError, match="broken.jsonl: not a regular file"):
        folder.broken_images()
