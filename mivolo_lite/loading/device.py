"""Batches on their device. Their copies to a GPU overlap with computation, and they are not copied on the host."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, cuda

from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.workers import BatchLoader


def to_device(loader: Iterable[Batch], device: torch.device, held: int = 1) -> Iterator[Batch]:
    """The batches of a loader on a device.

    Args:
        loader: a ``BatchLoader``, or any batches.
        device: the device.
        held: batches that stay valid at once; the images of older ones are overwritten when the next is requested.
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
    """Copy on a separate stream, which waits for no computation; the next computation waits for the copy only."""
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
            copied.synchronize()  # once the next batch is requested, a worker may overwrite this one


@contextmanager
def page_locked(buffers: Iterable[Tensor]) -> Iterator[None]:
    """Page-lock memory while the block runs, for asynchronous copies to a GPU.

    If the system refuses, ``pin_memory`` copies each batch into locked memory instead.
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
