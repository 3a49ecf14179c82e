"""Functions that differ between operating systems, with one interface for Windows and POSIX.

It imports only the standard library, so that it can be used before torch is imported.
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

    _LOCKED_BYTE = 1 << 30  # far behind the content, since Windows blocks reading of a locked range
    _seeking = Lock()

    def open_to_read(path: Path | str) -> int:
        """A descriptor to read a file, without blocking on a pipe. Raises OSError."""
        return os.open(path, os.O_RDONLY | os.O_BINARY)

    def pread(file: int, size: int, offset: int) -> bytes:
        """At most ``count`` bytes from ``offset`` on. It is thread-safe."""
        with _seeking:
            os.lseek(file, offset, os.SEEK_SET)
            return os.read(file, size)

    def try_lock(file: IOBase) -> bool:
        """Lock a file until this process closes it or ends; its workers do not inherit the lock.

        Returns:
            False if another process has locked it; True also if the file system has no locks.
        """
        descriptor = file.fileno()
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            return error.errno == errno.EINVAL  # the error of a file system without locks
        finally:
            os.lseek(descriptor, position, os.SEEK_SET)
        return True

    def remove_locked(file: IOBase, path: Path) -> None:
        """Close and remove a locked file, which stays if another process has it open."""
        file.close()
        with suppress(OSError):
            path.unlink()

    def sync_path(path: Path) -> None:
        """Flush a file, or the names in a folder, to the disk. Raises OSError."""
        if path.is_file():  # a folder cannot be opened
            _sync(os.open(path, os.O_RDWR | os.O_BINARY))

    def is_lost(descriptor: int) -> bool:
        """Whether the other end of an output is closed; False if unknown."""
        return False

    def command_line(words: Iterable[str]) -> str:
        """A command as text for the system's shell."""
        return list2cmdline(words)

    def open_file_limit() -> float:
        """The largest number of open files of this process."""
        return 8192

    def peak_memory() -> int:
        """The peak memory of this process in bytes."""
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
        path.unlink(missing_ok=True)  # before releasing the lock, so that the next process creates a new file
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
    """The signals of these names that the system has: Windows has no SIGHUP and no SIGUSR2."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


def reserve(file: int, size: int) -> None:
    """Extend an open file by zeros and allocate all of its blocks. Raises OSError if the disk is full."""
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
        if error.errno != errno.EINVAL:  # not supported by the file system
            raise
    finally:
        os.close(descriptor)
