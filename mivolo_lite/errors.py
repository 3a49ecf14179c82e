"""The exceptions for bad input and failing machines, and other errors in one line."""

import re
import traceback
from pathlib import Path

from mivolo_lite.credentials import without_credentials

_ROOT = Path(__file__).parent
_TERMINAL = re.compile(r"\x1b\[[0-9;]*m")


class UserError(Exception):
    """Bad input, named in one line: what, where, how to fix it.

    The command lines print the message without a traceback and exit with ``exit_code``. It never holds credentials.
    """

    exit_code = 2

    def __init__(self, message: str):
        super().__init__(without_credentials(str(message)))


class MachineError(UserError):
    """A failure of the machine, not of the input: a worker was killed, a rank or a disk went away.

    Its exit code is another one: a batch system may start the same again.
    """

    exit_code = 1


def in_one_line(error: Exception) -> UserError | None:
    """The one-line error for an exception that is not a bug; None for any other."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError):
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return MachineError(": ".join([*names, error.strerror or one_line(error)]))
    if isinstance(error, ImportError | SyntaxError):  # as of a method of the user's own
        return UserError(where_raised(error))
    if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):
        # what torch raises, wherever the main thread is, when one of its workers died
        return worker_died(one_line(error).rstrip("."))
    return None


def worker_died(how: str) -> MachineError:
    """The error for a loader's worker that ended too early: which one and how."""
    return MachineError(
        f"{how}: if memory ran out (`dmesg` tells), use fewer workers, or give a container more with --shm-size"
    )


def one_line(error: Exception) -> str:
    """All that an error says, in one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: Exception) -> str:
    """The first line of an error, without terminal codes; its type where it says nothing."""
    return _TERMINAL.sub("", (str(error).strip() or type(error).__name__).splitlines()[0])


def where_raised(error: Exception) -> str:
    """In one line, what an error says, after the file and line of the package where it was raised."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _ROOT in Path(frame.filename).parents]
    place = f"{Path(frames[-1].filename).relative_to(_ROOT.parent)}, line {frames[-1].lineno}: " if frames else ""
    return f"{place}{type(error).__name__}: {one_line(error)}"
