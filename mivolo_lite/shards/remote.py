"""Files at a URL, read in ranges through fsspec, with retries."""

import os
import random
import time
from collections.abc import Callable
from typing import Any

from mivolo_lite.credentials import without_credentials
from mivolo_lite.errors import UserError, one_line
from mivolo_lite.paths import proxy_options
from mivolo_lite.shards.members import DamagedBytes

TRIES, PATIENCE = 9, 45.0
"""Limits of the retries: their number, and the seconds from the first to the last. So a silent or very slow server is
given up after a minute."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds: the longest pause before the second try; it doubles before each further one."""

_SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "https": "https", "http": "https", "hf": "hf", "file": "file"}
"""The protocols of addresses, and the extra that installs the package for each."""

_ADVICE = "; upload the whole folder that was packed or indexed"
_SILENCE = 15.0  # seconds without a byte after which a connection is given up
_SLOWEST = 200e3  # bytes a second, below which a connection is given up
_LARGEST = 64 * 2**20  # bytes of a file of unknown size; a dataset.json of 100,000 shards has 15 million
_UNKNOWN = 6 * 2**20  # bytes of a file of unknown size, for its time limit
_WORTH_ANOTHER_TRY = (408, 425, 429)  # client errors that may succeed later


class RemoteFolder:
    """The files under a URL.

    Args:
        url: what fsspec takes, as in ``s3://bucket/folder``. Credentials, endpoints and proxies come from the
            environment.
        patience: seconds after the first try in which another one may begin.
        advice: the end of the error for a missing file.

    Raises:
        UserError: the protocol is unknown, or the package for it is not installed.
    """

    def __init__(self, url: str, patience: float = PATIENCE, advice: str = _ADVICE):
        self.patience, self.advice = patience, advice
        self._scheme = url.partition("://")[0]
        base, question, query = url.partition("?") if self._scheme in ("http", "https") else (url, "", "")
        self.url, self._query = base.rstrip("/") + question + query, question + query
        if self._scheme not in _SCHEMES:
            raise UserError(f"{url}: no such kind of address; there are folders, s3://, gs://, https:// and hf://")
        self._process: int | None = None
        self._connect()

    def __str__(self) -> str:
        return without_credentials(self.url)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFolder, (self.url, self.patience, self.advice)

    def read(
        self, name: str, start: int = 0, end: int | None = None, check: Callable[[bytes], None] | None = None
    ) -> bytes:
        """A file's bytes from ``start`` to ``end``, or all of them, with retries and exponential backoff.

        Args:
            name: of the file.
            start: first byte.
            end: the byte behind the last one.
            check: raises DamagedBytes if they are wrong.

        Raises:
            UserError: the file is missing, may not be read, or each try failed.
        """
        begun, attempt = time.monotonic(), 0
        while True:
            try:
                return self._request(name, start, end, check)
            except UserError:
                raise
            except Exception as error:  # each storage has exceptions of its own
                if _is_final(error) or attempt == TRIES - 1 or time.monotonic() - begun > self.patience:
                    tried = f" (tried {attempt + 1} times)" if attempt else ""
                    advice = self.advice if isinstance(error, FileNotFoundError) else ""
                    raise UserError(f"{self._base()}/{name}: {_reason(error)}{tried}{advice}") from None
            # Random, so that ranks that failed together do not retry together.
            time.sleep(random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)))
            attempt += 1

    def _request(self, name: str, start: int, end: int | None, check: Callable[[bytes], None] | None) -> bytes:
        self._connect()
        data = self._read(f"{self._root}/{name}{self._query}", start, end)
        if end is None and len(data) > _LARGEST:
            raise UserError(f"{self._base()}/{name}: more than {_LARGEST / 1e6:.0f} MB, which no index is")
        if end is not None and len(data) > end - start:
            raise UserError(f"{self}: its server ignores ranges, so samples cannot be read one block at a time")
        if end is not None and len(data) < end - start:
            raise DamagedBytes(f"cut off after {len(data)} of {end - start} bytes")
        if check is not None:
            check(data)
        return data

    def _connect(self) -> None:
        """Connections and event loops do not outlive a fork: each process has its own."""
        if self._process == os.getpid():
            return
        try:
            import fsspec

            if self._scheme in ("http", "https"):
                from aiohttp import ClientTimeout

                from mivolo_lite.shards.bounded_http import BoundedHttp

                timeout = ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)
                client = proxy_options(self.url)["client_kwargs"] | {"timeout": timeout}
                self._files, self._root = BoundedHttp(_LARGEST, client_kwargs=client), self._base()
            else:
                self._files, self._root = fsspec.url_to_fs(self.url, **proxy_options(self.url))
        except ImportError as error:
            extra = _SCHEMES[self._scheme]
            raise UserError(
                f'{self.url}: needs a package ({one_line(error)[:300]}); pip install "mivolo-lite[{extra}]"'
            ) from None
        except Exception as error:  # of credentials or settings
            raise UserError(f"{self.url}: {_reason(error)}") from None
        self._process = os.getpid()

    def _read(self, path: str, start: int, end: int | None) -> bytes:
        ends = {} if end is None else {"start": start, "end": end}
        if not self._files.async_impl:  # these would read through a buffer that fetches more than requested
            return self._files.cat_file(path, **ends, cache_type="none")
        from fsspec.asyn import sync

        size = _UNKNOWN if end is None else end - start
        cat, timeout = self._files._cat_file, _SILENCE + size / _SLOWEST
        return sync(self._files.loop, cat, path, **ends, timeout=timeout)

    def _base(self) -> str:
        return self.url.removesuffix(self._query)


def _is_final(error: Exception) -> bool:
    if isinstance(error, FileNotFoundError | PermissionError | ImportError):
        return True
    status = getattr(error, "status", None)
    return isinstance(status, int) and 400 <= status < 500 and status not in _WORTH_ANOTHER_TRY


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "not there"
    if isinstance(error, PermissionError):
        return f"may not be read with the credentials of this environment: {one_line(error)[:300]}"
    if isinstance(error, DamagedBytes):
        return str(error)
    return f"cannot be read: {type(error).__name__}: {one_line(error)[:300]}"
