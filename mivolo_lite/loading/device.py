"""Batches on their device, straight from the memory that workers decoded them into: copied to a GPU while the one
before is computed, and as they lie there for the CPU."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, cuda

from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.workers import BatchLoader


def to_device(loader: Iterable[Batch], device: torch.device, held: int = 1) -> Iterator[Batch]:
    """The batches of a loader on a device. Those of a ``BatchLoader`` are not copied on the host before.

    Args:
        loader: a ``BatchLoader``, or any batches.
        device: where to.
        held: batches that are used together: the images of others are gone when the next is asked for.
    """
    batches = loader
    if device.type == "cuda":
        if isinstance(loader, BatchLoader):
            batches = loader.views(page_locked)
        return _copied_aside(batches, device)
    if isinstance(loader, BatchLoader) and held == 1:
        batches = loader.views()
    return (batch.to(device) for batch in batches)


def _copied_aside(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Copy on a stream of its own, which waits for no computation; what is computed next waits for the copy alone."""
    aside = cuda.Stream(device)
    for batch in batches:
        with cuda.stream(aside):
            on_device = batch.pin_memory().to(device)
        copied, computing = aside.record_event(), cuda.current_stream(device)
        computing.wait_event(copied)
        on_device.record_stream(computing)  # its memory was allocated for the other stream
        try:
            yield on_device
        finally:
            copied.synchronize()  # once the next batch is asked for, a worker may write into this one's memory


@contextmanager
def page_locked(buffers: Iterable[Tensor]) -> Iterator[None]:
    """Lock memory into RAM while the block runs, so that a GPU copies from it by itself.

    Where the system refuses, nothing happens: ``pin_memory`` then copies each batch into memory that is locked.
    """
    runtime: Any = cuda.cudart()
    locked = [
        buffer.data_ptr()
        for buffer in buffers
        if int(runtime.cudaHostRegister(buffer.data_ptr(), buffer.untyped_storage().nbytes(), 0)) == 0
    ]
    try:
        yield
    finally:
        for address in locked:
            runtime.cudaHostUnregister(address)
