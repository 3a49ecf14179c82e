"""What operating systems do differently, under names that are the same for Windows and for POSIX.

Needs nothing but Python, so that it can be asked before torch is imported.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import IOBase
from math import inf
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
    from subprocess import list2cmdline
    from threading import Lock

    KILL = signal.SIGTERM
    """Ends a process at once."""
    MOST_IN_POOL = 61
    """Processes of one pool: Windows waits for 63 things at once."""

    _LOCKED_BYTE = 1 << 30  # far behind the content, which Windows would keep others from reading
    _seeking = Lock()

    def open_to_read(path: Path | str) -> int:
        """A descriptor of a file's bytes; of a pipe without waiting for who writes to it. Raises OSError."""
        return os.open(path, os.O_RDONLY | os.O_BINARY)

    def pread(file: int, size: int, offset: int) -> bytes:
        """At most so many bytes from there on. Threads may call it together."""
        with _seeking:
            os.lseek(file, offset, os.SEEK_SET)
            return os.read(file, size)

    def try_lock(file: IOBase) -> bool:
        """Lock a file until this process closes it or ends; its workers do not inherit the lock.

        Returns:
            False where another process has locked it; True also where the file system has no locks.
        """
        descriptor = file.fileno()
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            return error.errno == errno.EINVAL  # what it gives for a file system without locks
        finally:
            os.lseek(descriptor, position, os.SEEK_SET)
        return True

    def remove_locked(file: IOBase, path: Path) -> None:
        """Close and remove a locked file; it stays where another process has opened it meanwhile."""
        file.close()
        with suppress(OSError):
            path.unlink()

    def sync_path(path: Path) -> None:
        """Flush a file, or the names in a folder, to the disk. Raises OSError."""
        if path.is_file():  # a folder cannot be opened
            _sync(os.open(path, os.O_RDWR | os.O_BINARY))

    def is_lost(descriptor: int) -> bool:
        """Whether the other end of an output is gone; False where the system does not tell."""
        return False

    def command_line(words: Iterable[str]) -> str:
        """A command as a user of the system's shell writes it."""
        return list2cmdline(words)

    def open_file_limit() -> float:
        """How many files this process may have open."""
        return 8192

    def peak_memory() -> int:
        """The most bytes of memory that this process has had."""
        import psutil  # a dependency of accelerate

        return psutil.Process().memory_info().peak_wset

else:
    import fcntl
    import resource
    import select
    import shlex

    KILL = signal.SIGKILL
    MOST_IN_POOL = sys.maxsize

    pread: Callable[[int, int, int], bytes] = os.pread

    def open_to_read(path: Path | str) -> int:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def try_lock(file: IOBase) -> bool:
        # A record lock belongs to the process: the kernel, or the NFS server, frees it when the process dies. `flock`
        # would be inherited by forked workers, which outlive a killed process by some seconds.
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN)
        return True

    def remove_locked(file: IOBase, path: Path) -> None:
        path.unlink(missing_ok=True)  # before the lock is free: the next process makes a file of its own
        file.close()

    def sync_path(path: Path) -> None:
        _sync(os.open(path, os.O_RDONLY))

    def is_lost(descriptor: int) -> bool:
        poll = select.poll()
        poll.register(descriptor, select.POLLERR | select.POLLHUP)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))

    def command_line(words: Iterable[str]) -> str:
        return shlex.join(words)

    def open_file_limit() -> float:
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return inf if allowed == resource.RLIM_INFINITY else allowed

    def peak_memory() -> int:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def signals(*names: str) -> tuple[signal.Signals, ...]:
    """Those of these signals that the system has: Windows has no SIGHUP and no SIGUSR2."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


def reserve(file: int, size: int) -> None:
    """Give an open file so many bytes of zeros, with all of their blocks on the disk. Raises OSError without room."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    for start in range(0, size, _CHUNK):
        os.write(file, bytes(min(_CHUNK, size - start)))


_CHUNK = 2**20


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot
            raise
    finally:
        os.close(descriptor)
