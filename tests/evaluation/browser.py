"""Headless Chromium over its debugging pipe: opens a page as somebody would, and says what went wrong."""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.waiting import wait_until

EXECUTABLE = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

IN_A_BROWSER = pytest.mark.skipif(
    not EXECUTABLE and os.environ.get("CI") != "true", reason="there is no Chromium on this machine"
)

FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
HEIGHT = "document.documentElement.scrollHeight"
LOADED = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"

_VISIBLE = "checkVisibility({contentVisibilityAuto: true})"
PLOTS_SHOWN = f"""[...document.querySelectorAll('figure svg')].filter(svg => svg.{_VISIBLE})
  .every(svg => svg.getBoundingClientRect().height > 100)"""
SMALLEST_LETTERS = f"""[...document.querySelectorAll('svg text')].filter(text => text.{_VISIBLE}).map(text => {{
    const m = text.getScreenCTM();
    return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(m.a, m.b);
  }}).reduce((a, b) => Math.min(a, b), 99)"""
CONTRAST = f"""(() => {{
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], ground) => [r, g, b].map((c, i) => a * c + (1 - a) * ground[i]);
  const linear = c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const light = rgb => [.2126, .7152, .0722].reduce((sum, share, i) => sum + share * linear(rgb[i] / 255), 0);
  const own = e => numbers(getComputedStyle(e).backgroundColor);
  const groundOf = e => e ? over(own(e), groundOf(e.parentElement)) : [255, 255, 255];
  const says = e => [...e.childNodes].some(child => child.nodeType === 3 && child.data.trim());
  return [...document.body.querySelectorAll('*')].filter(e => says(e) && e.{_VISIBLE}).map(e => {{
    const style = getComputedStyle(e), ground = groundOf(e);
    const [a, b] = [light(over(numbers(e.closest('svg') ? style.fill : style.color), ground)), light(ground)];
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  }}).reduce((a, b) => Math.min(a, b));
}})()"""
"""Of the least legible text to its ground, by WCAG 2: 4.5 is enough. Shapes below the text of plots do not count."""

_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
          "--hide-scrollbars", "--disable-background-networking", "--remote-debugging-pipe")  # fmt: skip


class Browser:
    """One Chromium with one page. Messages are JSON that ends in a zero byte, to its descriptor 3 and from its 4.

    Attributes:
        complaints: errors and warnings of the console, exceptions, and requests that failed or left the machine.
    """

    def __init__(self, profile: Path):
        assert EXECUTABLE, "CI must have Chromium: apt-get install chromium"
        to_read, self._to = os.pipe()
        self._from, from_write = os.pipe()
        command = f'exec "$0" "$@" 3<&{to_read} 4>&{from_write}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, EXECUTABLE, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_read, from_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read), os.close(from_write)
        os.set_blocking(self._from, False)
        self._number, self._rest, self._session = 0, b"", None
        self.complaints: list[str] = []
        self._events: set[str] = set()
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait(30)
        os.close(self._to), os.close(self._from)

    def open(self, path: Path | str, width: int, height: int, dark: bool) -> None:
        """Show a file, or a local server's page, in a window of this size, to somebody who prefers it dark or light."""
        mobile = width < 600
        self._send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._send("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        self._send("Page.navigate", url=path if isinstance(path, str) else path.as_uri())
        self._wait(lambda: "Page.loadEventFired" in self._events)

    def value(self, expression: str):
        """A JavaScript expression's value."""
        answer = self._send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def choose_file(self, selector: str, path: Path) -> None:
        """Give a file to an input of the page, as its dialogue does."""
        root = self._send("DOM.getDocument")["root"]["nodeId"]
        node = self._send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._send("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def wait_for(self, expression: str) -> None:
        """Until a JavaScript expression is true."""
        wait_until(lambda: self.value(expression), 120, lambda: expression)

    def screenshot(self, path: Path) -> None:
        """The whole page, however long, as PNG."""
        image = self._send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(image["data"]))

    def _send(self, method: str, **params) -> dict:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        self._answer = None
        self._wait(lambda: self._answer is not None and self._answer["id"] == number)
        assert "error" not in self._answer, self._answer
        return self._answer["result"]

    def _wait(self, done, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end and self.process.poll() is None, "Chromium does not answer"
            try:
                self._rest += os.read(self._from, 1 << 20)
            except BlockingIOError:
                time.sleep(0.02)
            while b"\0" in self._rest and not done():
                message, _, self._rest = self._rest.partition(b"\0")
                self._take(json.loads(message))

    def _take(self, message: dict) -> None:
        if "id" in message:
            self._answer = message
            return
        event, params = message["method"], message.get("params", {})
        self._events.add(event)
        if event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"]))
        elif event == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif event == "Network.loadingFailed":
            self.complaints.append(f"failed: {params['errorText']}")
        elif event == "Network.requestWillBeSent" and not params["request"]["url"].startswith(
            ("file:", "data:", "about:", "blob:", "http://127.0.0.1:")
        ):
            self.complaints.append(f"went out: {params['request']['url']}")
