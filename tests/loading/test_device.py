"""Batches on their way to a GPU. Where there is none, its streams are played by what notes who waits for whom."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mivolo_lite.images.packed import Images
from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.device import page_locked, to_device
from mivolo_lite.loading.workers import eval_loader
from mivolo_lite.shards.index import ShardIndex
from tests.loading.test_loading import INPUTS, folder  # noqa: F401


class NotedCuda:
    """Plays ``torch.cuda``."""

    def __init__(self):
        self.notes, self.refused = [], []

    def Stream(self, device):  # noqa: N802
        return SimpleNamespace(record_event=self.record_event)

    def record_event(self):
        self.notes.append("copy")
        return SimpleNamespace(synchronize=lambda: self.notes.append("copied"))

    @contextmanager
    def stream(self, stream):
        yield

    def current_stream(self, device):
        return SimpleNamespace(wait_event=lambda event: self.notes.append("compute waits"))

    def cudart(self):
        def register(address, size, flags):
            self.notes.append(("lock", address, size))
            return int(address in self.refused)

        return SimpleNamespace(cudaHostRegister=register, cudaHostUnregister=lambda address: self.notes.append(address))


@pytest.fixture
def cuda(monkeypatch):
    played = NotedCuda()
    monkeypatch.setattr("mivolo_lite.loading.device.cuda", played)
    return played


class NotedBatch:
    """Plays a batch."""

    def __init__(self, notes):
        self.notes = notes

    def pin_memory(self):
        return self

    def to(self, device):
        return self

    def record_stream(self, stream):
        self.notes.append("keep")


def test_a_batchs_memory_is_given_back_when_its_copy_is_done_and_no_sooner(cuda):
    def decoded():
        for _ in range(2):
            cuda.notes.append("decode")
            yield NotedBatch(cuda.notes)

    for _ in to_device(decoded(), torch.device("cuda")):
        cuda.notes.append("compute")
    assert cuda.notes == ["decode", "copy", "compute waits", "keep", "compute", "copied"] * 2


def test_a_consumer_that_stops_waits_for_the_copy_as_well(cuda):
    batches = to_device([NotedBatch(cuda.notes)], torch.device("cuda"))
    next(batches)
    batches.close()
    assert cuda.notes[-1] == "copied"


def test_memory_is_locked_once_and_unlocked_unless_the_system_refused(cuda):
    one, other = torch.zeros(10), torch.zeros(3)
    cuda.refused = [other.data_ptr()]
    with page_locked([one, other]):
        assert cuda.notes == [("lock", one.data_ptr(), 40), ("lock", other.data_ptr(), 12)]
    assert cuda.notes[2:] == [one.data_ptr()]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_views_are_the_same_batches_and_lie_in_memory_that_is_used_again(folder, workers):  # noqa: F811
    loader = eval_loader(ShardIndex.load(folder), INPUTS, 16, 10, workers)
    expected, memory, addresses = list(loader), [], []

    @contextmanager
    def noted(buffers):
        memory.extend(buffers)
        yield

    for batch, other in zip(loader.views(noted), expected, strict=True):
        assert batch.sample.equal(other.sample)
        assert batch.face.pixels.equal(other.face.pixels) and batch.body.pixels.equal(other.body.pixels)
        addresses.append(batch.face.pixels.data_ptr())
    ranges = [(buffer.data_ptr(), buffer.data_ptr() + buffer.untyped_storage().nbytes()) for buffer in memory]
    assert all(any(begin <= address < end for begin, end in ranges) for address in addresses)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_on_a_cpu_batches_that_are_used_together_keep_their_images(folder, workers):  # noqa: F811
    loader = eval_loader(ShardIndex.load(folder), INPUTS, 16, 10, workers)
    together = list(to_device(loader, torch.device("cpu"), held=len(loader)))
    for batch, other in zip(together, to_device(loader, torch.device("cpu")), strict=True):
        assert batch.face.pixels.equal(other.face.pixels) and batch.body.pixels.equal(other.body.pixels)
    assert len({batch.face.pixels.data_ptr() for batch in together}) == len(together)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("workers", [0, 2])
def test_on_a_gpu_batches_are_those_of_the_cpu(folder, workers):  # noqa: F811
    loader = eval_loader(ShardIndex.load(folder), INPUTS, 16, 10, workers)
    for batch, other in zip(to_device(loader, torch.device("cuda")), loader, strict=True):
        torch.cuda._sleep(10**8)  # while the next batches are decoded
        assert batch.face.pixels.is_cuda and batch.face.pixels.cpu().equal(other.face.pixels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_what_is_locked_is_not_pinned_again():
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8).share_memory_()
    labels = {"age_lo": np.zeros(4), "age_hi": np.zeros(4), "gender": np.zeros(4, np.uint8)}
    batch = Batch.assemble({"face": Images.of(images)}, labels, np.arange(4), np.ones(4, bool)).tensors()
    with page_locked([images]):
        assert batch.pin_memory().face.pixels.data_ptr() == images.data_ptr()
