"""A web server for one predictor: a page to drop photos on, and ``POST /predict`` with its OpenAPI description.

A photo is kept only in memory, and only until its answer is sent.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from socket import socket
from types import FrameType
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from mivolo_lite import __version__
from mivolo_lite.errors import UserError
from mivolo_lite.inference.admission import ERRORS, AdmissionControl, Arrivals, Limits, Meters
from mivolo_lite.inference.batching import Batcher
from mivolo_lite.inference.people import Person
from mivolo_lite.inference.predictor import Predictor
from mivolo_lite.inference.rows import row_of
from mivolo_lite.output import complain
from mivolo_lite.packing.decode import UnusablePhoto, photo_of
from mivolo_lite.wording import count_of

LOCAL = ["localhost", "127.0.0.1", "[::1]"]

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; object-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_HEADERS_SECONDS = 30
"""Seconds for the headers of a request to arrive, from the connection or the previous answer on."""
_DRAINED_BYTES = 1 << 28
"""Bytes of a rejected photo that are read before the answer is sent."""
_LEAST_BYTES = 2000
"""Smallest size in bytes at which every photo has all byte values."""
_KINDS = {"multipart/": "a form", "application/json": "JSON"}
"""Bodies that are not a photo's file, by the prefix of their content type."""
_ADVICE = "send the photo's file itself as the body, as in: curl --data-binary @photo.jpg"

_REQUEST = {
    "requestBody": {
        "required": True,
        "description": "the file of a photo, as it lies on disk",
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/*", "*/*")},
    }
}


class TaskResult(BaseModel):
    """The class with its probability, a number, or an embedding."""

    value: str | float | list[float]
    probability: float | None = None


class PersonResult(BaseModel):
    """A person; boxes are x0, y0, x1, y1 in pixels of the upright photo, ages are in years."""

    face: list[float] | None
    body: list[float] | None
    age: float | None
    age_lower: float | None
    age_upper: float | None
    age_spread: float | None
    gender: str | None
    gender_probability: float | None
    tasks: dict[str, TaskResult]
    inputs: list[str]
    detector_score: float | None
    flags: list[str]


class PhotoResult(BaseModel):
    """The people of a photo of so many pixels, upright."""

    width: int
    height: int
    people: list[PersonResult]


