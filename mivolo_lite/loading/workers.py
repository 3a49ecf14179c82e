"""Worker processes that decode batches into reused slots of shared memory.

torch moves every tensor of every batch into new shared memory. On a virtual machine, allocating and clearing these
pages took half as long as decoding the images.
"""

import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from itertools import cycle
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mivolo_lite.errors import MachineError, UserError, in_one_line
from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.dataset import ShardDataset
from mivolo_lite.loading.sampler import EvalSampler, TrainSampler
from mivolo_lite.loading.worker_process import Worker, end_workers_at_exit
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample_ref import SampleRef

PREFETCHED = 4
"""Batches that each worker prefetches."""


class BatchLoader:
    """The batches of a sampler; each iteration starts over.

    Do not pass it to ``accelerator.prepare``, which would distribute the batches again: the sampler already assigns
    them to the ranks.

    Args:
        dataset: reads the samples.
        sampler: the samples of each batch.
        workers: decoding processes; with 0 this process decodes.
    """

    def __init__(self, dataset: ShardDataset, sampler: TrainSampler | EvalSampler, workers: int):
        self.dataset, self.sampler, self.workers = dataset, sampler, workers

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.views():
            yield batch.with_pixels(lambda name, images: images.pixels.clone())

    def views(self, prepared: Callable[[list[Tensor]], AbstractContextManager] = nullcontext) -> Iterator[Batch]:
        """Batches whose images are views of reused memory: each is valid until the next is requested.

        Args:
            prepared: a context for that memory while it is used.
        """
        count = self._slots()
        slots = Slots(self.dataset, self._buffers(count), self._refs(count))
        batches = zip(cycle(range(count)), self.dataset.shards.schedule(self.sampler))
        tasks = (slots.task(slot, *batch) for slot, batch in batches)
        with prepared(list(slots.buffers.values())):
            yield from self._from_workers(slots, tasks) if self.workers else map(slots.read, tasks)

    def _from_workers(self, slots: "Slots", tasks: Iterator["Task"]) -> Iterator[Batch]:
        end_workers_at_exit()
        workers = [Worker(number, slots.read_or_error) for number in range(self.workers)]
        busy: deque[Worker] = deque()
        try:
            for worker, task in zip(cycle(workers), tasks):
                worker.send(task)
                busy.append(worker)
                if len(busy) == len(workers) * PREFETCHED:
                    yield slots.received(busy.popleft().receive())
            while busy:
                yield slots.received(busy.popleft().receive())
        finally:
            for worker in workers:
                worker.stop()

    def _slots(self) -> int:
        # One slot more than prefetched batches, so that a worker can start a new one while the latest is used.
        return min(self.workers * PREFETCHED + 1, len(self))

    @property
    def shared_bytes(self) -> int:
        """Bytes of shared memory that the workers' batches take."""
        side, inputs = self.dataset.image_size, len(self.dataset.inputs)
        return self._slots() * self.sampler.batch_size * inputs * 3 * side * side if self.workers else 0

    def _buffers(self, slots: int) -> dict[str, Tensor]:
        """(slots, B, S, S, 3) uint8 for each input, shared with the workers if there are any."""
        arrays = self.dataset.buffers(slots, self.sampler.batch_size)
        return {name: self._shared(torch.from_numpy(array)) for name, array in arrays.items()}

    def _refs(self, slots: int) -> Tensor:
        """(slots, B, 3) int64, a ``SampleRef`` each, likewise."""
        return self._shared(torch.zeros(slots, self.sampler.batch_size, len(SampleRef._fields), dtype=torch.int64))

    def _shared(self, buffer: Tensor) -> Tensor:
        if not self.workers:
            return buffer
        try:
            return buffer.share_memory_()
        except RuntimeError as error:
            raise UserError(
                f"data.workers {self.workers}: no room for {len(buffer)} batches in shared memory; use fewer workers, "
                f"or give a container more with --shm-size ({error})"
            ) from None


def eval_loader(
    index: ShardIndex,
    inputs: tuple[str, ...],
    image_size: int,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> BatchLoader:
    """Every sample of the index once, over all ranks."""
    dataset = ShardDataset(index, inputs, image_size)
    return BatchLoader(dataset, EvalSampler(len(index), batch_size, rank, world_size), workers)


class Task(NamedTuple):
    """A batch to read: its slot, how many samples it has, and blocks to fetch for those after it."""

    slot: int
    length: int
    ahead: Sequence


class Slots:
    """Reused memory of the prefetched batches: their images and their sample references.

    Args:
        dataset: what is read.
        buffers: (slots, B, S, S, 3) uint8 for each input.
        refs: (slots, B, 3) int64, a ``SampleRef`` each.
    """

    def __init__(self, dataset: ShardDataset, buffers: dict[str, Tensor], refs: Tensor):
        self.dataset, self.buffers, self.refs = dataset, buffers, refs

    def task(self, slot: int, refs: Sequence[SampleRef], ahead: Sequence) -> Task:
        """Write the samples of a slot's next batch to ``refs``, since the task itself must be small."""
        self._ref_array[slot, : len(refs)] = refs
        return Task(slot, len(refs), ahead)

    def read(self, task: Task) -> Batch:
        """The batch, its images in its slot."""
        return self._arrays(task).tensors()

    def read_or_error(self, task: Task) -> tuple[int, dict | UserError]:
        """A worker's result: the batch without its images, which are in the slot, or the error."""
        try:
            return task.slot, vars(self._arrays(task).with_pixels(lambda name, images: None))
        except Exception as error:  # to be raised where it is received
            return task.slot, as_user_error(error)

    def received(self, made: tuple[int, dict | UserError]) -> Batch:
        """The batch that a worker read. Raises the worker's error."""
        slot, arrays = made
        if isinstance(arrays, UserError):
            raise arrays
        return Batch(**arrays).tensors().with_pixels(lambda name, images: self._pixels[name][slot, : len(images.rows)])

    def _arrays(self, task: Task) -> Batch:
        buffers = {name: buffer[task.slot] for name, buffer in self._squares.items()}
        return self.dataset.arrays(self._ref_array[task.slot, : task.length], task.ahead, buffers)

    @cached_property
    def _squares(self) -> dict[str, np.ndarray]:
        return {name: buffer.numpy() for name, buffer in self.buffers.items()}

    @cached_property
    def _ref_array(self) -> np.ndarray:
        return self.refs.numpy()

    @cached_property
    def _pixels(self) -> dict[str, Tensor]:
        """(slots, B, 3, S, S)."""
        return {name: buffer.movedim(-1, -3) for name, buffer in self.buffers.items()}


def as_user_error(error: Exception) -> UserError:
    """An exception of a worker as one that can be sent to its rank and raised there, in one line."""
    explained = in_one_line(error)
    if explained is not None:
        return explained
    where = traceback.extract_tb(error.__traceback__)[-1]
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return MachineError(f"a loader's worker failed: {line} ({where.filename}, line {where.lineno})")
