"""Ranks as ``accelerate launch`` starts them, without the launcher, and forked where everything is imported.

A launch of two ranks imports torch three times, and DeepSpeed as often. Real ones: tests/distributed/test_launch.py.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from tests.forked import forked_context
from tests.training.launching import INHERITED, REPOSITORY, free_port


def run_launched(
    file: str, processes: int, work: Callable, arguments: tuple, folder: Path, timeout: float = 400
) -> tuple[list[int], str]:
    """Run a function in the ranks of a file of launch/accelerate/. When one is killed, the others are.

    Returns:
        Their exit codes, and what they said.
    """
    context, port = forked_context(), free_port()
    files = [folder / f"rank-{rank}.out" for rank in range(processes)]
    ranks = [
        context.Process(target=_rank, args=(file, rank, processes, port, files[rank], work, arguments))
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


def _rank(file: str, rank: int, processes: int, port: int, output: Path, work: Callable, arguments: tuple) -> None:
    with open(output, "w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.chdir(REPOSITORY)
    for name in [name for name in os.environ if name.startswith(INHERITED)]:
        del os.environ[name]
    os.environ |= _launch_environment(file, processes)
    if file != "single":
        os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{processes}"}
        os.environ |= {"LOCAL_WORLD_SIZE": f"{processes}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    work(*arguments)


def _launch_environment(file: str, processes: int) -> dict[str, str]:
    """What accelerate gives to torchrun, or to a single process."""
    from accelerate.commands.launch import launch_command, launch_command_parser

    found: dict[str, str] = {}

    def start(command, env):
        found.update(env)
        return SimpleNamespace(wait=lambda: None, returncode=0)

    path = REPOSITORY / "launch" / "accelerate" / f"{file}.yaml"
    words = ["--config_file", f"{path}", "--num_processes", f"{processes}", "train.py"]
    with (
        patch("torch.distributed.run.run", lambda _: found.update(os.environ)),
        patch.object(subprocess, "Popen", start),
    ):
        launch_command(launch_command_parser().parse_args(words))
    return found
