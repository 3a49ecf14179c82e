"""Kills a run repeatedly, also while it saves: its weights must equal those of an undisturbed run bit by bit.

    python benchmarks/kill.py --rounds 20

Every round starts the run, ends it by one of ``DEATHS``, and resumes it to its end. Every other round kills it while
files of a checkpoint, or of the best weights, are being written. The table goes to standard output.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file

from mivolo_lite.cli import main as command_line
from mivolo_lite.distributed.preemption import EXIT_CODE
from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.people import PeopleSource

FORK = multiprocessing.get_context("fork")  # imports torch, the slowest part, only once
STEPS, BATCH = 30, 10
DEATHS = {
    "SIGKILL": (signal.SIGKILL, -signal.SIGKILL),
    "SIGINT": (signal.SIGINT, EXIT_CODE),
    "SIGHUP": (signal.SIGHUP, EXIT_CODE),
    "SIGTERM": (signal.SIGTERM, EXIT_CODE),
    "worker": (signal.SIGKILL, 1),
}
"""The signal, sent to all processes of the run or only to the loader's worker, and the expected exit code."""
OPTIONS = {
    "model.backbone": "test_efficientnet",
    "model.drop_rate": 0.3,
    "data.image_size": 64,
    "data.workers": 1,
    "optim.global_batch": BATCH,
    "optim.micro_batch": 5,
    "optim.ema_decay": 0.9,
    "train.save_every": 3,
    "train.eval_every": 2,
    "train.log_every": 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        pack(PeopleSource(count=80), folder / "people", {"train": 0.75, "val": 0.25})
        started = time.monotonic()
        finish(start(folder / "people", folder / "undisturbed"))
        seconds = time.monotonic() - started
        expected = weights(folder / "undisturbed")
        print(f"Undisturbed: {STEPS} steps in {seconds:.0f} s.\n")
        print("| round | death | when | seconds to end | checkpoints and leftovers | weights, EMA, AdamW, best |")
        print("| ---: | --- | --- | ---: | --- | --- |")
        for number in range(1, options.rounds + 1):
            run = folder / f"round{number}"
            process = start(folder / "people", run)
            death = list(DEATHS)[(number - 1) // 2 % len(DEATHS)]
            row = kill(process, run, death, aim=number % 2 == 0, draw=draw)
            finish(start(folder / "people", run))
            same = equal(weights(run), expected)
            print(f"| {number} | {death} | {row} | {'equal' if same else 'DIFFERENT'} |", flush=True)
            assert same


def start(data: Path, run: Path) -> BaseProcess:
    """Start or resume the run in a separate process and session."""
    samples = json.loads((data / "train" / "dataset.json").read_text())["samples"]
    options = OPTIONS | {"run": run, "resume": "auto", "data.train": data / "train", "data.val": data / "val"}
    options["optim.epochs"] = STEPS * BATCH / samples
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    process = FORK.Process(target=train, args=(words, run.with_suffix(".log")))
    process.start()
    return process


def train(words: list[str], log: Path) -> None:
    os.setsid()
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    sys.argv[1:] = ["train", *words]
    command_line()


def kill(process: BaseProcess, run: Path, death: str, aim: bool, draw: random.Random) -> str:
    """End the run at a random moment or during a save. Returns cells: when, seconds to end, and what it left."""
    stop = draw.randrange(STEPS - 3)
    while process.is_alive() and steps_logged(run) < stop:
        time.sleep(0.001)
    while aim and process.is_alive() and not any(run.glob("**/*.partial/*")):
        pass
    time.sleep(draw.uniform(0, 0.02 if aim else 0.5))
    number, code = DEATHS[death]
    workers = psutil.Process(process.pid).children() if process.is_alive() else []
    ended = not process.is_alive() or (death == "worker" and not workers)
    if not ended:
        workers[0].send_signal(number) if death == "worker" else os.killpg(process.pid, number)
    sent = time.monotonic()
    process.join(60)
    seconds = time.monotonic() - sent
    said = run.with_suffix(".log").read_text()
    done = ended or steps_logged(run) == STEPS
    assert process.exitcode == code or (done and process.exitcode == 0), f"{death}: {process.exitcode}: {said}"
    assert "Traceback" not in said, f"{death}: {said}"
    psutil.wait_procs(workers, timeout=5)
    assert not any(worker.is_running() for worker in workers), f"{death}: workers outlived their rank"
    steps = [path.name.removeprefix("step-").lstrip("0") for path in sorted(run.glob("checkpoints/step-*"))]
    whole = [step for step in steps if not step.endswith(".partial")]
    left = [step for step in steps if step.endswith(".partial")] + [path.name for path in run.glob("best.*")]
    when = "had ended" if ended else f"after step {steps_logged(run)}" + ", in a save" * aim
    return f"{when} | {seconds:.1f} | {', '.join(whole) or 'none yet'}{'; ' if left else ''}{', '.join(left)}"


def steps_logged(run: Path) -> int:
    log = run / "metrics.jsonl"
    return log.read_text().count('"train"') if log.exists() else 0


def finish(process: BaseProcess) -> None:
    process.join()
    assert process.exitcode == 0, f"exit code {process.exitcode}"


def weights(run: Path) -> list[dict]:
    last = run / "checkpoints" / f"step-{STEPS:09d}"
    names = ("model", "ema", "optimizer")
    return [load_file(last / f"{name}.safetensors") for name in names] + [load_file(run / "best" / "model.safetensors")]


def equal(found: list[dict], expected: list[dict]) -> bool:
    return all(
        one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)
        for one, other in zip(found, expected, strict=True)
    )


if __name__ == "__main__":
    main()
