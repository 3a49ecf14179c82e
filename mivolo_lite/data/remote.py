"""Files at a URL, read in ranges through fsspec by somebody who does not give up at the first failure."""

import os
import random
import time
from collections.abc import Callable

from mivolo_lite.data.members import DamagedBytes
from mivolo_lite.errors import UserError

TRIES = 9
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds: at most this long before the second try, twice that before the third, and so on; about a minute in all."""

_SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "https": "https", "http": "https", "hf": "hf", "file": "file"}
"""What an address may begin with, and the extra that installs what reads it."""

_SILENCE = 60.0  # seconds without a byte after which a connection is given up
_WORTH_ANOTHER_TRY = (408, 425, 429)  # of the statuses that blame the client


def is_url(address: object) -> bool:
    """Whether an address is a URL and not a folder."""
    return "://" in str(address)


class RemoteFolder:
    """The files under a URL.

    Args:
        url: what fsspec takes, as in ``s3://bucket/folder``. Credentials and endpoints are the environment's affair.

    Raises:
        UserError: a kind of URL that is not known here, or a package for it that is missing.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self._scheme = url.partition("://")[0]
        if self._scheme not in _SCHEMES:
            raise UserError(f"{url}: no such kind of address; there are folders, s3://, gs://, https:// and hf://")
        self._process: int | None = None
        self._connect()

    def __str__(self) -> str:
        return self.url

    def __reduce__(self):
        return RemoteFolder, (self.url,)

    def read(
        self, name: str, start: int | None = None, end: int | None = None, check: Callable[[bytes], None] | None = None
    ) -> bytes:
        """A file's bytes from ``start`` to ``end``, or all of them, tried again with longer and longer pauses.

        Args:
            name: of the file.
            start: first byte.
            end: the byte behind the last one.
            check: raises DamagedBytes where they are wrong.

        Raises:
            UserError: it is not there, or may not be read, or each try failed.
        """
        for attempt in range(TRIES):
            try:
                return self._request(name, start, end, check)
            except Exception as error:  # each storage has exceptions of its own
                if isinstance(error, UserError):
                    raise
                if _is_final(error) or attempt == TRIES - 1:
                    tried = f" (tried {attempt + 1} times)" if attempt else ""
                    raise UserError(f"{self.url}/{name}: {_reason(error)}{tried}") from None
            # At random, so that ranks that failed together do not come back together.
            time.sleep(random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)))

    def _request(self, name: str, start: int | None, end: int | None, check: Callable | None) -> bytes:
        self._connect()
        data = self._files.cat_file(f"{self._root}/{name}", start=start, end=end, **self._options)
        if end is not None and len(data) > end - start:
            raise UserError(f"{self.url}: its server ignores ranges, so samples cannot be read one block at a time")
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

                timeout = ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)
                options = {"client_kwargs": {"timeout": timeout}}
            else:
                options = {}
            self._files, self._root = fsspec.url_to_fs(self.url, **options)
        except ImportError as error:
            extra = _SCHEMES[self._scheme]
            raise UserError(f"{self.url}: needs a package ({_line(error)}); pip install -e '.[{extra}]'") from None
        except Exception as error:  # of credentials or settings
            raise UserError(f"{self.url}: {_reason(error)}") from None
        # Those that are not asynchronous read through a buffer that fetches more than was asked for.
        self._options = {} if self._files.async_impl else {"cache_type": "none"}
        self._process = os.getpid()


def _is_final(error: Exception) -> bool:
    if isinstance(error, UserError | FileNotFoundError | PermissionError | ImportError):
        return True
    status = getattr(error, "status", None)
    return isinstance(status, int) and 400 <= status < 500 and status not in _WORTH_ANOTHER_TRY


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "not there; upload the whole folder that was packed or indexed"
    if isinstance(error, PermissionError):
        return f"may not be read with the credentials of this environment: {_line(error)}"
    if isinstance(error, DamagedBytes):
        return str(error)
    return f"cannot be read: {type(error).__name__}: {_line(error)}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
