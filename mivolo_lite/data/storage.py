"""Where the bytes of samples come from: shards in a folder, blocks of shards at a URL, or several data sets' shards."""

import os
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import count
from threading import Lock, Thread

import numpy as np

from mivolo_lite.data.cache import EVICTABLE, NodeCache
from mivolo_lite.data.index import ShardIndex, check_of
from mivolo_lite.data.joined import JoinedIndex
from mivolo_lite.data.order import cut_into_blocks
from mivolo_lite.data.remote import DamagedBytes
from mivolo_lite.data.sampler import Draw
from mivolo_lite.errors import UserError

_OPEN_SHARDS = 256
_SAMPLES_AHEAD = 32768  # two windows; a small data set is all here soon, and no more blocks come to wait for
_BLOCKS_REMEMBERED = 4096
_NOW, _AHEAD = 0, 1  # what is needed now goes first


class ShardFiles:
    """Reads members of shards in a folder at their offsets, keeping the latest files open in each process.

    Args:
        index: of the folder.
        sets: how many data sets share the files that a process keeps open.
    """

    def __init__(self, index: ShardIndex, sets: int = 1):
        self.index, self.most_open = index, max(1, _OPEN_SHARDS // sets)
        self._files: dict[int, int] = {}
        self._process = os.getpid()

    def schedule(self, batches: Iterable[Sequence[Draw]]) -> Iterator[tuple[Sequence[Draw], Sequence[int]]]:
        """Each batch, with the blocks to fetch ahead while it is read: none."""
        return ((draws, ()) for draws in batches)

    def blocks_of(self, samples: np.ndarray) -> list[int]:
        """The blocks to fetch for samples: none."""
        return []

    def prepare(self, samples: np.ndarray, ahead: Sequence[int]) -> None:
        """Have the samples at hand."""

    def read(self, name: str, sample: int) -> bytes:
        """The JPEG of a sample's ``face`` or ``body``."""
        columns = self.index.columns
        offset, size = int(columns[f"{name}_offset"][sample]), int(columns[f"{name}_size"][sample])
        return os.pread(self._descriptor(int(columns["shard"][sample])), size, offset)

    def _descriptor(self, shard: int) -> int:
        # A forked worker must not share the parent's bookkeeping, though it could share its files.
        if self._process != os.getpid():
            self._files, self._process = {}, os.getpid()
        if shard not in self._files:
            if len(self._files) >= self.most_open:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[shard] = os.open(self.index.shard_path(shard), os.O_RDONLY)
        return self._files[shard]

    def __del__(self):
        if self._process == os.getpid():
            for file in self._files.values():
                os.close(file)


class FetchedShards:
    """Reads members of shards at a URL. A block of neighbouring samples is one ranged read into the node's cache.

    Args:
        index: of shards at a URL.
        block_samples: samples of a block; as in the order of training, so that what is used together comes together.
    """

    def __init__(self, index: ShardIndex, block_samples: int):
        self.index, self.folder, self.cache = index, index.folder, NodeCache.of(index.cache)
        self.block_start, self.block_size = cut_into_blocks(index.shard_sizes, block_samples)
        self._threads: _Threads | None = None

    def schedule(self, batches: Iterable[Sequence[Draw]]) -> Iterator[tuple[Sequence[Draw], Sequence[int]]]:
        """Each batch, with the blocks to fetch ahead while it is read."""
        return blocks_ahead(batches, self.blocks_of, self.index.cache.readahead_blocks)

    def blocks_of(self, samples: np.ndarray) -> list[int]:
        """The blocks in which samples lie."""
        return (np.unique(np.searchsorted(self.block_start, samples, side="right")) - 1).tolist()

    def prepare(self, samples: np.ndarray, ahead: Sequence[int]) -> None:
        """Have the samples' blocks here, and those to fetch ahead on their way."""
        missing = [block for block in self.blocks_of(samples) if not self.cache.has(self._name(block))]
        if not missing and not ahead:
            return
        if self._threads is None or self._threads.process != os.getpid():
            self._threads = _Threads(partial(self._make, wait=False), self.index.cache.connections)
        self._threads.add(missing, _NOW)
        self._threads.add(ahead, _AHEAD)
        for block in reversed(missing):  # from the other end, as one more thread
            self._make(block)

    def read(self, name: str, sample: int) -> bytes:
        """The JPEG of a sample's ``face`` or ``body``."""
        block = self._block_of(sample)
        begin, end = self._range(block)
        offset, size = (int(self.index.columns[f"{name}_{what}"][sample]) for what in ("offset", "size"))
        with self.cache.open(self._name(block), end - begin, partial(self._fetch, block)) as file:
            return os.pread(file, size, offset - begin)

    def _make(self, block: int, wait: bool = True) -> None:
        begin, end = self._range(block)
        self.cache.make(self._name(block), end - begin, partial(self._fetch, block), wait)

    def _fetch(self, block: int, file: int) -> None:
        begin, end = self._range(block)
        shard = int(self.index.columns["shard"][self.block_start[block]])
        data = self.folder.read(self.index.shard_name(shard), begin, end, partial(self._check, block, begin))
        with open(file, "wb", closefd=False) as out:
            out.write(data)

    def _check(self, block: int, begin: int, data: bytes) -> None:
        view, columns = memoryview(data), self.index.columns
        for sample in self._samples(block):
            face, body = (
                view[int(columns[f"{name}_offset"][sample]) - begin :][: int(columns[f"{name}_size"][sample])]
                for name in ("face", "body")
            )
            if check_of(face, body) != columns["check"][sample]:
                raise DamagedBytes(
                    f"sample {self.index.key(sample)} is not what was indexed; if the shards were changed, run "
                    "`mivolo-lite index` on them and upload them with their index.safetensors and dataset.json"
                )

    def _range(self, block: int) -> tuple[int, int]:
        """The bytes of a shard, begin and end, from a block's first picture to its last."""
        samples, columns = self._samples(block), self.index.columns
        offsets = np.concatenate([columns[f"{name}_offset"][samples.start : samples.stop] for name in ("face", "body")])
        sizes = np.concatenate([columns[f"{name}_size"][samples.start : samples.stop] for name in ("face", "body")])
        there = sizes > 0
        return int(offsets[there].min()), int((offsets + sizes)[there].max())

    def _samples(self, block: int) -> range:
        first = int(self.block_start[block])
        return range(first, first + int(self.block_size[block]))

    def _block_of(self, sample: int) -> int:
        return int(np.searchsorted(self.block_start, sample, side="right")) - 1

    def _name(self, block: int) -> str:
        samples = self._samples(block)
        return f"{self.index.digest[:16]}-{samples.start}-{samples.stop}{EVICTABLE}"


class JoinedShards:
    """Reads members of the shards of several data sets. A block is named by its set's place and its number there.

    Args:
        index: of all sets.
        block_samples: samples of a block, of those sets that are at a URL.
    """

    def __init__(self, index: JoinedIndex, block_samples: int):
        self.index = index
        self.parts = [open_shards(part, block_samples, sets=len(index.parts)) for part in index.parts]

    def schedule(self, batches: Iterable[Sequence[Draw]]) -> Iterator[tuple[Sequence[Draw], Sequence[tuple[int, int]]]]:
        """Each batch, with the blocks to fetch ahead while it is read."""
        readahead = max([part.cache.readahead_blocks for part in self.index.parts if part.is_remote], default=0)
        return blocks_ahead(batches, self.blocks_of, readahead)

    def blocks_of(self, samples: np.ndarray) -> list[tuple[int, int]]:
        """The blocks in which samples lie."""
        own = [numbers for _, numbers in self.index.split(samples)]
        return [(place, block) for place, part in enumerate(self.parts) for block in part.blocks_of(own[place])]

    def prepare(self, samples: np.ndarray, ahead: Sequence[tuple[int, int]]) -> None:
        """Have the samples' blocks here, and those to fetch ahead on their way."""
        for place, (_, own) in enumerate(self.index.split(samples)):
            self.parts[place].prepare(own, [block for owner, block in ahead if owner == place])

    def read(self, name: str, sample: int) -> bytes:
        """The JPEG of a sample's ``face`` or ``body``."""
        place, own = self.index.locate(sample)
        return self.parts[place].read(name, own)


def blocks_ahead(
    batches: Iterable[Sequence[Draw]], blocks_of: Callable[[np.ndarray], Sequence[Hashable]], readahead: int
) -> Iterator[tuple[Sequence[Draw], Sequence[Hashable]]]:
    """Each batch, with the blocks to fetch ahead while it is read: those of batches to come, each once.

    Args:
        batches: what will be read.
        blocks_of: the blocks in which samples lie.
        readahead: how many blocks to know before a batch needs them.
    """
    waiting, ahead, samples_ahead, fetch = deque(), 0, 0, []
    known: dict[Hashable, None] = {}  # the blocks of the latest batches
    for draws in batches:
        blocks = blocks_of(np.array([draw.sample for draw in draws]))
        new = [block for block in blocks if block not in known]
        for block in blocks:
            known.pop(block, None)
            known[block] = None
        while len(known) > _BLOCKS_REMEMBERED:
            known.pop(next(iter(known)))
        fetch += new
        waiting.append((draws, len(new)))
        ahead, samples_ahead = ahead + len(new), samples_ahead + len(draws)
        while waiting and (ahead - waiting[0][1] >= readahead or samples_ahead > _SAMPLES_AHEAD):
            draws, its_blocks = waiting.popleft()
            ahead, samples_ahead = ahead - its_blocks, samples_ahead - len(draws)
            yield draws, fetch
            fetch = []
    for draws, _ in waiting:
        yield draws, fetch
        fetch = []


class _Threads:
    """Threads of one process that fetch blocks, the most urgent first. They end when there is nothing left to do."""

    def __init__(self, make: Callable[[int], None], limit: int):
        self.make, self.limit, self.process = make, limit, os.getpid()
        self._tasks: list[tuple[int, int, int]] = []
        self._number, self._running, self._lock = count(), 0, Lock()

    def add(self, blocks: Iterable[int], urgency: int) -> None:
        with self._lock:
            for block in blocks:
                heappush(self._tasks, (urgency, next(self._number), block))
            while self._running < min(self.limit, len(self._tasks)):
                self._running += 1
                Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while (block := self._next()) is not None:
            try:
                self.make(block)
            except UserError:
                pass  # whoever needs the block meets the same error, and says so

    def _next(self) -> int | None:
        with self._lock:
            if self._tasks:
                return heappop(self._tasks)[-1]
            self._running -= 1
            return None


def open_shards(
    index: ShardIndex | JoinedIndex, block_samples: int, sets: int = 1
) -> ShardFiles | FetchedShards | JoinedShards:
    """The way to an index's samples, beside those of others of so many data sets."""
    if isinstance(index, JoinedIndex):
        return JoinedShards(index, block_samples)
    return FetchedShards(index, block_samples) if index.is_remote else ShardFiles(index, sets)
