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
from functools import cached_property, partial
from itertools import cycle
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
        for batch in self.lent():
            yield batch.with_pixels(lambda name, images: images.pixels.clone())

    def lent(self, prepared: Callable[[list[Tensor]], AbstractContextManager] = nullcontext) -> Iterator[Batch]:
        """Batches whose images lie in memory that is written again: each is there until the next is asked for.

        Args:
            prepared: a context for that memory while it is used.
        """
        slots = self._slots()
        buffers = self._buffers(slots)
        into_slots = _IntoSlots(self.dataset, buffers)
        tasks = zip(cycle(range(slots)), self.dataset.shards.schedule(self.sampler))
        with prepared(list(buffers.values())):
            yield from self._from_workers(into_slots, tasks) if self.workers else map(into_slots.read, tasks)

    def _from_workers(self, into_slots: "_IntoSlots", tasks: Iterator[tuple]) -> Iterator[Batch]:
        # torch counts the CPUs of the calling thread alone, which OpenMP may have bound to one.
        warnings.filterwarnings("ignore", "This DataLoader will create .* worker processes")
        loader = DataLoader(
            into_slots,
            batch_size=None,
            collate_fn=_as_it_is,
            sampler=tasks,
            num_workers=self.workers,
            prefetch_factor=PREFETCHED,
            worker_init_fn=begin_worker,
            generator=torch.Generator(),  # otherwise the global one is sampled from, which shifts the model's dropout
        )
        end_workers_at_exit()
        pixels = {name: buffer.movedim(-1, -3) for name, buffer in into_slots.buffers.items()}
        for slot, arrays in _speaking_of_the_dead(iter(loader)):
            if isinstance(arrays, UserError):
                raise arrays
            yield (
                Batch(**arrays)
                .tensors()
                .with_pixels(lambda name, images, slot=slot: pixels[name][slot, : len(images.rows)])
            )

    def _slots(self) -> int:
        # One slot more than batches on their way: a worker may begin a new one before the latest is used.
        return min(self.workers * PREFETCHED + 1, len(self))

    @property
    def shared_bytes(self) -> int:
        """Shared memory that the workers' batches take."""
        side, inputs = self.dataset.image_size, len(self.dataset.inputs)
        return self._slots() * self.sampler.batch_size * inputs * 3 * side * side if self.workers else 0

    def _buffers(self, slots: int) -> dict[str, Tensor]:
        """(slots, B, S, S, 3) uint8 for each input, shared with the workers if there are any."""
        arrays = self.dataset.buffers(slots, self.sampler.batch_size)
        buffers = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if not self.workers:
            return buffers
        try:
            return {name: buffer.share_memory_() for name, buffer in buffers.items()}
        except RuntimeError as error:
            raise UserError(
                f"data.workers {self.workers}: no room for {slots} batches in shared memory; use fewer workers, "
                f"or give a container more with --shm-size ({error})"
            ) from None


def _as_it_is(result: tuple) -> tuple:
    """Torch's own would look into every part of it for arrays."""
    return result


class _IntoSlots(Dataset):
    """What a worker does: it decodes a batch's images into a slot of shared memory, and sends the rest."""

    def __init__(self, dataset: ShardDataset, buffers: dict[str, Tensor]):
        self.dataset, self.buffers = dataset, buffers

    def __getitem__(self, task: tuple[int, tuple[Sequence[SampleRef], Sequence[int]]]) -> tuple[int, dict | UserError]:
        slot, _ = task
        try:
            return slot, vars(self._arrays(task).with_pixels(lambda name, images: None))
        except Exception as error:  # raised here, torch would wrap it in a traceback
            return slot, carried(error)

    def read(self, task: tuple[int, tuple[Sequence[SampleRef], Sequence[int]]]) -> Batch:
        """The same in a process without workers."""
        return self._arrays(task).tensors()

    def _arrays(self, task: tuple[int, tuple[Sequence[SampleRef], Sequence[int]]]) -> Batch:
        slot, (refs, ahead) = task
        return self.dataset.arrays(refs, ahead, {name: buffer[slot] for name, buffer in self._squares.items()})

    @cached_property
    def _squares(self) -> dict[str, np.ndarray]:
        return {name: buffer.numpy() for name, buffer in self.buffers.items()}


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
