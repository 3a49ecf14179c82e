"""What a run measures and logs of its speed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from mivolo_lite.images.packed import Images
from mivolo_lite.loading.batch import Batch
from mivolo_lite.training.flops import ModelFlops
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
