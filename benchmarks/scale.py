"""Simulates 1 to 1,024 ranks on a very large data set at a URL: bytes read, start-up costs and bottlenecks.

    python benchmarks/scale.py

The order, the samplers and the loading of the index are real; shards and network are simulated. The index is a sparse
file of realistic size, mostly of zeros. A node is its ranks' samplers and an LRU cache of blocks. The simulated node is
the one in the middle of the run, where the limits of the ranks' shares move most.
"""

import argparse
import hashlib
import json
import os
import struct
import tempfile
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from timing import in_a_process, machine, write_result

from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.loading.order import GlobalOrder
from mivolo_lite.loading.sampler import TrainSampler
from mivolo_lite.shards.cache import CacheConfig
from mivolo_lite.shards.index import INDEX_FILE, INFO_FILE, ShardIndex
from mivolo_lite.shards.schema import SCHEMA_VERSION

RESULTS = Path(__file__).parent / "results" / "scale.md"
KEY_BYTES = 12
COLUMNS = {
    "shard": ("I32", 4),
    "face_offset": ("I64", 8),
    "face_size": ("I32", 4),
    "body_offset": ("I64", 8),
    "body_size": ("I32", 4),
    "age_lo": ("F32", 4),
    "age_hi": ("F32", 4),
    "gender": ("U8", 1),
    "group": ("U8", 1),
    "labels_offset": ("I64", 8),
    "labels_size": ("I32", 4),
    "face_crc": ("U32", 4),
    "body_crc": ("U32", 4),
    "labels_crc": ("U32", 4),
    "key_end": ("I64", 8),
    "keys": ("U8", KEY_BYTES),
}

BOTTLENECKS = """## Bottlenecks

* **Not the order or the memory.** A rank takes milliseconds to sample a step. Its private memory is nearly all the
  parsed `dataset.json`.
* **First: requests to a URL.** 1,024 ranks that train on 1,000 images a second each use 31 GB a second. In blocks of
  7.5 MB, and with twice the bytes, they make 8,000 requests a second. S3 documents 5,500 for one prefix. Larger blocks
  make fewer requests, smaller ones fetch fewer unused bytes. Choose before a run, since the order depends on it. If
  each rank took the stream in order, the same nodes would fetch sixty times what they use.
* **Next: the start.** Every node fetches the whole index (8.2 GB, 1 TB for 128 nodes), though it needs few of its
  pages. Every rank fetches `dataset.json`. Shards of 10,000 samples make `dataset.json` ten times smaller, and with it
  the memory.
* **From a folder on a network file system**, the start reads two files a rank and no shard. A shard is opened, and its
  size compared, when its first image is read. Most of the time goes into checks of the index: against its digest (8.2
  GB for 100 million samples, at 0.6 to 2 GB a second), and of its columns against each other (2 s of one CPU).
* **A small cache.** If a cache does not hold the blocks in use (and those read ahead, `data.cache.readahead_blocks` of
  each rank), it fetches them again for nearly every batch: see the column with 0.25 GB."""


@dataclass(frozen=True)
class Reading:
    """The blocks that one node requested.

    Attributes:
        samples: of all its ranks.
        blocks: the blocks of the ranks' batches, one batch after the other, each block once a batch.
        held: the most blocks between their first and last use at the same time.
        seconds: that a rank took to sample one step.
    """

    samples: int
    blocks: list[int]
    held: int
    seconds: float

    def fetched(self, cached: int) -> int:
        """Blocks that a node fetches if its cache holds this number of blocks."""
        cache, fetched = OrderedDict(), 0
        for block in self.blocks:
            fetched += block not in cache
            cache[block] = None
            cache.move_to_end(block)
            if len(cache) > cached:
                cache.popitem(last=False)
        return fetched


