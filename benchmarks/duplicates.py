"""Time and memory of the search for near copies in a very large data set: ``python benchmarks/duplicates.py``.

The hashes are random, with independent bits, or with the correlations of a data set's hashes (``--like DIR``).
"""

import argparse
import resource
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from mivolo_lite.audit.duplicates import candidates
from mivolo_lite.audit.fingerprints import read_fingerprints
from mivolo_lite.audit.hashing import BITS, perceptual_hashes
from mivolo_lite.audit.samples import Samples
from mivolo_lite.audit.search import NearPairs
from mivolo_lite.audit.workers import shard_workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--distance", type=int, default=9)
    parser.add_argument("--like", help="folder of indexed shards; the bits are correlated as those of its faces")
    parser.add_argument("--tables", type=int, help="stop after this number of tables and scale the time up")
    options = parser.parse_args()
    hashes = np.unique(imitated(options.like, options.images) if options.like else sampled(options.images))
    tables = len(NearPairs(np.concatenate([hashes, hashes]), options.distance))
    before, began = _peak_mb(), time.process_time()
    found = sum(
        len(part[0]) for part in islice(candidates(hashes, options.distance), options.tables and options.tables + 1)
    )
    seconds = (time.process_time() - began) * (tables / options.tables if options.tables else 1)
    print(f"{len(hashes):,} different hashes and their mirrored ones, at most {options.distance} bits apart")
    print(f"| tables | candidates | CPU s | memory before, MB | peak memory, MB |\n| {'---: | ' * 5}".rstrip())
    measured = f"{options.tables} of {tables}" if options.tables else f"{tables}"
    print(f"| {measured} | {found:,} | {seconds:.0f} | {before:.0f} | {_peak_mb():.0f} |")


def sampled(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**64, count, dtype=np.uint64)


def imitated(folder: str, count: int) -> np.ndarray:
    """Signs of normal variables with the correlations of the bits of the folder's faces."""
    samples = Samples([folder])
    with tempfile.TemporaryDirectory() as scratch, shard_workers(samples.indexes, 1) as map_tasks:
        prints = read_fingerprints(samples, "face", map_tasks, Path(scratch))
        hashes = perceptual_hashes(prints.thumbnails, np.arange(len(prints.records)))
    signs = 2.0 * np.unpackbits(hashes.view(np.uint8)).reshape(-1, BITS) - 1
    values, vectors = np.linalg.eigh(np.sin(np.pi / 2 * (signs.T @ signs) / len(signs)))
    mixing = (vectors * np.sqrt(np.maximum(values, 0))).T.astype(np.float32)
    rng = np.random.default_rng(0)
    parts = [
        rng.standard_normal((min(100_000, count - first), BITS), dtype=np.float32) @ mixing > 0
        for first in range(0, count, 100_000)
    ]
    return np.concatenate([np.packbits(part, axis=1).view(np.uint64)[:, 0] for part in parts])


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    main()