def make_app(predictor: Predictor, limits: Limits | None = None, hosts: Sequence[str] = LOCAL) -> FastAPI:
    """The application.

    Args:
        predictor: estimates people.
        limits: of the server.
        hosts: names under which it answers, or ``*``. A page of another site that resolves its own name to this machine
            gets no answer.
    """
    service = Service(predictor, limits or Limits())
    app = FastAPI(title="mivolo_lite", version=__version__, lifespan=service.run, docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.middleware("http")(_add_headers)
    app.state.service = service
    responses: dict[int | str, dict[str, Any]] = {code: {"description": text} for code, text in ERRORS.items()}
    app.post("/predict", responses=responses, openapi_extra=_REQUEST)(service.predict)
    app.get("/about")(service.about)
    app.get("/metrics", response_class=Response)(service.metrics)
    for path, answer in (("/about", service.about), ("/metrics", service.metrics)):
        app.head(path, include_in_schema=False)(answer)  # for health checks; FastAPI's GET does not answer HEAD
    app.add_route("/favicon.ico", _favicon, include_in_schema=False)
    for path, content, kind in _pages():
        app.add_route(path, _sender(content, kind), include_in_schema=False)
    return app


class Server(uvicorn.Server):
    """Stops within seconds of Ctrl-C, however slowly photos arrive, and at once after the second.

    It closes connections that send no request: each is an open file, and uvicorn waits for the headers for ever.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._idle: dict[tuple[Any, Any], float] = {}
        """When each connection became idle, by the connection and its last request, which is None at first."""

    async def on_tick(self, counter: int) -> bool:
        """Called every tenth of a second."""
        now, earlier, self._idle = time.monotonic(), self._idle, {}
        for connection in list(self.server_state.connections):
            request = getattr(connection, "cycle", None)
            if request is None or request.response_complete:
                since = self._idle[connection, request] = earlier.get((connection, request), now)
                if now - since > _HEADERS_SECONDS:
                    connection.transport.abort()  # also if its last answer was not read
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Answer what has arrived, and stop."""
        service: Service = self.config.app.state.service  # type: ignore[union-attr]
        service.arrivals.end_soon()
        if photos := service.admission.in_work + len(service.arrivals):
            complain(f"answering {count_of(photos, 'photo')} first; Ctrl-C again stops at once")
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Abandon threads and requests at the second signal: none of them writes a file."""
        if self.should_exit:
            os._exit(128 + sig)
        super().handle_exit(sig, frame)


class Service:
    """The endpoints.

    Args:
        predictor: estimates people.
        limits: of the server.
    """

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self.predictor, self.limits, self.meters = predictor, limits, Meters()
        self.batcher = Batcher(predictor.predict, limits.together, self.meters.batch.observe)
        self.arrivals = Arrivals(int(limits.megabytes * 1e6) * (limits.together + limits.waiting))
        self.meters.arriving.set_function(lambda: len(self.arrivals))
        self.admission = AdmissionControl(limits, self.meters, self.arrivals)

    @asynccontextmanager
    async def run(self, app: FastAPI) -> AsyncIterator[None]:
        """Estimate arriving photos while the application runs."""
        task = asyncio.create_task(self.batcher.run())
        yield
        task.cancel()

    async def predict(self, request: Request) -> PhotoResult:
        """The age and the gender of everybody in a photo, which is the body of the request."""
        try:
            with self.meters.observed():
                return await self._answered(request)
        except HTTPException as refusal:  # with Expect, the sender waits for the answer before it sends
            if refusal.status_code in (413, 422, 503) and "expect" not in request.headers:
                await self._drain(request)
            raise

    async def _answered(self, request: Request) -> PhotoResult:
        self.admission.require_room()  # before the photo is read; it counts once it has arrived
        kind = request.headers.get("content-type", "").lower()
        for start, name in _KINDS.items():
            if kind.startswith(start):
                raise HTTPException(422, f"{name}; {_ADVICE}")
        data = await self.admission.read(request)
        with self.admission.admitted():
            async with self.admission.slots:
                image = await self._decoded(data)
                people = await self._estimated(image)
        self.meters.people.inc(len(people))
        rows = [PersonResult.model_validate(row_of(person, "")) for person in people]
        return PhotoResult(width=image.shape[1], height=image.shape[0], people=rows)

    async def _drain(self, request: Request) -> None:
        """Drop the rest of a request. Otherwise a sender that reads the answer only then sees a broken connection."""
        left = _DRAINED_BYTES
        with suppress(TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: all has been read
            async with self.arrivals.limited():
                async for chunk in request.stream():
                    left -= len(chunk)
                    if left < 0:
                        return

    async def _decoded(self, data: bytes) -> np.ndarray:
        try:
            return (await asyncio.to_thread(photo_of, data, self.limits.megapixels)).image
        except UnusablePhoto as error:
            raise HTTPException(422, f"{error}; {_ADVICE}" if _was_sent_as_text(data) else str(error)) from None

    async def _estimated(self, image: np.ndarray) -> list[Person]:
        try:
            return await self.batcher(image)
        except UserError as error:
            raise HTTPException(500, str(error)) from None

    async def about(self) -> dict[str, Any]:
        """The model, what it cannot do as in training, and the limits."""
        card = self.predictor.estimator.card
        return {
            "model": card.model["name"],
            "method": card.method["name"],
            "interval_level": card.calibration.get("level"),
            "notes": self.predictor.notes,
            "megabytes": self.limits.megabytes,
            "megapixels": self.limits.megapixels,
        }

    async def metrics(self) -> Response:
        """For Prometheus."""
        return Response(generate_latest(self.meters.registry), media_type=CONTENT_TYPE_LATEST)


def _was_sent_as_text(data: bytes) -> bool:
    """Whether a file has no line break and no zero byte, which ``curl -d`` removes; every photo has them."""
    return len(data) >= _LEAST_BYTES and not any(byte in data for byte in b"\r\n\0")


async def _add_headers(request: Request, proceed: Any) -> Response:
    response = await proceed(request)
    response.headers.update(_HEADERS)
    return response


async def _favicon(request: Request) -> Response:
    """Browsers request an icon, and log an error without an answer."""
    return Response(status_code=204)


def _pages() -> list[tuple[str, str, str]]:
    """The address, the content and the media type of each file of the page."""
    web = files("mivolo_lite.inference") / "web"
    look = (files("mivolo_lite.reporting") / "page.css").read_text(encoding="utf-8")
    return [
        ("/", (web / "index.html").read_text(encoding="utf-8"), "text/html"),
        ("/page.js", (web / "page.js").read_text(encoding="utf-8"), "text/javascript"),
        ("/page.css", look + (web / "page.css").read_text(encoding="utf-8"), "text/css"),
    ]


def _sender(content: str, kind: str) -> Any:
    async def send(request: Request) -> Response:
        return Response(content, media_type=kind)

    return send
