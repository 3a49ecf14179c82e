"""Ranks as ``accelerate launch`` or torchrun starts them, without the launcher, and forked where all is imported.

A launch of two ranks imports torch three times, and DeepSpeed as often. Real ones: tests/distributed/test_launch.py.
"""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from tests.forked import forked_process, say_into
from tests.training.launching import INHERITED, REPOSITORY, free_port

TORCHRUN = None
"""In place of a launch file."""


def run_launched(
    file: str | Path | None,
    processes: int,
    work: Callable,
    arguments: tuple,
    folder: Path,
    timeout: float = 400,
    options: tuple[str, ...] = (),
    **environment: str,
) -> tuple[list[int], str]:
    """Run a function in the ranks of a file of launch/accelerate/, or another. When one is killed, the others are.

    Args:
        file: a name there, the path of a launch file, or ``TORCHRUN``.
        processes: how many ranks are asked for. A launch that starts one alone has no others.
        work: what each rank runs.
        arguments: of ``work``.
        folder: of their outputs.
        timeout: in seconds.
        options: of ``accelerate launch``, besides.
        environment: of the launch, besides.

    Returns:
        Their exit codes, and what they said.
    """
    port = free_port()
    path = REPOSITORY / "launch" / "accelerate" / f"{file}.yaml" if isinstance(file, str) else file
    launch = ["--config_file", f"{path}", "--num_processes", f"{processes}", *options, "train.py"] if path else []
    files = [folder / f"rank-{rank}.out" for rank in range(processes)]
    ranks = [
        forked_process(_rank, (launch, environment, rank, processes, port, files[rank], work, arguments))
        for rank in range(processes)
    ]
    for process in ranks:
        process.start()
    end = time.monotonic() + timeout
    while any(process.is_alive() for process in ranks):
        if any((process.exitcode or 0) < 0 for process in ranks) or time.monotonic() > end:
            for process in ranks:
                process.kill()
        time.sleep(0.05)
    return [process.exitcode for process in ranks], "\n".join(file.read_text() for file in files if file.exists())


def _rank(
    launch: list[str],
    environment: dict[str, str],
    rank: int,
    processes: int,
    port: int,
    output: Path,
    work: Callable,
    arguments: tuple,
) -> None:
    say_into(output)
    os.chdir(REPOSITORY)
    for name in [name for name in os.environ if name.startswith(INHERITED)]:
        del os.environ[name]
    of_rank = {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{processes}"}
    of_rank |= {"LOCAL_WORLD_SIZE": f"{processes}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    os.environ |= environment
    os.environ |= _launch_environment(launch, of_rank) if launch else of_rank
    if rank == 0 or "RANK" in os.environ:
        work(*arguments)


def _launch_environment(launch: list[str], of_rank: dict[str, str]) -> dict[str, str]:
    """What accelerate gives to torchrun, and this to a rank; or what accelerate gives to a single process."""
    from accelerate.commands.launch import launch_command, launch_command_parser

    found: dict[str, str] = {}

    def start(command, env):
        found.update(env)
        return SimpleNamespace(wait=lambda: None, returncode=0)

    with (
        patch("torch.distributed.run.run", lambda _: found.update(os.environ | of_rank)),
        patch.object(subprocess, "Popen", start),
    ):
        launch_command(launch_command_parser().parse_args(launch))
    return found
