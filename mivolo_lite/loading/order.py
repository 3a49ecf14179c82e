"""The order of training: a pure function from a position in the endless stream to a sample.

Every shard is cut into blocks of neighbouring samples. An epoch permutes the blocks, takes them in windows, and
permutes fully inside each window: nearly as good as a full shuffle, while a reader of remote shards needs only one
window of blocks at a time. Nothing here knows of ranks, workers or batch sizes, so none of them can change the order.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from mivolo_lite.randomness import permutation_of
from mivolo_lite.shards.blocks import cut_into_blocks

ORDER_VERSION = 1
"""Part of every checkpoint: a run may only resume in the order it began with."""

_BLOCKS, _SAMPLES = 0, 1  # tell the two permutations apart in the hash


class _Epoch(NamedTuple):
    """One epoch's blocks in their order, and the first position of each window, followed by the end of the epoch."""

    blocks: np.ndarray
    window_start: np.ndarray


class WindowSlice(NamedTuple):
    """The positions from ``begin`` to ``end`` of a window, which a span of the stream covers."""

    epoch: int
    window: int
    begin: int
    end: int


class Span(NamedTuple):
    """The samples of one data set within a span of the stream. They are consecutive in the set's own stream.

    Attributes:
        order: the set's order.
        first: their first position in it.
        start: number of the set's first sample in the concatenation of all sets.
        places: (count,) their positions in the span.
    """

    order: "GlobalOrder"
    first: int
    start: int
    places: np.ndarray


class GlobalOrder:
    """The endless concatenation of epochs, each a permutation of all samples.

    Args:
        shard_sizes: (shards,) samples in each shard; samples are numbered across the shards.
        seed: of the permutations.
        block_samples: samples in a block, about 1 to 4 MB of images; the unit in which remote shards are fetched.
        window_blocks: blocks shuffled together.
    """

    def __init__(self, shard_sizes: np.ndarray, seed: int, block_samples: int = 256, window_blocks: int = 64):
        self.seed, self.window_blocks = seed, window_blocks
        self.block_start, self.block_size = cut_into_blocks(np.asarray(shard_sizes, dtype=np.int64), block_samples)
        self.size = int(self.block_size.sum())
        self.window_samples = self.size * window_blocks // len(self.block_size)  # on average
        # A batch may straddle two epochs, and neighbouring positions share a window.
        self._epoch = lru_cache(maxsize=2)(self._order_blocks)
        self._window = lru_cache(maxsize=4)(self._order_window)

    def __len__(self) -> int:
        """Samples in one epoch."""
        return self.size

    def samples(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The epochs and sample numbers, (count,) int64 each, at the stream's positions from ``first`` on."""
        epochs, samples = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        done = 0
        for window_slice in self.slices(first, count):
            positions = slice(done, done + window_slice.end - window_slice.begin)
            epochs[positions], samples[positions] = window_slice.epoch, self.samples_of(window_slice)
            done = positions.stop
        return epochs, samples

    def spans(self, first: int, count: int) -> list[Span]:
        """The stream's positions from ``first`` on, as one span."""
        return [Span(self, first, 0, np.arange(count))]

    def slices(self, first: int, count: int) -> Iterator[WindowSlice]:
        """The window slices that the stream's positions from ``first`` on cover."""
        end = first + count
        while first < end:
            epoch, position = divmod(first, self.size)
            starts = self._epoch(epoch).window_start
            window = int(np.searchsorted(starts, position, side="right")) - 1
            begin, length = position - int(starts[window]), int(starts[window + 1]) - position
            yield WindowSlice(epoch, window, begin, begin + min(length, end - first))
            first += length

    def samples_of(self, window_slice: WindowSlice) -> np.ndarray:
        """(end - begin,) int64 sample numbers, in the order of the stream."""
        return self._window(window_slice.epoch, window_slice.window)[window_slice.begin : window_slice.end]

    def _order_blocks(self, epoch: int) -> _Epoch:
        blocks = permutation_of(np.arange(len(self.block_start)), self.seed, epoch, _BLOCKS)
        ends = np.cumsum(self.block_size[blocks])
        starts = np.concatenate([[0], ends[:-1]])[:: self.window_blocks]
        return _Epoch(blocks, np.append(starts, self.size))

    def _order_window(self, epoch: int, window: int) -> np.ndarray:
        blocks = self._epoch(epoch).blocks[window * self.window_blocks :][: self.window_blocks]
        samples = np.concatenate([np.arange(self.block_size[b]) + self.block_start[b] for b in blocks])
        return permutation_of(samples, self.seed, epoch, _SAMPLES)
