"""The exceptions for bad input and failing machines, and other errors in one line."""

import re
import traceback
from pathlib import Path

from mivolo_lite.credentials import without_credentials

_ROOT = Path(__file__).parent
_TERMINAL = re.compile(r"\x1b\[[0-9;]*m")


class UserError(Exception):
    """Bad input, named in one line: what, where, how to fix it.

    Commands print the message without a traceback and exit with ``exit_code``. It must not contain credentials.
    """

    exit_code = 2

    def __init__(self, message: str):
        super().__init__(without_credentials(str(message)))


class MachineError(UserError):
    """A failure of the machine, not of the input: a killed worker, a lost rank or disk.

    Its exit code tells a batch system that a restart may succeed.
    """

    exit_code = 1


def in_one_line(error: Exception) -> UserError | None:
    """The one-line error for an exception that is not a bug; None for any other."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError):
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return MachineError(": ".join([*names, error.strerror or one_line(error)]))
    if isinstance(error, ImportError | SyntaxError):  # for example of a user's method
        return UserError(where_raised(error))
    if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):
        # raised by torch in the main thread when a worker died
        return worker_died(one_line(error).rstrip("."))
    return None


def worker_died(how: str) -> MachineError:
    """The error for a loader's worker that ended too early."""
    return MachineError(
        f"{how}: if memory ran out (`dmesg` tells), use fewer workers, or give a container more with --shm-size"
    )


def one_line(error: Exception) -> str:
    """The message of an error in one line; its type if it is empty."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: Exception) -> str:
    """The first line of an error, without terminal codes; its type if it is empty."""
    return _TERMINAL.sub("", (str(error).strip() or type(error).__name__).splitlines()[0])


def where_raised(error: Exception) -> str:
    """An error in one line, after the file and line where it was raised."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _ROOT in Path(frame.filename).parents]
    place = f"{Path(frames[-1].filename).relative_to(_ROOT.parent)}, line {frames[-1].lineno}: " if frames else ""
    return f"{place}{type(error).__name__}: {one_line(error)}"
