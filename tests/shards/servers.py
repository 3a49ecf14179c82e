"""Servers on this machine that hand out ranges of files, count what is asked of them, and fail now and then."""

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from urllib.parse import urlsplit


class Mishaps:
    """Which answers go wrong: a seeded share of all, and the one of that number is cut in the middle.

    Attributes:
        failed: how many went wrong.
        cut: how many were cut.
    """

    def __init__(self, share: float = 0.0, cut_at: int | None = None, seed: int = 0):
        self.share, self.cut_at, self.chance = share, cut_at, random.Random(seed)
        self.number, self.failed, self.cut, self.lock = itertools.count(), 0, 0, Lock()

    def next(self) -> str | None:
        with self.lock:
            cut, fail = next(self.number) == self.cut_at, self.chance.random() < self.share
            self.cut, self.failed = self.cut + cut, self.failed + (fail and not cut)
        return "cut" if cut else "fail" if fail else None


class RangeServer(ThreadingHTTPServer):
    """Hands out the files of a folder at ``url``.

    Attributes:
        asked: how often each (file, first byte, last byte) was answered whole.
        ranges: False to ignore what range was asked for.
    """

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _RangeHandler)
        self.folder, self.mishaps, self.asked, self.lock, self.ranges = folder, Mishaps(), Counter(), Lock(), True
        self.url = f"http://127.0.0.1:{self.server_port}"


class _RangeHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        mishap = self.server.mishaps.next()
        if mishap == "fail":
            return self.send_error(500)
        path = self.server.folder / urlsplit(self.path).path.lstrip("/")  # a proxy is asked for a whole URL
        if not path.is_file():
            return self.send_error(404)
        data = path.read_bytes()
        first, last = 0, len(data) - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if self.server.ranges else None
        if asked:
            first, last = int(asked[1]), min(int(asked[2]), last)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        if mishap == "cut":
            self.wfile.write(data[first : (first + last) // 2])
            self.close_connection = True
            return
        with self.server.lock:
            self.server.asked[path.name, first, last] += 1
        self.wfile.write(data[first : last + 1])

    def log_message(self, *_) -> None:
        pass


class HostileServer(ThreadingHTTPServer):
    """Answers everything alike: ``endless``, a byte now and then (``slow``), nothing (``silent``), or less than it says
    (``short``).

    Attributes:
        sent: bytes so far.
    """

    daemon_threads = True

    def __init__(self, kind: str):
        super().__init__(("127.0.0.1", 0), _HostileHandler)
        self.kind, self.sent, self.over, self.url = kind, 0, Event(), f"http://127.0.0.1:{self.server_port}"

    def shutdown(self) -> None:
        self.over.set()
        super().shutdown()


class _HostileHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        kind, over = self.server.kind, self.server.over
        if kind == "silent":
            over.wait()
            return
        self.send_response(206 if "Range" in self.headers else 200)
        if kind == "short":
            self.send_header("Content-Length", str(2**40))
        self.end_headers()
        try:
            while not over.wait(0.05 if kind == "slow" else 0):
                self.server.sent += self.wfile.write(b"[" if kind == "slow" else bytes(2**16))
                if kind == "short":
                    return
        except OSError:  # whoever asked has enough
            pass

    def log_message(self, *_) -> None:
        pass


class HubServer(RangeServer):
    """Hands the files out as the Hugging Face hub does those of a data set called me/people, in its folder train."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.RequestHandlerClass, self.endpoint, self.url = _HubHandler, self.url, "hf://datasets/me/people/train"


class _HubHandler(_RangeHandler):
    def do_GET(self) -> None:
        if "/resolve/main/train/" in self.path:
            self.path = self.path.rpartition("/")[2]
            return super().do_GET()
        if "/tree/main/train" in self.path:
            files = [(f"train/{path.name}", path.stat().st_size) for path in self.server.folder.iterdir()]
            return self._answer([{"type": "file", "path": path, "size": size, "oid": "0"} for path, size in files])
        self._answer({"id": "me/people", "sha": "0" * 40, "siblings": []})

    def _answer(self, content) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class FlakyApplication:
    """A WSGI application whose GETs go wrong as ``mishaps`` says."""

    def __init__(self, application):
        self.application, self.mishaps = application, Mishaps()

    def __call__(self, environ, start_response):
        mishap = self.mishaps.next() if environ["REQUEST_METHOD"] == "GET" else None
        if mishap == "fail":
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        answer = self.application(environ, start_response)
        return self._cut(b"".join(answer)) if mishap == "cut" else answer

    def _cut(self, body: bytes) -> Iterator[bytes]:
        yield body[: len(body) // 2]
        raise ConnectionAbortedError("cut in the middle")


@contextmanager
def serving(server) -> Iterator:
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
