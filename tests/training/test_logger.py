"""What a run measures and logs of its speed, and trackers that fail."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from mivolo_lite.images.packed import Images
from mivolo_lite.loading.batch import Batch
from mivolo_lite.training.flops import ModelFlops
from mivolo_lite.training.logger import RunLogger
from mivolo_lite.training.run_folder import RunFolder
from mivolo_lite.training.throughput import Throughput, in_words


def batch_of(samples: int, faces: int) -> Batch:
    labels = {"age_lo": np.zeros(samples), "age_hi": np.zeros(samples), "gender": np.zeros(samples, np.uint8)}
    face = Images(torch.zeros(faces, 3, 4, 4, dtype=torch.uint8), torch.arange(faces))
    return Batch.assemble({"face": face}, labels, np.arange(samples), np.ones(samples, bool)).tensors()


class Clock:
    """Stands still but for ``sleep``."""

    def __init__(self):
        self.now = 1e9

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("mivolo_lite.training.throughput.time", SimpleNamespace(time=clock, monotonic=clock))
    return clock


def test_evaluating_and_saving_are_no_training_and_waiting_is(clock):
    throughput, accelerator = Throughput(), Accelerator(cpu=True)
    throughput.interval(1, 8, 0, accelerator)
    with throughput.spent("evaluating or saving"):
        clock.sleep(0.3)
    with throughput.spent("waiting"):
        clock.sleep(0.1)
    clock.sleep(0.1)
    measured = throughput.interval(2, 16, 6, accelerator)
    seconds = 16 / measured["samples_per_second"]
    assert seconds == pytest.approx(0.2) and measured["left"] == pytest.approx(0.6)
    assert measured["wait"] == pytest.approx(0.5) and measured["elapsed"] == pytest.approx(0.5)
    assert measured["memory_gib"] > 0.1 and "slowest_loader" not in measured
    assert throughput.interval(1, 8, 0, accelerator)["wait"] == 0


def test_the_share_of_the_peak_is_that_of_the_images_there_were(clock):
    accelerator, throughput = Accelerator(cpu=True), Throughput(flops=ModelFlops(1e6, {"face": 1e9}, peak=1e11))
    throughput.count([batch_of(8, faces=4), batch_of(8, faces=6)])
    clock.sleep(0.2)
    measured = throughput.interval(1, 16, 0, accelerator)
    seconds = 16 / measured["samples_per_second"]
    assert measured["mfu"] == pytest.approx((16 * 1e6 + 10 * 1e9) / seconds / 1e11)
    assert throughput.interval(1, 16, 0, accelerator)["mfu"] == 0
    assert "mfu" not in Throughput().interval(1, 16, 0, accelerator)


def test_goodput_counts_earlier_starts_and_the_time_between_them(clock):
    throughput = Throughput(first_start=clock() - 100, step_seconds=40)
    with throughput.spent("evaluating or saving"):
        clock.sleep(0.1)
    total = throughput.total()
    assert total["step_seconds"] == pytest.approx(40) and total["goodput"] == pytest.approx(40 / 100.1)


def test_the_progress_reads_as_a_line():
    measured = {"elapsed": 192.4, "left": 17, "samples_per_second": 41.23, "wait": 0.031, "memory_gib": 9.12}
    assert in_words(measured) == "0:03:12, 0:00:17 left, 41.2/s, wait 3%, 9.1 GiB"
    assert in_words(measured | {"mfu": 0.384}).endswith("9.1 GiB, 38% of peak")


class StubTracker:
    """Fails from a step on, and where it finishes."""

    def __init__(self, name, lost_at=None, error=None):
        self.name, self.lost_at, self.error = name, lost_at, error
        self.logged, self.calls, self.finished = [], 0, False

    def log(self, values, step):
        self.calls += 1
        if self.lost_at is not None and step >= self.lost_at:
            raise self.error
        self.logged.append((step, values))

    def finish(self):
        self.finished = True
        if self.lost_at is not None:
            raise self.error


@pytest.mark.parametrize(
    "error, reason",
    [
        (ConnectionError("no route to host\nat line 5"), "no route to host"),
        (RuntimeError("the run was deleted"), "the run was deleted"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_a_tracker_that_fails_is_one_line_and_the_others_go_on(tmp_path, capsys, error, reason):
    lost, sound = StubTracker("wandb", 2, error), StubTracker("mlflow")
    logger = RunLogger(RunFolder(tmp_path), 4, 0, True, [lost, sound])
    for step in (1, 2, 3, 4):
        logger.log_metrics("train", step, {"loss": 1 / step})
    logger.close()
    output = capsys.readouterr()
    assert [step for step, _ in lost.logged] == [1] and lost.calls == 2
    assert sound.logged == [(step, {"train/loss": 1 / step}) for step in (1, 2, 3, 4)]
    assert lost.finished and sound.finished
    line = f"train.trackers: wandb gets no more of this run: {reason}"
    assert [text for text in (output.out + output.err).splitlines() if "trackers" in text] == [line]
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4]


def test_a_tracker_that_cannot_finish_is_one_line(tmp_path, capsys):
    trackers = [StubTracker("mlflow", 9, ConnectionError("gone")), StubTracker("tensorboard")]
    logger = RunLogger(RunFolder(tmp_path), 4, 0, True, trackers)
    logger.close()
    assert capsys.readouterr().out == "train.trackers: mlflow gets no more of this run: gone\n"
    assert trackers[1].finished
