"""Limits on the photos that a server admits, on their arrival and on waiting ones; and its metrics."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

from fastapi import HTTPException, Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import ClientDisconnect

ERRORS = {408: "the photo did not arrive in time", 413: "the file is too large", 422: "the file is no readable photo",
           503: "too many photos are waiting"}  # fmt: skip
"""Errors of rejected requests, by HTTP status."""
_BODY_SECONDS, _LAST_SECONDS = 30, 2
"""Seconds for a photo to arrive, and for those still arriving at Ctrl-C."""
_MOST_ARRIVING = 256
"""Photos that may arrive at once: each is an open file, and many systems allow 1024."""


@dataclass(frozen=True)
class Limits:
    """The limits of a server; the defaults bound its memory to about 1 GB.

    Photos that are still arriving may take as many bytes as ``together + waiting`` photos of the largest size.

    Attributes:
        megabytes: largest file, in 10^6 bytes.
        megapixels: largest photo; larger ones are rejected before decoding.
        together: photos that are decoded and estimated at once.
        waiting: photos that may wait in addition; more are rejected.
    """

    megabytes: float = 16
    megapixels: float = 25
    together: int = 4
    waiting: int = 16


class Meters:
    """The metrics of ``/metrics``, for Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "mivolo_lite"
        self.requests = Counter(f"{name}_requests", "POST /predict", ["status"], registry=self.registry)
        self.people = Counter(f"{name}_people", "people estimated", registry=self.registry)
        self.seconds = Histogram(f"{name}_request_seconds", "from request to answer", registry=self.registry)
        self.batch = Histogram(
            f"{name}_batch_photos", "photos of one batch", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )
        self.waiting = Gauge(f"{name}_photos_in_work", "photos that wait or are estimated", registry=self.registry)
        self.arriving = Gauge(f"{name}_photos_arriving", "photos of which the end is missing", registry=self.registry)

    @contextmanager
    def observed(self) -> Iterator[None]:
        """A context for a request, which records its status and its seconds."""
        start, status = time.monotonic(), 500
        try:
            yield
            status = 200
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            self.requests.labels(str(status)).inc()
            self.seconds.observe(time.monotonic() - start)


class Arrivals:
    """The request bodies that are arriving, with limits on their time, number and bytes.

    Beyond the limits on number and bytes, the body that began first is ended: it is the slowest. So stalling senders
    do not block others.

    Args:
        most_bytes: of all bodies together.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.sizes: dict[asyncio.Timeout, int] = {}
        """Bytes received of each body, in the order in which they began."""

    def __len__(self) -> int:
        return len(self.sizes)

    @asynccontextmanager
    async def limited(self) -> AsyncIterator[Callable[[int], None]]:
        """A context for reading a body; yields a setter of its size so far. Raises TimeoutError if it must end."""
        async with asyncio.timeout(_BODY_SECONDS) as timeout:
            self.sizes[timeout] = 0
            self._make_room()
            try:
                yield partial(self._resize, timeout)
            finally:
                self.sizes.pop(timeout, None)

    def _resize(self, timeout: asyncio.Timeout, size: int) -> None:
        if timeout in self.sizes:  # it has not been ended
            self.sizes[timeout] = size
            self._make_room()

    def _make_room(self) -> None:
        while len(self.sizes) > _MOST_ARRIVING or sum(self.sizes.values()) > self.most_bytes:
            first = next(iter(self.sizes))
            del self.sizes[first]
            _hasten(first, 0)

    def end_soon(self) -> None:
        """Limit the time that is left to arriving bodies."""
        for timeout in self.sizes:
            _hasten(timeout, _LAST_SECONDS)


class AdmissionControl:
    """Admits as many photos as there is memory for. A photo is admitted when it has arrived."""

    def __init__(self, limits: Limits, meters: Meters, arrivals: Arrivals) -> None:
        self.limits, self.meters, self.arrivals = limits, meters, arrivals
        self.slots = asyncio.Semaphore(limits.together)
        self.in_work = 0

    def require_room(self) -> None:
        """Raise HTTPException if too many photos are in work."""
        if self.in_work >= self.limits.together + self.limits.waiting:
            raise HTTPException(503, ERRORS[503], headers={"Retry-After": "2"})

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """A context for the work on a photo. Raises HTTPException if too many are in work."""
        self.require_room()
        self.in_work += 1
        self.meters.waiting.inc()
        try:
            yield
        finally:
            self.in_work -= 1
            self.meters.waiting.dec()

    async def read(self, request: Request) -> bytes:
        """The body. Raises HTTPException if it is too large or too slow."""
        most, data = int(self.limits.megabytes * 1e6), bytearray()
        too_large = HTTPException(413, f"the file is larger than {self.limits.megabytes:g} MB")
        if int(request.headers.get("content-length", 0)) > most:
            raise too_large
        try:
            async with self.arrivals.limited() as resize:
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > most:
                        raise too_large
                    resize(len(data))
        except TimeoutError:  # close the connection: its sender may go on for long
            raise HTTPException(408, ERRORS[408], headers={"Connection": "close"}) from None
        except ClientDisconnect:
            raise HTTPException(400, "the photo did not arrive whole") from None
        return bytes(data)


def _hasten(timeout: asyncio.Timeout, seconds: float) -> None:
    """Let a timeout expire within ``seconds``, if it has not yet."""
    soon = asyncio.get_running_loop().time() + seconds
    if not timeout.expired():
        timeout.reschedule(min(soon, timeout.when() or soon))