def read(order: GlobalOrder, ranks: int, options: argparse.Namespace, as_it_comes: bool = False) -> Reading:
    """The reads of the middle node over many windows; ``as_it_comes`` if the ranks took the stream in order."""
    local = min(ranks, options.ranks_per_node)
    first_rank = ranks // local // 2 * local
    plan = BatchPlan.resolve(ranks * options.micro_batch, None, ranks)
    steps = max(options.windows * order.window_samples // plan.global_batch, options.windows)
    first_piece = next(order.slices(order.size // 3, 1))
    begin = order.size // 3 - first_piece.begin  # whole windows, so that only repeated requests count twice
    samplers = [iter(TrainSampler(order, plan, first_rank + rank, begin, steps)) for rank in range(local)]
    order.samples(begin, 1)  # the epoch's blocks are put in order before the clock starts
    blocks, first_use, last_use, seconds = [], {}, {}, 0.0
    for step in range(steps):
        start = time.perf_counter()
        if as_it_comes:
            first = begin + step * plan.global_batch + first_rank * plan.micro_batch
            shares = order.samples(first, local * plan.micro_batch)[1].reshape(local, -1)
        else:
            shares = [[draw.sample for draw in next(sampler)] for sampler in samplers]
        seconds += time.perf_counter() - start
        for share in shares:
            for block in np.unique(np.searchsorted(order.block_start, share, side="right") - 1).tolist():
                first_use.setdefault(block, step)
                last_use[block] = step
                blocks.append(block)
    begun, ended = (np.bincount(list(use.values()), minlength=steps) for use in (first_use, last_use))
    held = int((np.cumsum(begun) - np.cumsum(ended) + ended).max())
    return Reading(steps * local * plan.micro_batch, blocks, held, seconds / steps / local)


def reading_row(order: GlobalOrder, ranks: int, options: argparse.Namespace) -> str:
    """One row of the table of reads."""
    node = read(order, ranks, options)
    block_gb = options.sample_bytes * order.size / len(order.block_start) / 1e9
    share_gb = options.sample_bytes * order.size * min(ranks, options.ranks_per_node) / ranks / 1e9
    ideal = node.samples / order.size * len(order.block_start)  # blocks, if each byte were used
    fetched, small = (node.fetched(int(gb / block_gb)) for gb in (options.cache_gb, options.small_cache_gb))
    plain = read(order, ranks, options, as_it_comes=True).fetched(int(options.cache_gb / block_gb))
    figures = [
        f"{ranks:,}",
        f"{-(-ranks // options.ranks_per_node):,}",
        f"{share_gb:,.0f}",
        f"{share_gb * fetched / ideal:,.0f}",
        f"{fetched / ideal:.2f}",
        f"{plain / ideal:.2f}",
        f"{1 - fetched / node.samples:.1%}",
        f"{node.held * block_gb:.2f}",
        f"{small / ideal:.2f}",
        f"{node.seconds * 1e3:.1f}",
    ]
    return "| " + " | ".join(figures) + " |"


def write_index(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Write an index of shards that do not exist, with a real ``dataset.json``, and return the sizes of both files."""
    index = folder / INDEX_FILE
    write_columns(index, options)
    with open(index, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    each = options.samples // options.shards
    info = {
        "schema_version": SCHEMA_VERSION,
        "digest": "0" * 64,
        "samples": options.samples,
        "rejected": 0,
        "crop_policy": {},
        "groups": ["all"],
        "labels": {
            **{"face": 0, "body": 0, "age": {"known": 0, "ranges": 0}},
            **{"gender": {"M": 0, "F": 0}, "group": {}},
        },
        "shards": [
            {"file": f"train-{n:06d}.tar", "samples": each, "bytes": each * options.sample_bytes, "sha256": f"{n:064x}"}
            for n in range(options.shards)
        ],
        "index": {"bytes": index.stat().st_size, "sha256": digest},
    }
    (folder / INFO_FILE).write_text(json.dumps(info, indent=2))
    return {
        "index.safetensors, GB": index.stat().st_size / 1e9,
        "dataset.json, MB": (folder / INFO_FILE).stat().st_size / 1e6,
    }


def write_columns(index: Path, options: argparse.Namespace) -> None:
    """Write columns of zeros, except those with the numbers of shards and the ends of keys."""
    header, end = {"__metadata__": {"digest": "0" * 64}}, 0
    for name, (kind, size) in sorted(COLUMNS.items(), key=lambda column: -column[1][1]):  # aligned
        count = options.samples * (KEY_BYTES if name == "keys" else 1)
        header[name] = {"dtype": kind, "shape": [count], "data_offsets": [end, end + size * options.samples]}
        end += size * options.samples
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(index, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    each = options.samples // options.shards
    for name, dtype in (("shard", np.int32), ("key_end", np.int64)):
        begin = 8 + len(text) + header[name]["data_offsets"][0]
        column = np.memmap(index, dtype, "r+", begin, options.samples)
        for first in range(0, options.samples, 2**22):
            numbers = np.arange(first, min(first + 2**22, options.samples))
            column[first : first + 2**22] = numbers // each if name == "shard" else (numbers + 1) * KEY_BYTES
        column.flush()


def begin_here(address: str, options: argparse.Namespace, cache: CacheConfig) -> dict[str, float]:
    """Time and memory of one rank until its first batch, sharing only the index's mapped pages."""
    memory, start = anonymous_memory(), time.perf_counter()
    index = ShardIndex.load(address, cache)
    loaded = time.perf_counter()
    order = GlobalOrder(index.shard_sizes, 0, options.block_samples, options.window_blocks)
    plan = BatchPlan.resolve(1024 * options.micro_batch, None, 1024)
    next(iter(TrainSampler(order, plan, 512, 0, 1)))
    return {
        "loading the index, s": loaded - start,
        "order and first batch, s": time.perf_counter() - loaded,
        "private memory of a rank, MB": (anonymous_memory() - memory) / 1e6,
    }


def anonymous_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def start_up(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """From a folder, and from a URL whose index another rank has fetched; each in a separate process."""
    cache = CacheConfig(folder=str(folder / "cache"), gb=100)
    os.mkdir(cache.folder)
    digest = json.loads((folder / INFO_FILE).read_text())["index"]["sha256"]
    os.link(folder / INDEX_FILE, Path(cache.folder) / f"{digest}.safetensors")
    found = {"URL": in_a_process(begin_here, f"file://{folder}", options, cache)}
    for number in range(options.shards):  # as sparse as the index
        path = folder / f"train-{number:06d}.tar"
        path.touch()
        os.truncate(path, options.samples // options.shards * options.sample_bytes)
    return found | {"folder": in_a_process(begin_here, str(folder), options, cache)}


def report(options: argparse.Namespace) -> str:
    """The tables as markdown."""
    with tempfile.TemporaryDirectory() as name:
        sizes = write_index(Path(name), options)
        begun = start_up(Path(name), options)
    lines = [
        "# Reads of a very large run",
        "",
        f"`python benchmarks/scale.py` on {machine()}.",
        f"{options.samples:,} samples of {options.sample_bytes:,} bytes in {options.shards:,} shards; "
        f"{options.micro_batch} samples a rank and step, {options.ranks_per_node} ranks a node.",
        "",
        "Start-up of a rank, of 1 or of 1,024, from a folder and from a URL whose index is in the node's cache:",
        "",
        "| | folder | URL |",
        "| --- | ---: | ---: |",
    ]
    lines += [f"| {what} | {value:,.2f} | {begun['URL'][what]:,.2f} |" for what, value in begun["folder"].items()]
    lines += [f"| {what} | {value:,.2f} | {value:,.2f} |" for what, value in sizes.items()]
    for block_samples, window_blocks in ((options.block_samples, options.window_blocks), (64, 256)):
        order = GlobalOrder(np.full(options.shards, options.samples // options.shards), 0, block_samples, window_blocks)
        megabytes = options.sample_bytes * order.size / len(order.block_start) / 1e6
        lines += [
            "",
            f"Reads of a node, `data.block_samples {block_samples}` ({megabytes:.1f} MB a request), "
            f"`data.window_blocks {window_blocks}`:",
            "",
            "| ranks | nodes | used, GB an epoch | fetched, GB an epoch | ratio | ratio with the stream in order "
            f"| images found in the cache | cache in use, GB | ratio with {options.small_cache_gb:g} GB of cache "
            "| ms to sample a step |",
            "| ---: " * 10 + "|",
        ]
        lines += [reading_row(order, ranks, options) for ranks in options.ranks]
    return "\n".join([*lines, "", BOTTLENECKS]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000_000)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--sample-bytes", type=int, default=30_000)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8, 16, 64, 128, 256, 512, 1024])
    parser.add_argument("--ranks-per-node", type=int, default=8)
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--block-samples", type=int, default=256)
    parser.add_argument("--window-blocks", type=int, default=64)
    parser.add_argument("--windows", type=int, default=30, help="windows to simulate, and the least number of steps")
    parser.add_argument("--cache-gb", type=float, default=16)
    parser.add_argument("--small-cache-gb", type=float, default=0.25)
    write_result(RESULTS, report(parser.parse_args()))


if __name__ == "__main__":
    main()
