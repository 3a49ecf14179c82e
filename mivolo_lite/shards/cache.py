"""A bounded folder of fetched files, shared by all processes of a node.

The first process that needs a file writes it, and the others wait. It is written to a temporary name and renamed, so a
file is complete or absent. Its space is reserved before, and the least recently used files are evicted, so the folder
never exceeds its bound. All locks are the kernel's, which releases them when a process ends for any reason.

The folder must belong to the user, and no link in it is followed: its name is predictable, so another user could have
created it beforehand.
"""

import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mivolo_lite.errors import UserError
from mivolo_lite.ranges import float_range, int_range

try:
    import fcntl
except ImportError:  # Windows, which cannot rename or remove an open file either
    fcntl = None  # type: ignore[assignment]

EVICTABLE = ".block"
"""Suffix of files that may be evicted."""

_LEDGER, _PARTIAL = "lock", ".partial"
_DIGITS = 20  # bytes of the ledger's count
_PAGE = 4096  # files take whole pages of a disk
_FULL_AFTER_CLEARING = 0.9  # listing 10,000 files takes 50 ms, so it is not done for every new one
_PAUSE = 0.05


@dataclass
class CacheConfig:
    """The cache of remote shards on each node; without effect for shards in a folder.

    Attributes:
        folder: on a local disk; empty for a temporary folder of the system.
        gb: largest size in 10^9 bytes; the index and the blocks of two windows should fit.
        readahead_blocks: blocks that each rank prefetches.
        connections: concurrent requests of each reading process.
    """

    folder: str = ""
    gb: Annotated[float, float_range(0, low_open=True)] = 16.0
    readahead_blocks: Annotated[int, int_range(0, 10**6)] = 16
    connections: Annotated[int, int_range(1, 1024)] = 4


