"""Time and memory of the order of a very large data set at a start and a resume, without the index's columns.

    python benchmarks/order.py --samples 100000000

Measured for one data set, and for three with shares of 5, 3 and 2 and the same total. The shards are synthetic: only
their sizes exist. Every repetition makes a new order; the table has medians. Memory is the peak allocation of Python
and numpy by ``tracemalloc``, in a separate run, which it slows down.
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from timing import machine, write_result

from mivolo_lite.loading.mixed import MixedOrder
from mivolo_lite.loading.order import GlobalOrder

RESULTS = Path(__file__).parent / "results" / "order.md"
BATCH = 256
SETS = {"one data set": (1,), "three data sets": (5, 3, 2)}
"""The shares of the data sets of each measured order."""
TARGETS = {"start-up, s": 1.0, "memory at start-up, MB": 100.0, "memory after random jumps in two epochs, MB": 100.0}


def begin(options: argparse.Namespace, shares: tuple[int, ...]) -> GlobalOrder | MixedOrder:
    """An order that has given its first batch."""
    shards = -(-options.samples // options.shard_samples)
    orders = [
        GlobalOrder(np.full(len(part), options.shard_samples), options.seed + place, options.block_samples)
        for place, part in enumerate(np.array_split(np.arange(shards), len(shares)))
    ]
    order = MixedOrder(orders, shares) if len(shares) > 1 else orders[0]
    order.samples(0, BATCH)
    return order


def speeds(options: argparse.Namespace, shares: tuple[int, ...]) -> dict[str, float]:
    start = time.perf_counter()
    order = begin(options, shares)
    figures = {"start-up, s": time.perf_counter() - start}
    figures["samples/s, batch after batch"] = per_second(order, range(BATCH, 1000 * BATCH, BATCH), BATCH)
    anywhere = np.random.default_rng(options.seed).integers(0, len(order), 200).tolist()
    return figures | {"random jumps/s in an epoch": per_second(order, anywhere, 1)}


def per_second(order: GlobalOrder | MixedOrder, positions: Iterable[int], count: int) -> float:
    start, asked = time.perf_counter(), 0
    for position in positions:
        order.samples(position, count)
        asked += count
    return asked / (time.perf_counter() - start)


def memory(options: argparse.Namespace, shares: tuple[int, ...]) -> dict[str, float]:
    tracemalloc.start()
    order = begin(options, shares)
    figures = {"memory at start-up, MB": tracemalloc.get_traced_memory()[1] / 1e6}
    for position in np.random.default_rng(options.seed).integers(0, 2 * len(order), 50).tolist():
        order.samples(position, BATCH)
    figures["memory after random jumps in two epochs, MB"] = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return figures


def report(options: argparse.Namespace, figures: dict[str, dict[str, float]]) -> str:
    """The table as markdown, a column for each of ``SETS``."""
    lines = [
        "# The order of a very large data set",
        "",
        f"`python benchmarks/order.py --samples {options.samples} --shard-samples {options.shard_samples} "
        f"--block-samples {options.block_samples} --repeats {options.repeats}`",
        f"on {machine()}; medians over {options.repeats} repetitions.",
        "The three data sets have the same number of samples in total, with shares of 5, 3 and 2 of the stream.",
        "",
        f"| | {' | '.join(SETS)} | at most |",
        f"| --- |{' ---: |' * len(SETS)} ---: |",
    ]
    for name in next(iter(figures.values())):
        cells = [f"{each[name]:,.{2 if each[name] < 100 else 0}f}" for each in figures.values()]
        lines.append(f"| {name} | {' | '.join(cells)} | {TARGETS.get(name, '')} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000_000)
    parser.add_argument("--shard-samples", type=int, default=1000)
    parser.add_argument("--block-samples", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    turns = [{name: speeds(options, shares) for name, shares in SETS.items()} for _ in range(options.repeats)]
    figures = {
        name: {figure: statistics.median(turn[name][figure] for turn in turns) for figure in turns[0][name]}
        | memory(options, shares)
        for name, shares in SETS.items()
    }
    write_result(RESULTS, report(options, figures))


if __name__ == "__main__":
    main()
