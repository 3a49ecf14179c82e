"""One job a run, at most; and a disk that is full is said to be full."""

import errno
import multiprocessing
import os
import signal
import time

import pytest
from safetensors import SafetensorError

from mivolo_lite.errors import UserError
from mivolo_lite.training import run_folder
from mivolo_lite.training.run_folder import RunFolder, explain_full_disk

FORK = multiprocessing.get_context("fork")


def hold(path, held):
    """A job: it locks its run, and forks a loader's worker that lives a little longer than it."""
    kept = RunFolder(path)
    kept.begin("auto", "")
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
        RunFolder(tmp_path / "run").begin("auto", "")


def test_a_killed_job_locks_nobody_out(job, tmp_path):
    job.kill()
    job.join()
    RunFolder(tmp_path / "run").begin("auto", "config")
    assert (tmp_path / "run" / "config.yaml").read_text() == "config"


def test_a_folder_that_only_holds_a_lock_is_a_new_one(tmp_path):
    (tmp_path / "lock").touch()
    RunFolder(tmp_path).begin("no", "")


def test_best_weights_come_back_when_killed_between_two_renames(tmp_path):
    (tmp_path / "best.old").mkdir()
    RunFolder(tmp_path).begin("auto", "")
    assert (tmp_path / "best").is_dir() and not (tmp_path / "best.old").exists()


@pytest.mark.parametrize("rest", ['{"kind": "tr', '{"kind": "val", "step": 1, "by": {"age": {"0-9": {"n": 40}'])
def test_a_log_cut_in_the_middle_of_a_line_is_mended(tmp_path, rest):
    folder = RunFolder(tmp_path)
    folder.metrics.write_text('{"kind": "train", "step": 1}\n{"kind": "train", "step": 2}\n' + rest)
    folder.cut_log(1)
    assert folder.metrics.read_text() == '{"kind": "train", "step": 1}\n'


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_line(error, tmp_path):
    with pytest.raises(UserError, match="No space left on device; make room"), explain_full_disk(tmp_path, "make room"):
        raise error


def test_other_errors_are_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError), explain_full_disk(tmp_path, "make room"):
        (tmp_path / "none").read_text()
