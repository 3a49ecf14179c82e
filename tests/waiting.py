"""Waiting for what other processes do."""

import time
from collections.abc import Callable


def wait_until(true: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    """Ask again and again. Where it is not true in time, fail with what is the matter then."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} seconds: {what()}"
        time.sleep(0.1)
