"""When the ranks hear of a warning."""

import signal

import pytest
import torch

from mivolo_lite.training import preemption
from mivolo_lite.training.preemption import Preemption


class OneRank:
    """Stands for an accelerator of one process."""

    def __init__(self, device):
        self.device = torch.device(device)

    def reduce(self, tensor):
        return tensor.clone()


@pytest.fixture
def noted(monkeypatch):
    monkeypatch.setattr(preemption, "_noted", [])
    return preemption._noted


def test_a_warning_is_heard_one_call_later_and_from_then_on(noted):
    warned = Preemption(OneRank("cpu")).warned
    assert [warned(), warned()] == [False, False]
    noted.append(signal.SIGUSR2)
    assert [warned(), warned(), warned()] == [False, True, True]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_asking_does_not_wait_for_what_the_gpu_was_given_since(noted):
    warned, done = Preemption(OneRank("cuda")).warned, torch.cuda.Event()
    noted.append(signal.SIGUSR2)
    assert not warned()
    torch.cuda._sleep(10**10)  # cycles: some seconds
    done.record()
    assert warned() and not done.query()
