"""Processes forked from one that has imported everything, so that they start at once: 3 s of each otherwise."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from resource import RLIMIT_FSIZE, setrlimit
from types import SimpleNamespace

from mivolo_lite.cli.entry import COMMANDS

COMMAND_MODULES = tuple(f"mivolo_lite.cli.{command.replace('-', '_')}" for command in COMMANDS)
"""What ``tests.warm`` imports first. Importing that module here would silence this process, and cost it DeepSpeed."""


class ForkedProcess(ForkServerProcess):
    """What it starts is forked as well. Left to itself it would start a server of its own, from which each of a
    loader's workers would import torch anew, 4 s for each."""

    def run(self) -> None:
        multiprocessing.set_start_method("fork", force=True)
        super().run()


def forked_process(target: Callable, args: tuple) -> ForkedProcess:
    """A process of multiprocessing, to be started. The test process has threads and files, and is not to be forked."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.warm"])
    return ForkedProcess(target=target, args=args)


def popen_forked(command: list[str]) -> SimpleNamespace:
    """Stands for ``subprocess.Popen`` of ``python -m mivolo_lite``."""
    process = forked_process(_run, (os.getcwd(), command[3:]))
    process.start()

    def wait() -> int | None:
        process.join()
        return process.exitcode

    return SimpleNamespace(wait=wait)


def _run(folder: str, words: list[str]) -> None:
    from mivolo_lite.cli import main

    os.chdir(folder)
    main(words)


def start_forked(words: list[str], output: Path, largest_file: int | None = None) -> ForkedProcess:
    """Stands for ``subprocess.Popen`` of ``mivolo-lite`` from a terminal, in a session of its own.

    Args:
        words: its command line.
        output: the file into which it says all that it says.
        largest_file: in bytes; it cannot write a larger one.
    """
    process = forked_process(_run_as_from_a_terminal, (os.getcwd(), words, output, largest_file))
    process.start()
    return process


def _run_as_from_a_terminal(folder: str, words: list[str], output: Path, largest_file: int | None) -> None:
    from mivolo_lite.cli import main

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    say_into(output)
    os.chdir(folder)
    if largest_file is not None:
        setrlimit(RLIMIT_FSIZE, (largest_file, largest_file))
    sys.argv = ["mivolo-lite", *words]
    main()


def say_into(output: Path) -> None:
    """All that this process and its children say goes into a file."""
    with open(output, "w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
