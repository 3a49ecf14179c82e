"""Blocks of neighbouring samples, which are read together."""

import numpy as np


def cut_into_blocks(shard_sizes: np.ndarray, block_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """First sample and size, (blocks,) int64 each, of nearly equal blocks that do not reach across shards."""
    shard_start = np.cumsum(shard_sizes) - shard_sizes
    blocks = -(-shard_sizes // block_samples)
    shard = np.repeat(np.arange(len(shard_sizes)), blocks)
    place = np.arange(len(shard)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
    first = place * shard_sizes[shard] // blocks[shard]
    last = (place + 1) * shard_sizes[shard] // blocks[shard]
    return shard_start[shard] + first, last - first