class NodeCache:
    """Files named by their content, whose sizes are known before they are written.

    Args:
        folder: created if it is missing.
        bound: largest size on disk in bytes.
    """

    def __init__(self, folder: Path, bound: int):
        self.folder, self.bound = folder, bound
        with self._named_errors():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_owner()
            with self._ledger() as ledger:
                self._reserve(ledger, 0)  # the bound may have been higher

    def _check_owner(self) -> None:
        """Raise UserError if other users could put files into the folder, or links to files that would be
        overwritten."""
        status = os.lstat(self.folder)  # does not follow a link
        if not stat.S_ISDIR(status.st_mode):
            fault = "is a link; give the folder that it leads to, or another"
        elif status.st_uid != os.getuid():
            fault = f"belongs to another user (number {status.st_uid}); give a folder of your own"
        elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            fault = "can be written to by others; empty it and run `chmod 700` on it, or give another folder"
        else:
            return
        raise UserError(f"data.cache.folder {self.folder}: {fault}")

    @classmethod
    def of(cls, config: CacheConfig) -> "NodeCache":
        """The cache that the options describe. Raises UserError on Windows, and where its folder cannot be used."""
        if fcntl is None:
            raise UserError("shards at a URL cannot be read on Windows; copy them to a disk, or use WSL 2")
        default = Path(tempfile.gettempdir()) / f"mivolo_lite-{os.getuid()}"
        return cls(Path(config.folder) if config.folder else default, int(config.gb * 1e9))

    def has(self, name: str) -> bool:
        """Whether a file is complete."""
        return os.path.exists(self.folder / name)

    @contextmanager
    def open(self, name: str, size: int, fill: Callable[[int], None]) -> Iterator[int]:
        """A descriptor of a file, which ``fill`` writes if it is missing. An open file stays readable after its
        eviction."""
        while (file := self._opened(name)) is None:
            self.make(name, size, fill)
        try:
            with self._named_errors(name):
                os.utime(file)  # file systems often do not record the time of the last reading
                yield file
        finally:
            os.close(file)

    def make(self, name: str, size: int, fill: Callable[[int], None], wait: bool = True) -> None:
        """Write a file if it is missing, or wait for the process that is writing it.

        Args:
            name: of the file.
            size: its bytes.
            fill: writes them to a descriptor.
            wait: False to skip a file that another process is writing, or for which there is no space now.

        Raises:
            UserError: it is larger than the cache, or the folder cannot be written; and what ``fill`` raises.
        """
        with self._named_errors():
            while not self.has(name):
                partial = self._claim(name, size, wait)
                if partial is not None:
                    self._fill(name, size, fill, partial)
                if not wait:
                    return

    def drop(self, name: str) -> None:
        """Remove a file that turned out to be damaged."""
        with self._named_errors(), self._ledger() as ledger:
            try:
                size = os.stat(self.folder / name).st_size
                os.unlink(self.folder / name)
            except FileNotFoundError:  # another process was faster
                return
            _release(ledger, size)

    def _opened(self, name: str) -> int | None:
        with self._named_errors():
            try:
                return os.open(self.folder / name, os.O_RDONLY | os.O_NOFOLLOW)
            except FileNotFoundError:
                return None

    def _claim(self, name: str, size: int, wait: bool) -> int | None:
        """A locked descriptor to write to, with reserved space. None, after a wait, if that was not possible."""
        with self._ledger() as ledger:
            if self.has(name):
                return None
            path = self._partial(name)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            free, reserved = _lock(file), False
            try:
                if free:
                    os.ftruncate(file, 0)  # left by a killed process
                    reserved = self._reserve(ledger, size)
                if reserved:
                    os.ftruncate(file, size)
                    return file
            finally:
                if free and not reserved:
                    path.unlink()
                    _unlock(file)
        if not free:
            if wait:
                fcntl.flock(file, fcntl.LOCK_SH)  # until the process that writes it ends
            _unlock(file)
        elif wait:
            time.sleep(_PAUSE)
        return None

    def _fill(self, name: str, size: int, fill: Callable[[int], None], partial: int) -> None:
        try:
            fill(partial)
            os.fsync(partial)  # otherwise the file may be zeros after the node crashes
            with self._ledger():
                os.replace(self._partial(name), self.folder / name)
        except BaseException:
            with self._ledger() as ledger:
                self._partial(name).unlink()
                _release(ledger, size)
            raise
        finally:
            _unlock(partial)

    def _reserve(self, ledger: int, size: int) -> bool:
        """Reserve bytes, evicting files for them. False if unfinished files of other processes take the space."""
        used, need = _read_used(ledger), _on_disk(size)
        if used is None or used + need > self.bound:
            used, permanent = self._clear(self.bound - need)
            _write_used(ledger, used)
            if permanent + need > self.bound:
                raise UserError(
                    f"data.cache.gb {self.bound / 1e9:g}: {self.folder} has no room for {need / 1e9:.3g} GB beside the "
                    f"{permanent / 1e9:.3g} GB that it keeps; allow more, or choose another folder"
                )
            if used + need > self.bound:
                return False
        # Counted before it exists, and until after it is removed: a process killed in between leaves too high a count.
        _write_used(ledger, used + need)
        return True

    def _clear(self, limit: int) -> tuple[int, int]:
        """Evict the least recently used files. Returns the bytes in use, and those that cannot be evicted."""
        evictable, used, permanent = [], _PAGE, _PAGE  # of the ledger
        for entry in os.scandir(self.folder):
            if entry.name == _LEDGER:
                continue
            size = _on_disk(entry.stat(follow_symlinks=False).st_size)
            used += size
            if entry.name.endswith(EVICTABLE):
                evictable.append((entry.stat(follow_symlinks=False).st_mtime_ns, size, entry.path))
            elif not entry.name.endswith(_PARTIAL):
                permanent += size
            elif _is_abandoned(entry.path):
                evictable.append((0, size, entry.path))
        for _, size, path in sorted(evictable):
            if used <= min(limit, self.bound * _FULL_AFTER_CLEARING):
                break
            os.unlink(path)
            used -= size
        return used, permanent

    @contextmanager
    def _ledger(self) -> Iterator[int]:
        """The file with the count of bytes, locked: one process at a time changes what is in the folder."""
        file = os.open(self.folder / _LEDGER, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            _unlock(file)

    @contextmanager
    def _named_errors(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"data.cache.folder {self.folder / name}: {error.strerror}; choose another folder"
            ) from None

    def _partial(self, name: str) -> Path:
        return self.folder / f"{name}{_PARTIAL}"


def _on_disk(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _read_used(ledger: int) -> int | None:
    """The count of bytes; None if there is none yet, or if a crash damaged it."""
    count = os.pread(ledger, _DIGITS, 0)
    return int(count) if len(count) == _DIGITS and count.isdigit() else None


def _write_used(ledger: int, used: int) -> None:
    os.pwrite(ledger, b"%0*d" % (_DIGITS, used), 0)


def _release(ledger: int, size: int) -> None:
    """Subtract the bytes of a removed file from the count."""
    used = _read_used(ledger)
    if used is not None:  # otherwise the next reservation counts the files
        _write_used(ledger, used - _on_disk(size))


def _is_abandoned(path: str) -> bool:
    """Whether the process that was writing an unfinished file is dead."""
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    free = _lock(file)
    _unlock(file)
    return free


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(file: int) -> None:
    # Closing it does not release the lock if the process was forked meanwhile: the child has a copy.
    fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)
