"""Files that a process keeps open for reading: the most recently used, since a process may not open all shards."""

import os
from collections import OrderedDict
from collections.abc import Callable

from mivolo_lite.system import open_file_limit

MOST_OPEN = 256
"""Most open files of one process over all of its data sets; at most a quarter of ``ulimit -n``."""


class OpenFiles:
    """Descriptors by reader and shard. A forked process has copies, which it may read and close."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[int, int], int] = OrderedDict()

    def descriptor(self, key: tuple[int, int], open_file: Callable[[], int]) -> int:
        """The descriptor of a file, opened by ``open_file`` if it is not open yet."""
        if key in self._files:
            self._files.move_to_end(key)
        else:
            while len(self._files) >= _limit():
                os.close(self._files.popitem(last=False)[1])
            self._files[key] = open_file()
        return self._files[key]

    def close(self, concerns: Callable[[tuple[int, int]], bool]) -> None:
        """Close the files of some keys."""
        for key in [key for key in self._files if concerns(key)]:
            os.close(self._files.pop(key))


def _limit() -> int:
    return max(1, int(min(MOST_OPEN, open_file_limit() // 4)))
