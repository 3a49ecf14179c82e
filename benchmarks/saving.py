"""How long training waits for a checkpoint: ``python benchmarks/saving.py``.

MiVOLO-D1 with AdamW's state and an EMA, on the CPU. A step is a sleep, during which the writing thread can run. So only
the waiting time is measured: copies in memory, and waiting for the thread.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from timing import machine, write_result

from mivolo_lite.distributed.data_parallel import DataParallel
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.training.averaging import ModelEma
from mivolo_lite.training.checkpoint import Checkpointer
from mivolo_lite.training.train_state import TrainState

RESULTS = Path(__file__).parent / "results" / "saving.md"
MODEL = "mivolo_d1_224"


def measure(folder: Path, saves: int) -> tuple[float, list[float], list[float]]:
    """Bytes of a checkpoint, and for each save the seconds that training waited and those until it was complete."""
    torch.manual_seed(0)
    estimator = Estimator(Card({"name": MODEL}, {"name": "regression"}, {"min_age": 0, "max_age": 100}, 224))
    optimizer = torch.optim.AdamW(estimator.parameters())
    engine = DataParallel(Accelerator(cpu=True), estimator, optimizer, 0.0)
    for parameter in estimator.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    checkpointer, ema = Checkpointer(folder, engine.accelerator, keep=1), ModelEma(engine, 0.999)
    stalls, whole = [], []
    for step in range(1, saves + 1):
        begun = time.perf_counter()
        checkpointer.save(TrainState("", 0, step=step, window_blocks=1, block_samples=1), engine, ema)
        stalls.append(time.perf_counter() - begun)
        checkpointer.wait()
        whole.append(time.perf_counter() - begun)
    size = sum(file.stat().st_size for file in checkpointer.finished()[-1].iterdir())
    return size, stalls, whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size, stalls, whole = measure(Path(folder), options.saves)
    stall = statistics.median(stalls)
    text = f"""# Time that training waits for a checkpoint

`python benchmarks/saving.py --saves {options.saves}` on {machine()}.
{MODEL}, {size / 1e6:.0f} MB with AdamW's state and the EMA; medians of {options.saves} saves.

| | seconds | share of a minute |
| --- | ---: | ---: |
| training waits | {stall:.2f} | {stall / 60:.2%} |
| until the checkpoint is complete | {statistics.median(whole):.2f} | {statistics.median(whole) / 60:.2%} |
"""
    write_result(RESULTS, text)


if __name__ == "__main__":
    main()
