"""Readers of samples' bytes: shards in a folder, blocks of shards at a URL, or shards of several data sets."""

import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache, partial
from itertools import count, groupby
from typing import Any, NamedTuple

import numpy as np

from mivolo_lite.errors import UserError
from mivolo_lite.shards.blocks import cut_into_blocks
from mivolo_lite.shards.cache import EVICTABLE, NodeCache
from mivolo_lite.shards.concat import ConcatIndex
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.members import IMAGES, DamagedBytes, Members
from mivolo_lite.shards.open_files import OpenFiles
from mivolo_lite.shards.prefetch import AHEAD, NOW, FetchThreads, blocks_ahead
from mivolo_lite.shards.remote import RemoteFolder
from mivolo_lite.shards.sample_ref import SampleRef
from mivolo_lite.system import pread

_BLOCKS_REMEMBERED = 4096  # of which it is known where they lie


class ShardFiles:
    """Reads the members of shards in a folder.

    Args:
        index: of the folder.
    """

    def __init__(self, index: ShardIndex):
        self.index, self._reader_id = index, next(_reader_ids)
        weakref.finalize(self, _close_files, self._reader_id)

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardFiles, (self.index,)

    @cached_property
    def members(self) -> Members:
        return Members(self.index.columns)

    def schedule(self, batches: Iterable[Sequence[SampleRef]]) -> Iterator[tuple[Sequence[SampleRef], Sequence[int]]]:
        """Each batch, with the blocks to prefetch while it is read: none."""
        return ((refs, ()) for refs in batches)

    def blocks_of(self, samples: np.ndarray) -> list[int]:
        """The blocks to fetch for samples: none."""
        return []

    def prepare(self, samples: np.ndarray, ahead: Sequence[int]) -> None:
        """Nothing to do: the samples are on a disk."""

    def read(self, name: str, sample: int) -> bytes:
        """The JPEG of a sample's ``face`` or ``body``. Raises UserError if it differs from the index."""
        shard = int(self.index.columns["shard"][sample])
        try:
            return self.members.read(name, sample, self._pread(shard))
        except OSError as error:
            raise UserError(f"{self.index.shard_path(shard)}: cannot be read: {error.strerror}") from None
        except DamagedBytes as error:
            raise UserError(
                f"{self.index.shard_path(shard)}: sample {self.index.key(sample)}: {error}; if the shard was changed, "
                f"run `mivolo-lite index {self.index.folder}`, otherwise copy it here again"
            ) from None

    def read_all(self, name: str, samples: np.ndarray) -> list[bytes]:
        """``read`` for samples (n,), fastest in the order on disk."""
        try:
            return self.members.read_all(name, samples, self._preads(self.index.columns["shard"][samples].tolist()))
        except (OSError, DamagedBytes):
            return [self.read(name, sample) for sample in samples.tolist()]

    def _preads(self, shards: Iterable[int]) -> Iterator[Callable[[int, int], bytes]]:
        """``pread`` of each of these shards. The next one may close the file of the one before."""
        for shard, neighbours in groupby(shards):
            read = self._pread(shard)
            yield from (read for _ in neighbours)

    def _pread(self, shard: int) -> Callable[[int, int], bytes]:
        return partial(pread, _open_files.descriptor((self._reader_id, shard), partial(self.index.open_shard, shard)))


_open_files, _reader_ids = OpenFiles(), count()


def _close_files(reader_id: int) -> None:
    _open_files.close(lambda key: key[0] == reader_id)


class Block(NamedTuple):
    """Neighbouring samples of a shard at a URL, fetched together.

    Attributes:
        name: of the block's file in the cache.
        shard: number of its shard.
        begin, end: bytes of the shard.
        samples: their numbers.
    """

    name: str
    shard: int
    begin: int
    end: int
    samples: range


