"""Standard output and error that may be closed: with the terminal, or by Ctrl-C in ``| tee``.

An interrupted run must still save, and not fail because it cannot print.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

from mivolo_lite.system import is_lost

_GONE = (errno.EIO, errno.EPIPE)


@contextmanager
def losable_output() -> Iterator[None]:
    """Drop this and all later output if the output is closed."""
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise
        drop_lost_outputs()


def drop_lost_outputs() -> bool:
    """Redirect closed standard output and error to /dev/null. Returns whether one was closed."""
    lost = [descriptor for descriptor in (1, 2) if is_lost(descriptor)]
    for descriptor in lost:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    return bool(lost)


def escape_unprintable() -> None:
    """Escape characters that the output's encoding lacks, such as Greek on a Windows console with cp1252."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a program without a console has none
            stream.reconfigure(errors="backslashreplace")


def complain(line: str) -> None:
    """Print a line to standard error."""
    with losable_output():
        print(line, file=sys.stderr, flush=True)


def printable(line: str) -> str:
    """A text as one line without control characters."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in " ".join(line.split())
    )
