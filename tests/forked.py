"""Processes forked from one that has imported everything, so that they start at once: 3 s of each otherwise."""

import os
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from types import SimpleNamespace


def forked_context() -> ForkServerContext:
    """Of multiprocessing. The test process itself has threads and files, and cannot be forked at any time."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.warm"])
    return context


def run_forked(command: list[str]) -> SimpleNamespace:
    """Stands for ``subprocess.run`` of ``python -m mivolo_lite``."""
    process = forked_context().Process(target=_run, args=(os.getcwd(), command[3:]))
    process.start()
    process.join()
    return SimpleNamespace(returncode=process.exitcode)


def _run(folder: str, words: list[str]) -> None:
    from mivolo_lite.cli import main

    os.chdir(folder)
    main(words)
