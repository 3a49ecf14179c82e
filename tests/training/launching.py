"""Starting training as users do, through ``accelerate launch``, and leaving nothing behind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from tests.forked import forked_process
from tests.ports import free_ports

REPOSITORY = Path(__file__).parents[2]
TRAIN = REPOSITORY / "train.py"
INHERITED = ("ACCELERATE_", "FSDP_", "WORLD_SIZE", "RANK", "LOCAL_", "MASTER_", "SLURM_", "OMP_PROC_BIND")


def arguments(options: dict) -> list[str]:
    """``--name value`` of each option."""
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def accelerate(file: Path | str, *words, processes: int | None = None) -> list[str]:
    """The command that launches with a file of launch/accelerate/, or another, on a port of its own."""
    file = REPOSITORY / "launch" / "accelerate" / f"{file}.yaml" if isinstance(file, str) else file
    count = [] if processes is None else ["--num_processes", processes]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", file, *count]
    return [str(word) for word in (*command, "--main_process_port", free_port(), *words)]


def torchrun(processes: int, *words) -> list[str]:
    options = ["--nproc_per_node", processes, "--master_port", free_port(), "--"]  # or --run would be its --run-path
    return [str(word) for word in (sys.executable, "-m", "torch.distributed.run", *options, *words)]


def _work_together(work: Callable, *arguments) -> None:
    """A rank that ends while another one still reads from it resets the connection."""
    import torch.distributed  # here, since most users of this module start processes alone

    work(*arguments)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def run_ranks(work: Callable, arguments: Iterable[tuple], timeout: float) -> None:
    """Run a function in new processes, one for each tuple of arguments, and require that all of them succeed."""
    ranks = [forked_process(_work_together, (work, *each)) for each in arguments]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout)
        process.kill()
    assert [process.exitcode for process in ranks] == [0] * len(ranks)


def finish(command: list[str], timeout: float = 400, cwd: Path = REPOSITORY, **environment) -> tuple[int, str]:
    """Run a command to its end, its children with it. Returns its exit code and what it said."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(INHERITED)}
    clean |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "PYTHONFAULTHANDLER": "1"}
    clean |= {"MIVOLO_RENDEZVOUS_TIMEOUT": "300"}  # seconds; on a busy machine one rank starts long after another
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output
    finally:  # torchrun's workers have sessions of their own: no signal to a group would reach them
        if process.poll() is None:
            for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                one.kill()
            process.wait()


def free_port() -> int:
    return free_ports(1)[0]


def lines(path: Path, kind: str) -> list[dict]:
    """The records of one kind in a run's ``metrics.jsonl``."""
    return [record for record in map(json.loads, path.read_text().splitlines()) if record["kind"] == kind]
