"""A disk that becomes full."""

import errno
import io
import os
from collections.abc import Callable
from typing import Any


def small_disk(room: int) -> Callable[..., Any]:
    """An ``open`` whose written files have so many bytes of room together; the last write may be a part."""
    left = [room]

    class File(io.FileIO):
        def write(self, data) -> int:
            taken = min(len(data), left[0])
            if data and not taken:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left[0] -= taken
            return super().write(data[:taken])

    return lambda path, mode, buffering=-1: File(path, mode) if "w" in mode else open(path, mode, buffering)
