"""Finds all pairs of 64-bit hashes within a Hamming distance, without comparing all pairs."""

from collections.abc import Iterator
from itertools import combinations
from math import log2

import numpy as np

BITS = 64


class NearPairs:
    """Iterates over tables; each gives pairs (K, 2), and all tables together give every pair exactly once.

    The bits are divided into ``distance + k`` blocks. Two hashes that differ in at most ``distance`` bits agree in at
    least k blocks, so they are neighbours in a table sorted by these k (Manku, Jain and Das Sarma, WWW 2007). A pair
    counts only in its first table; one table is in memory at a time. A million faces and their mirror images, at a
    distance of 9, take about two minutes of one core and 100 MB (benchmarks/results/audit.md).

    Args:
        hashes: (N,) uint64, all different.
        distance: most differing bits.
    """

    def __init__(self, hashes: np.ndarray, distance: int):
        self.hashes, self.distance = hashes, distance
        self.chosen = _blocks_of_a_table(len(hashes), distance)
        blocks = distance + self.chosen
        # Every n-th bit, since neighbouring bits of a hash are correlated, and blocks of correlated bits have large
        # buckets.
        self.masks = [sum(1 << bit for bit in range(block, BITS, blocks)) for block in range(blocks)]

    def __len__(self) -> int:
        return sum(1 for _ in self._tables())

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self._pairs, self._tables())

    def _tables(self) -> Iterator[tuple[int, ...]]:
        return combinations(range(len(self.masks)), self.chosen)

    def _pairs(self, table: tuple[int, ...]) -> np.ndarray:
        """(K, 2) indices into ``hashes``, the smaller first."""
        mask = np.uint64(sum(self.masks[block] for block in table))
        earlier = [np.uint64(self.masks[block]) for block in range(table[-1]) if block not in table]
        order = np.argsort(self.hashes & mask)
        hashes = self.hashes[order]
        pairs = [np.zeros((0, 2), np.int64)]
        first = np.arange(len(hashes))
        for shift in range(1, len(hashes)):
            first = first[: np.searchsorted(first, len(hashes) - shift)]
            differing = hashes[first] ^ hashes[first + shift]
            together = (differing & mask) == 0
            first, differing = first[together], differing[together]
            if not len(first):
                break
            near = np.flatnonzero(np.bitwise_count(differing) <= self.distance)
            for block in earlier:
                near = near[(differing[near] & block) != 0]
            pairs.append(np.stack([order[first[near]], order[first[near] + shift]], axis=1))
        return np.sort(np.concatenate(pairs), axis=1)


def _blocks_of_a_table(hashes: int, distance: int) -> int:
    """The smallest number of blocks with about 30 random hashes in a bucket; more blocks need too many tables."""
    sorting_bits = log2(max(hashes, 2)) - 5
    return next(chosen for chosen in range(1, BITS) if BITS * chosen / (distance + chosen) >= sorting_bits)
