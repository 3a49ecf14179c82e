"""Processes forked from one that has imported everything, so that they start at once: 3 s of each otherwise."""

from multiprocessing import get_context
from multiprocessing.context import ForkServerContext


def forked_context() -> ForkServerContext:
    """Of multiprocessing. The test process itself has threads and files, and cannot be forked at any time."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.warm"])
    return context
