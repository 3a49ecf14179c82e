"""Worker processes that decode batches into shared memory, again and again into the same slots.

Left to itself, torch moves every tensor of every batch into new shared memory. On a virtual machine, the kernel finding
and clearing all those pages took half as long as decoding the images that they were for.
"""

import multiprocessing
import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import cycle, starmap
from multiprocessing.util import Finalize
from threading import current_thread, main_thread

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mivolo_lite.distributed.affinity import place_loader_worker
from mivolo_lite.errors import MachineError, UserError, in_one_line
from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.dataset import ShardDataset
from mivolo_lite.loading.sampler import EvalSampler, TrainSampler
from mivolo_lite.processes import live_as_worker
from mivolo_lite.shards.sample_ref import SampleRef

PREFETCHED = 4
"""Batches that each worker may be ahead."""


class BatchLoader:
    """Batches as a sampler deals them, anew each time it is iterated.

    It is not to be handed to ``accelerator.prepare``: Accelerate would deal the batches out a second time, or read
    them all on one rank. Every rank already reads its own samples and no others.

    Args:
        dataset: what is read.
        sampler: which samples make the batches.
        workers: decoding processes; with 0 this process decodes.
    """

    def __init__(self, dataset: ShardDataset, sampler: TrainSampler | EvalSampler, workers: int):
        self.dataset, self.sampler, self.workers = dataset, sampler, workers

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        return self._iterate(Tensor.clone)

    def lent(self, prepared: Callable[[list[Tensor]], AbstractContextManager]) -> Iterator[Batch]:
        """Batches whose images lie in the workers' own memory, each until the next is asked for.

        Args:
            prepared: a context for that memory while it is used.
        """
        return self._iterate(lambda images: images, prepared)

    def _iterate(
        self,
        take: Callable[[Tensor], Tensor],
        prepared: Callable[[list[Tensor]], AbstractContextManager] = nullcontext,
    ) -> Iterator[Batch]:
        tasks = self.dataset.shards.schedule(self.sampler)
        return self._from_workers(tasks, take, prepared) if self.workers else starmap(self.dataset.read, tasks)

    def _from_workers(
        self,
        tasks: Iterator[tuple],
        take: Callable[[Tensor], Tensor],
        prepared: Callable[[list[Tensor]], AbstractContextManager],
    ) -> Iterator[Batch]:
        # torch counts the CPUs of the calling thread alone, which OpenMP may have bound to one.
        warnings.filterwarnings("ignore", "This DataLoader will create .* worker processes")
        slots = self._slots()
        buffers = self._shared_buffers(slots)
        loader = DataLoader(
            _IntoSlots(self.dataset, buffers),
            batch_size=None,
            sampler=zip(cycle(range(slots)), tasks),
            num_workers=self.workers,
            prefetch_factor=PREFETCHED,
            worker_init_fn=begin_worker,
            generator=torch.Generator(),  # otherwise the global one is sampled from, which shifts the model's dropout
        )
        end_workers_at_exit()
        batches = _speaking_of_the_dead(iter(loader))
        with prepared(list(buffers.values())):
            for slot, batch in batches:
                if isinstance(batch, UserError):
                    raise batch
                yield batch.with_pixels(lambda name, count, slot=slot: take(buffers[name][slot, :count]))

    def _slots(self) -> int:
        # One slot more than batches on their way: a worker may begin a new one before the latest is copied.
        return min(self.workers * PREFETCHED + 1, len(self))

    @property
    def shared_bytes(self) -> int:
        """Shared memory that the workers' batches take."""
        side, inputs = self.dataset.image_size, len(self.dataset.inputs)
        return self._slots() * self.sampler.batch_size * inputs * 3 * side * side if self.workers else 0

    def _shared_buffers(self, slots: int) -> dict[str, Tensor]:
        """(slots, B, 3, S, S) uint8 for each input."""
        buffers = self.dataset.buffers(slots, self.sampler.batch_size)
        try:
            return {name: images.share_memory_() for name, images in buffers.items()}
        except RuntimeError as error:
            raise UserError(
                f"data.workers {self.workers}: no room for {slots} batches in shared memory; use fewer workers, "
                f"or give a container more with --shm-size ({error})"
            ) from None


class _IntoSlots(Dataset):
    """What a worker does: it decodes a batch's images into a slot of shared memory, and sends the rest."""

    def __init__(self, dataset: ShardDataset, buffers: dict[str, Tensor]):
        self.dataset, self.buffers = dataset, buffers

    def __getitem__(self, task: tuple[int, tuple[Sequence[SampleRef], Sequence[int]]]) -> tuple[int, Batch | UserError]:
        slot, (refs, ahead) = task
        try:
            batch = self.dataset.read(refs, ahead, {name: images[slot] for name, images in self.buffers.items()})
        except Exception as error:  # raised here, torch would wrap it in a traceback
            return slot, carried(error)
        return slot, batch.with_pixels(lambda name, count: None)


def begin_worker(worker: int) -> None:
    """What a loader's worker process does first: it is one thread of work, and ends when its rank does."""
    live_as_worker()
    # Some batch systems warn a rank's children as well: a worker that ended then took its rank along, unsaved.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    place_loader_worker(worker)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # Until a much larger block was freed once, glibc gives an image's memory back to the system when it is freed, and
    # each 4 KB of the next image are a page fault: more than a quarter of the time of augmenting it at 224 px.
    np.empty(2**24, np.uint8)


def carried(error: Exception) -> UserError:
    """An exception of a worker as one that its rank can raise: one line, and nothing that cannot be sent."""
    explained = in_one_line(error)
    if explained is not None:
        return explained
    where = traceback.extract_tb(error.__traceback__)[-1]
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return MachineError(f"a loader's worker failed: {line} ({where.filename}, line {where.lineno})")


def _speaking_of_the_dead(batches: Iterator) -> Iterator:
    """Batches of workers. Where one of these died, the next that is waited for raises how.

    torch raises it in the midst of whatever the main thread is at, a save or a destructor, where it may get lost.
    """
    torch_does = signal.getsignal(signal.SIGCHLD)
    if callable(torch_does) and torch_does not in _noting and current_thread() is main_thread():
        _noting[:] = [partial(_note_death, torch_does)]
        signal.signal(signal.SIGCHLD, _noting[0])
    try:
        yield from batches
    except RuntimeError as error:
        raise (_deaths.pop() if _deaths else error) from None


_noting: list[Callable] = []
_deaths: list[RuntimeError] = []


def _note_death(torch_does: Callable, number: int, frame) -> None:
    try:
        torch_does(number, frame)
    except RuntimeError as error:
        _deaths[:] = [error]


def end_workers_at_exit() -> None:
    """Let this process's workers end before Python waits for them: it would send them SIGTERM, and wait for ever.

    Where a run fails they have batches to decode, and nothing has told them to stop.
    """
    if _ends_workers != [os.getpid()]:  # a forked process has its own workers, and finalizers
        _ends_workers[:] = [os.getpid()]
        Finalize(None, _end_workers, exitpriority=100)


_ends_workers: list[int] = []


def _end_workers() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise that a worker was killed
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