class FetchedShards:
    """Reads members of shards at a URL. A block of neighbouring samples is one ranged read into the node's cache.

    Args:
        index: of shards at a URL.
        folder: its folder there.
        block_samples: samples in a block, as in the training order, so that samples that are used together are fetched
            together.
    """

    def __init__(self, index: ShardIndex, folder: RemoteFolder, block_samples: int):
        self.index, self.folder, self.cache = index, folder, NodeCache.of(index.cache)
        self.block_samples, self.members = block_samples, Members(index.columns)
        self.block_start, self.block_size = cut_into_blocks(index.shard_sizes, block_samples)
        self._block = lru_cache(_BLOCKS_REMEMBERED)(self._look_up)
        self._threads: FetchThreads | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return FetchedShards, (self.index, self.folder, self.block_samples)

    def schedule(self, batches: Iterable[Sequence[SampleRef]]) -> Iterator[tuple[Sequence[SampleRef], Sequence[int]]]:
        """Each batch, with the blocks to fetch ahead while it is read."""
        return blocks_ahead(batches, self.blocks_of, self.index.cache.readahead_blocks)

    def blocks_of(self, samples: np.ndarray) -> list[int]:
        """The blocks in which samples lie."""
        return (np.unique(np.searchsorted(self.block_start, samples, side="right")) - 1).tolist()

    def prepare(self, samples: np.ndarray, ahead: Sequence[int]) -> None:
        """Fetch the samples' blocks, and start to prefetch the next ones."""
        missing = [block for block in self.blocks_of(samples) if not self.cache.has(self._block(block).name)]
        if not missing and not ahead:
            return
        if self._threads is None or self._threads.process != os.getpid():
            self._threads = FetchThreads(partial(self._make, wait=False), self.index.cache.connections)
        self._threads.add(missing, NOW)
        self._threads.add(ahead, AHEAD)
        for block in reversed(missing):  # from the other end, so that this thread helps
            self._make(block)

    def read(self, name: str, sample: int) -> bytes:
        """The JPEG of a sample's ``face`` or ``body``, checked against the index; a damaged block is fetched again."""
        block = self._block(int(np.searchsorted(self.block_start, sample, side="right")) - 1)
        try:
            return self._read(block, name, sample)
        except DamagedBytes:
            self.cache.drop(block.name)
        try:
            return self._read(block, name, sample)
        except DamagedBytes as error:
            raise UserError(
                f"data.cache.folder {self.cache.folder}: sample {self.index.key(sample)}: {error}, though it was when "
                "it was written there; choose a folder on another disk"
            ) from None

    def read_all(self, name: str, samples: np.ndarray) -> list[bytes]:
        """``read`` of samples (n,)."""
        return [self.read(name, sample) for sample in samples.tolist()]

    def _read(self, block: Block, name: str, sample: int) -> bytes:
        with self.cache.open(block.name, block.end - block.begin, partial(self._fetch, block)) as file:
            return self.members.read(name, sample, lambda size, offset: pread(file, size, offset - block.begin))

    def _make(self, block_number: int, wait: bool = True) -> None:
        block = self._block(block_number)
        self.cache.make(block.name, block.end - block.begin, partial(self._fetch, block), wait)

    def _fetch(self, block: Block, file: int) -> None:
        name = self.index.shard_name(block.shard)
        data = self.folder.read(name, block.begin, block.end, partial(self._check, block))
        with open(file, "wb", closefd=False) as out:
            out.write(data)

    def _check(self, block: Block, data: bytes) -> None:
        """Raise DamagedBytes if a block's data differ from the index."""

        def read(size: int, offset: int) -> bytes:
            start = offset - block.begin
            return data[start : start + size]

        for sample in block.samples:
            try:
                for name in IMAGES:
                    self.members.read(name, sample, read)
            except DamagedBytes as error:
                raise DamagedBytes(
                    f"sample {self.index.key(sample)}: {error}; if the shards were changed, run `mivolo-lite index` "
                    "on them and upload them with their index.safetensors and dataset.json"
                ) from None

    def _look_up(self, block: int) -> Block:
        first = int(self.block_start[block])
        samples = range(first, first + int(self.block_size[block]))
        shard, (begin, end) = int(self.index.columns["shard"][first]), self.members.range(samples)
        return Block(f"{self.index.digest[:16]}-{shard}-{begin}-{end}{EVICTABLE}", shard, begin, end, samples)


class ConcatShards:
    """Reads members of the shards of several data sets. A block is identified by its data set and its number there.

    Args:
        index: of all sets.
        block_samples: samples in a block, for sets at a URL.
    """

    def __init__(self, index: ConcatIndex, block_samples: int):
        self.index = index
        self.readers = [_open_set(set_index, block_samples) for set_index in index.indexes]

    def schedule(
        self, batches: Iterable[Sequence[SampleRef]]
    ) -> Iterator[tuple[Sequence[SampleRef], Sequence[tuple[int, int]]]]:
        """Each batch, with the blocks to fetch ahead while it is read."""
        readahead = max([index.cache.readahead_blocks for index in self.index.indexes if index.is_remote], default=0)
        return blocks_ahead(batches, self.blocks_of, readahead)

    def blocks_of(self, samples: np.ndarray) -> list[tuple[int, int]]:
        """The blocks in which samples lie."""
        local_samples = (local for _, local in self.index.split(samples))
        blocks = (reader.blocks_of(local) for reader, local in zip(self.readers, local_samples, strict=True))
        return [(data_set, block) for data_set, in_set in enumerate(blocks) for block in in_set]

    def prepare(self, samples: np.ndarray, ahead: Sequence[tuple[int, int]]) -> None:
        """Fetch the samples' blocks, and start to prefetch the next ones."""
        for data_set, (_, local_samples) in enumerate(self.index.split(samples)):
            blocks = [block for owner, block in ahead if owner == data_set]
            self.readers[data_set].prepare(local_samples, blocks)

    def read(self, name: str, sample: int) -> bytes:
        """The JPEG of a sample's ``face`` or ``body``."""
        data_set, local_sample = self.index.locate(sample)
        return self.readers[data_set].read(name, local_sample)

    def read_all(self, name: str, samples: np.ndarray) -> list[bytes]:
        """``read`` of samples (n,) in the order of the index."""
        local_samples = (local for _, local in self.index.split(samples))
        sets = zip(self.readers, local_samples, strict=True)
        return [image for reader, local in sets for image in reader.read_all(name, local)]


def open_shards(index: ShardIndex | ConcatIndex, block_samples: int) -> ShardFiles | FetchedShards | ConcatShards:
    """The reader of an index's samples."""
    if isinstance(index, ConcatIndex):
        return ConcatShards(index, block_samples)
    return _open_set(index, block_samples)


def _open_set(index: ShardIndex, block_samples: int) -> ShardFiles | FetchedShards:
    if isinstance(index.folder, RemoteFolder):
        return FetchedShards(index, index.folder, block_samples)
    return ShardFiles(index)
