"""Samples from addresses that webdataset opens, in bounded memory and time: a stream may be empty, cut or endless."""

import os
import random
import select
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from webdataset.gopen import Pipe, gopen
from webdataset.shardlists import expand_urls
from webdataset.tariterators import group_by_keys

from mivolo_lite.errors import UserError, one_line

PATIENCE = 60.0
"""Seconds without a sample after which a stream is given up."""
MOST_BYTES = 2**28
"""Bytes without a sample after which a stream is given up; no image has as many."""

_BROKEN_PIPE = 141, -13  # exit codes of a command whose output is no longer read: of a shell, and of SIGPIPE itself
_CURLS = {6: "no such host", 7: "nobody answers there", 22: "the server refuses it, as with 403 or 404"}
"""Meaning of the exit codes of curl, with which webdataset reads URLs."""
_GRACE = 5.0  # seconds for a command to end after its output


class StreamSource:
    """Samples without end: dictionaries of members by extension, with ``__key__``, as webdataset has them.

    Shards are sampled with replacement, which is the only way to give all ranks equally many batches.

    Args:
        urls: what webdataset takes: a path, a URL, ``pipe:COMMAND``; with braces, or several with ``::`` between them.
    """

    def __init__(self, urls: str):
        self.urls = expand_urls(urls)
        self._reset_limits()

    def __iter__(self) -> Iterator[dict]:
        """Raises UserError for a shard that cannot be opened or is damaged, and where no samples come."""
        self._reset_limits()
        for sample in group_by_keys(self._members()):
            self._reset_limits()
            yield sample
            self._reset_limits()  # the time between two requests does not count

    def _reset_limits(self) -> None:
        """Start counting time, bytes and shards since the latest sample."""
        self._since, self._bytes, self._shards = time.monotonic(), 0, 0

    def _members(self) -> Iterator[dict]:
        chance = random.Random(os.urandom(16))
        while True:
            url = chance.choice(self.urls)
            try:
                yield from self._members_of(url)
            except UserError:
                raise
            except Exception as error:  # each kind of address has exceptions of its own
                raise UserError(f"data.train {url}: cannot be read: {one_line(error)[:300]}") from None
            self._shards += 1
            if self._shards > 100 + 10 * len(self.urls):
                raise UserError(f"data.train {url}: {self._shards} shards in turn without a sample")

    def _members_of(self, url: str) -> Iterator[dict]:
        with _opened(url) as stream:
            reader = _Reader(stream, lambda size: self._check(url, size), lambda: self._seconds_left(url))
            with tarfile.open(fileobj=reader, mode="r|*") as tar:  # type: ignore[call-overload]  # it is only read
                for member in tar:
                    if member.isfile():
                        yield {"fname": member.name, "data": tar.extractfile(member).read(), "__url__": url}
                    tar.members = []  # otherwise tarfile stores all members
            while reader.read(tarfile.RECORDSIZE):  # a command that cannot write its last zeros would fail
                pass
            # tarfile takes a truncated header for the end of the tar.
            if tar.fileobj.comptype == "tar" and reader.latest.strip(b"\0"):
                raise tarfile.ReadError("truncated: no end of archive behind its last member")
        yield {}  # the last sample ends with its shard

    def _check(self, url: str, size: int) -> None:
        self._bytes += size
        if self._bytes > MOST_BYTES:
            raise UserError(f"data.train {url}: {MOST_BYTES / 1e6:.0f} MB without a sample")

    def _seconds_left(self, url: str) -> float:
        remaining = self._since + PATIENCE - time.monotonic()
        if remaining <= 0:
            raise UserError(f"data.train {url}: no sample in {PATIENCE:.0f} seconds")
        return remaining


class _Reader:
    """The file that tarfile reads from. Each read is counted, and has a timeout.

    Attributes:
        latest: the last bytes that were read.
    """

    def __init__(self, stream: Any, count: Callable[[int], None], seconds_left: Callable[[], float]):
        self.stream, self.count, self.seconds_left, self.latest = stream, count, seconds_left, b""

    def read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size and (chunk := self._read_some(size - len(data))):
            self.count(len(chunk))
            data += chunk
        self.latest = bytes((self.latest + data)[-tarfile.BLOCKSIZE :])
        return bytes(data)

    def _read_some(self, size: int) -> bytes:
        remaining = self.seconds_left()
        try:
            descriptor = self.stream.fileno()
        except (AttributeError, OSError):  # a file object of Python
            return self.stream.read(size)
        ready, _, _ = select.select([descriptor], [], [], remaining)
        return os.read(descriptor, size) if ready else self._read_some(size)


@contextmanager
def _opened(url: str) -> Iterator:
    """The stream of an address, or of a command's output. Raises OSError if the command failed."""
    stream = gopen(url)
    if not isinstance(stream, Pipe):
        with stream:
            yield stream
        return
    process = stream.proc
    try:
        try:
            yield process.stdout
        except tarfile.TarError:  # of the output of a command that failed, or of one that did not
            _check_ended(process, url)
            raise
        _check_ended(process, url)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _check_ended(process: subprocess.Popen, url: str) -> None:
    try:
        code = process.wait(timeout=_GRACE)
    except subprocess.TimeoutExpired:
        return  # it had more to say
    if code not in (0, *_BROKEN_PIPE):
        reason = "" if url.startswith("pipe:") or code not in _CURLS else f": {_CURLS[code]}"
        raise OSError(f"the command that reads it ended with exit code {code}{reason}")
