"""One worker's samples per second through the whole loader, against a bare loop and a stock webdataset pipeline.

    python benchmarks/loader.py --data DIR

DIR holds indexed shards of faces. Everybody reads the same bytes in the same order and resizes to the same size, with
the transform of evaluation. The bare loop only decodes with simplejpeg and resizes, and keeps nothing; webdataset
decodes and resizes with PIL and torchvision. Each repetition runs every contender once, on the same CPU, in changing
order, and ratios are taken within a repetition; the table shows medians, so other load on the machine weighs little.
"""

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from timing import processor

from mivolo_lite.distributed.affinity import spread_over_cpus

spread_over_cpus()  # as train.py does, before torch is imported

import simplejpeg  # noqa: E402
import torch  # noqa: E402
import webdataset as wds  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from mivolo_lite.images.letterbox import resize  # noqa: E402
from mivolo_lite.loading.dataset import ShardDataset  # noqa: E402
from mivolo_lite.loading.sampler import EvalSampler  # noqa: E402
from mivolo_lite.loading.workers import PREFETCHED, BatchLoader, begin_worker  # noqa: E402
from mivolo_lite.shards.index import ShardIndex  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "loader.md"
BARE, STOCK = "bare loop", "webdataset, PIL, torchvision"
OURS, OURS_WORKER, STOCK_WORKER = "this loader, no worker", "this loader, 1 worker", f"{STOCK}, 1 worker"
TARGETS = {OURS_WORKER: {BARE: 0.85, STOCK_WORKER: 2.0}}
WARM_UP = PREFETCHED + 1  # batches before the clock starts, so that none is ready ahead of it


def bare_loop(index: ShardIndex, size: int, batch: int, samples: int) -> float:
    """Seconds for so many samples, and so for the other contenders."""
    columns = [index.columns[name].tolist() for name in ("shard", "face_offset", "face_size")]
    files = [os.open(index.shard_path(shard), os.O_RDONLY) for shard in range(len(index.shard_sizes))]
    members = list(zip(*columns, strict=True))[WARM_UP * batch :][:samples]
    start = time.perf_counter()
    for shard, offset, length in members:
        resize(simplejpeg.decode_jpeg(os.pread(files[shard], length, offset), colorspace="RGB"), size, size)
    return time.perf_counter() - start


def our_loader(index: ShardIndex, size: int, batch: int, samples: int, workers: int) -> float:
    sampler = EvalSampler(samples + WARM_UP * batch, batch)
    return seconds_after_warm_up(BatchLoader(ShardDataset(index, ("face",), size), sampler, workers))


def stock_pipeline(index: ShardIndex, size: int, batch: int, samples: int, workers: int) -> float:
    transform = v2.Compose([v2.Resize((size, size)), v2.PILToTensor()])
    urls = [str(index.shard_path(shard)) for shard in range(len(index.shard_sizes))]
    faces = wds.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("face.jpg", "json")
    dataset = faces.map_tuple(transform, as_it_is).batched(batch)
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, worker_init_fn=begin_worker)
    return seconds_after_warm_up(islice(loader, WARM_UP + samples // batch))


def as_it_is(labels: dict) -> dict:
    return labels


def seconds_after_warm_up(batches) -> float:
    batches = iter(batches)
    for _ in range(WARM_UP):
        next(batches)
    start = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - start


def where_a_worker_runs(contender: Callable[..., float], *arguments) -> float:
    """Run a contender without workers in a process of its own, placed as a worker would be."""
    with ProcessPoolExecutor(1, get_context("fork"), begin_worker, (0,)) as pool:
        return pool.submit(contender, *arguments).result()


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds by contender, one of each a repetition."""
    index = ShardIndex.load(options.data)
    arguments = (index, options.size, options.batch, options.samples)
    if options.samples + WARM_UP * options.batch > len(index):
        raise SystemExit(f"--samples {options.samples}: {options.data} holds only {len(index)}")
    contenders = {
        BARE: partial(where_a_worker_runs, bare_loop, *arguments),
        OURS: partial(where_a_worker_runs, our_loader, *arguments, 0),
        OURS_WORKER: partial(our_loader, *arguments, 1),
        STOCK: partial(where_a_worker_runs, stock_pipeline, *arguments, 0),
        STOCK_WORKER: partial(stock_pipeline, *arguments, 1),
    }
    seconds = {name: [] for name in contenders}
    for _ in range(options.repeats):
        for name in random.sample(list(contenders), len(contenders)):
            seconds[name].append(contenders[name]())
    return seconds


def ratio(seconds: dict[str, list[float]], ours: str, other: str) -> float:
    return statistics.median(b / a for a, b in zip(seconds[ours], seconds[other], strict=True))


def report(options: argparse.Namespace, seconds: dict[str, list[float]]) -> str:
    """The tables as markdown."""
    load = os.getloadavg()[1]
    lines = [
        "# One worker's samples per second",
        "",
        f"`python benchmarks/loader.py --samples {options.samples} --batch {options.batch} --size {options.size} "
        f"--repeats {options.repeats}`",
        f"on {os.cpu_count()} CPUs of {processor()}, load average {load:.1f}; "
        f"medians over {options.repeats} interleaved repetitions.",
        "",
        "| | samples/s | of the bare loop |",
        "| --- | ---: | ---: |",
    ]
    for name, times in seconds.items():
        lines.append(
            f"| {name} | {options.samples / statistics.median(times):.0f} | {ratio(seconds, name, BARE):.2f} |"
        )
    lines += ["", "| | ratio | at least |", "| --- | ---: | ---: |"]
    for ours, others in TARGETS.items():
        lines += [
            f"| {ours} : {other} | {ratio(seconds, ours, other):.2f} | {at_least} |"
            for other, at_least in others.items()
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of indexed shards of faces")
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=128, help="side of the model's images in pixels")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)  # there is no model here whose threads could want the worker's CPU
    text = report(options, measure(options))
    print(text)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
