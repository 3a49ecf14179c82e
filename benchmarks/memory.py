"""The gain of keeping freed memory (mivolo_lite.processes.keep_freed_memory) on a CPU, with one thread.

    python benchmarks/memory.py [--rounds 5]

Each round starts a process with it and one without.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from timing import machine, write_result

from mivolo_lite.estimator import Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.processes import keep_freed_memory

TABLE = Path(__file__).parent / "results" / "memory.md"
STEPS = 6


def measure(batch: int, trains: bool, keeps: bool) -> dict[str, float]:
    """Images a second, and the peak memory of this process in MiB."""
    if keeps:
        keep_freed_memory()
    torch.set_num_threads(1)
    estimator = Estimator.load("default").to(memory_format=torch.channels_last).train(trains)
    side = estimator.card.image_size
    faces = Images.of(torch.zeros((batch, side, side, 3), dtype=torch.uint8).movedim(-1, 1))

    def step() -> None:
        with torch.set_grad_enabled(trains):
            output = estimator(faces)
        if trains:
            output["age"].square().mean().backward()
            estimator.zero_grad()

    step()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    speed = STEPS * batch / (time.perf_counter() - start)
    return {"speed": speed, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def in_a_process(*arguments) -> dict[str, float]:
    words = [sys.executable, __file__, "--measure", *map(str, arguments)]
    return json.loads(subprocess.check_output(words, env=os.environ | {"OMP_NUM_THREADS": "1"}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", nargs=3, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        batch, trains, keeps = arguments.measure
        print(json.dumps(measure(batch, bool(trains), bool(keeps))))
        return
    lines = []
    for what, batch, trains in (
        ("forward pass of 32 faces and their mirror images", 32, 0),
        ("training step of 64 faces", 64, 1),
    ):
        rounds = [[in_a_process(batch, trains, keeps) for keeps in (0, 1)] for _ in range(arguments.rounds)]
        speeds, memory = ([median(one[kept][of] for one in rounds) for kept in (0, 1)] for of in ("speed", "memory"))
        ratio = median(kept["speed"] / freed["speed"] for freed, kept in rounds)
        cells = (f"{speeds[0]:.0f}", f"{speeds[1]:.0f}", f"{ratio:.2f}", f"{memory[0]:,.0f}", f"{memory[1]:,.0f}")
        lines.append(f"| {what} | {' | '.join(cells)} |")
    write_result(
        TABLE,
        "# Keeping freed memory on a CPU\n\n"
        f"`python benchmarks/memory.py` on one of {machine()}. The package's checkpoint at 128 px, one thread, "
        f"medians of {arguments.rounds} rounds. Each round starts a process that keeps freed memory and one that does "
        "not. The ratio is within a round.\n\n"
        "| | images/s, glibc's default | images/s, kept | ratio | MiB, glibc's default | MiB, kept |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n" + "\n".join(lines) + "\n",
    )


if __name__ == "__main__":
    main()
