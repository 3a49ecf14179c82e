"""What a run measures and logs of its speed."""

import time

import pytest
from accelerate import Accelerator

from mivolo_lite.training.throughput import Throughput, in_words


def test_evaluating_and_saving_are_no_training_and_waiting_is():
    throughput, accelerator = Throughput(), Accelerator(cpu=True)
    throughput.interval(1, 8, 0, accelerator)
    with throughput.paused():
        time.sleep(0.3)
    with throughput.waiting():
        time.sleep(0.1)
    time.sleep(0.1)
    measured = throughput.interval(2, 16, 6, accelerator)
    seconds = 16 / measured["samples_per_second"]
    assert 0.2 <= seconds < 0.28 and measured["left"] == pytest.approx(3 * seconds)
    assert measured["wait"] == pytest.approx(0.1 / seconds, rel=0.2) and measured["elapsed"] > 0.5
    assert measured["memory_gib"] > 0.1 and "slowest_loader" not in measured
    assert throughput.interval(1, 8, 0, accelerator)["wait"] == 0


def test_the_progress_reads_as_a_line():
    measured = {"elapsed": 192.4, "left": 17, "samples_per_second": 41.23, "wait": 0.031, "memory_gib": 9.12}
    assert in_words(measured) == "0:03:12, 0:00:17 left, 41.2/s, wait 3%, 9.1 GiB"
