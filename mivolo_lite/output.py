"""Standard output and standard error that may go away: a closed terminal, a ``| tee`` that Ctrl-C ended as well.

An interrupted run still has to save, and must not fail because it cannot print a line.
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
    """Around printing: where the output is gone, this and all later output is dropped."""
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise
        drop_lost_outputs()


def drop_lost_outputs() -> bool:
    """Redirect standard output and error to /dev/null where their other end is gone; returns whether one was."""
    lost = [descriptor for descriptor in (1, 2) if is_lost(descriptor)]
    for descriptor in lost:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    return bool(lost)


def escape_unprintable() -> None:
    """Let this process's output escape what its encoding lacks, as a name in Greek on a Windows console of cp1252."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a program without a console has none
            stream.reconfigure(errors="backslashreplace")


def complain(line: str) -> None:
    """One line on standard error."""
    with losable_output():
        print(line, file=sys.stderr, flush=True)


def printable(line: str) -> str:
    """One line that moves no cursor and clears no screen, whatever names and values it quotes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in " ".join(line.split())
    )
