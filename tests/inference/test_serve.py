"""The server: its answers, what it refuses, its page in a browser."""

import asyncio
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import ExifTags, Image

from mivolo_lite.errors import UserError
from mivolo_lite.inference import admission, serve
from mivolo_lite.inference.admission import AdmissionControl, Limits
from mivolo_lite.inference.batching import Batcher
from mivolo_lite.inference.detect import FaceDetector
from mivolo_lite.inference.predictor import Predictor
from mivolo_lite.inference.rows import row_of
from mivolo_lite.inference.serve import Server, make_app
from tests.evaluation.browser import CONTRAST, FITS, IN_A_BROWSER, Browser
from tests.inference.scenes import RedSquares, photo, tiny_estimator
from tests.waiting import wait_until

TWO = photo((20, 30, 80), (200, 60, 64))


def file_of(image, kind="PNG", **options) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, kind, **options)
    return content.getvalue()


@pytest.fixture(scope="module")
def predictor():
    calibration = {"level": 0.9, "by": "all", "radius": 7.0, "radii": {}, "gender_temperature": 1.0}
    return Predictor(tiny_estimator(calibration=calibration), FaceDetector(RedSquares()))


@pytest.fixture
def client(predictor):
    with TestClient(make_app(predictor, Limits(megabytes=1, megapixels=1)), base_url="http://localhost") as client:
        yield client


def test_a_photo_is_answered_as_the_predictor_answers(client, predictor):
    answer = client.post("/predict", content=file_of(TWO))
    assert answer.status_code == 200
    found = answer.json()
    assert (found["width"], found["height"]) == (320, 240)
    (expected,) = predictor.predict([TWO])
    rows = json.loads(json.dumps([row_of(person, "") for person in expected]))
    assert len(rows) == 2 and found["people"] == [{k: v for k, v in row.items() if k != "source"} for row in rows]
    assert found["people"][0]["age_upper"] > found["people"][0]["age"]
    assert client.post("/predict", content=file_of(photo())).json()["people"] == []


def test_its_description_is_openapi(client):
    schema = client.get("/openapi.json").json()
    operation = schema["paths"]["/predict"]["post"]
    assert schema["openapi"].startswith("3.") and "image/*" in operation["requestBody"]["content"]
    assert {"200", "408", "413", "422", "503"} <= set(operation["responses"])
    assert {"age", "age_lower", "face", "flags"} <= set(schema["components"]["schemas"]["PersonResult"]["properties"])


def png_bomb() -> bytes:
    """A PNG whose head promises 900 megapixels."""
    head = bytearray(file_of(photo()))
    head[16:24] = (30000).to_bytes(4, "big") * 2
    return bytes(head)


HOSTILE = {
    "nothing": (b"", 422, "empty"),
    "a page": (b"<!DOCTYPE html><html>not found</html>", 422, "HTML"),
    "a cut photo": (file_of(TWO, "JPEG")[:700], 422, ""),
    "a bomb": (png_bomb(), 422, ""),
    "many pixels": (file_of(np.zeros((1100, 1000, 3), np.uint8)), 422, "megapixel"),
    "many bytes": (b"\xff\xd8" + bytes(1_100_000), 413, "larger than 1 MB"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_photo_gets_a_reason(name, client):
    content, status, reason = HOSTILE[name]
    answer = client.post("/predict", content=content)
    assert answer.status_code == status and reason in answer.json()["detail"]
    assert client.post("/predict", content=file_of(TWO)).status_code == 200


def test_other_kinds_of_photos_are_read(client):
    animated, second = Image.fromarray(TWO), Image.fromarray(photo())
    content = io.BytesIO()
    animated.save(content, "GIF", save_all=True, append_images=[second])
    assert client.post("/predict", content=content.getvalue()).status_code == 200
    content = io.BytesIO()
    Image.fromarray(TWO).convert("CMYK").save(content, "JPEG")
    assert len(client.post("/predict", content=content.getvalue()).json()["people"]) == 2


def test_damaged_photos_end_nothing(client):
    rng, whole = np.random.default_rng(0), file_of(TWO, "JPEG")
    for _ in range(50):
        content = bytearray(whole[: rng.integers(1, len(whole))])
        for place in rng.integers(0, len(content), 5):
            content[place] = rng.integers(0, 256)
        answer = client.post("/predict", content=bytes(content))
        assert answer.status_code in (200, 422) and (answer.status_code == 200 or answer.json()["detail"])


def test_metrics_count_answers_and_people(client):
    client.post("/predict", content=file_of(TWO))
    client.post("/predict", content=b"")
    text = client.get("/metrics").text
    assert 'mivolo_lite_requests_total{status="200"} 1.0' in text
    assert 'mivolo_lite_requests_total{status="422"} 1.0' in text
    assert "mivolo_lite_people_total 2.0" in text and "mivolo_lite_batch_photos_count 1.0" in text


@pytest.mark.parametrize("path", ["/", "/page.js", "/favicon.ico", "/about", "/metrics"])
def test_a_health_check_may_ask_for_the_head_alone(path, client):
    head, answer = client.head(path), client.get(path)
    assert head.status_code == answer.status_code and head.content == b""
    assert head.headers.get("Content-Type") == answer.headers.get("Content-Type")


def test_a_page_elsewhere_gets_nothing(client):
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    answer = client.get("/")
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "access-control-allow-origin" not in answer.headers


def test_photos_that_arrive_together_are_one_batch():
    sizes, go = [], threading.Event()

    def slow(images):
        go.wait(60)
        return [[int(image[0, 0, 0])] for image in images]

    async def ask():
        batcher = Batcher(slow, 4, sizes.append)
        task = asyncio.create_task(batcher.run())
        asking = [asyncio.create_task(batcher(np.full((2, 2, 3), number, np.uint8))) for number in range(6)]
        await asyncio.sleep(0.2)
        go.set()
        answers = await asyncio.gather(*asking)
        task.cancel()
        return answers

    assert asyncio.run(ask()) == [[number] for number in range(6)]
    assert sizes == [4, 2]


def test_a_photo_that_fails_does_not_fail_the_others():
    def picky(images):
        if any(image.max() == 1 for image in images):
            raise ValueError("one")
        return [[] for _ in images]

    async def ask():
        batcher = Batcher(picky, 4)
        task = asyncio.create_task(batcher.run())
        images = [np.full((2, 2, 3), number, np.uint8) for number in range(3)]
        answers = await asyncio.gather(*map(batcher, images), return_exceptions=True)
        task.cancel()
        return answers

    first, second, third = asyncio.run(ask())
    assert first == third == [] and isinstance(second, ValueError)


def test_more_photos_than_there_is_room_for_are_sent_away(predictor, monkeypatch):
    started, go = threading.Event(), threading.Event()

    def slow(images):
        started.set()
        go.wait(60)
        return [[] for _ in images]

    monkeypatch.setattr(predictor, "predict", slow)
    app = make_app(predictor, Limits(together=1, waiting=1))

    with TestClient(app, base_url="http://localhost") as client, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(client.post, "/predict", content=file_of(TWO)) for _ in range(2)]
        started.wait(60)
        end = time.monotonic() + 60
        while "photos_in_work 2.0" not in client.get("/metrics").text and time.monotonic() < end:
            time.sleep(0.02)
        refused = client.post("/predict", content=file_of(TWO))
        go.set()
        assert refused.status_code == 503 and refused.headers["Retry-After"]
        assert [answer.result().status_code for answer in waiting] == [200, 200]
        assert client.post("/predict", content=file_of(TWO)).status_code == 200


@pytest.fixture
def served(predictor):
    """A server in a thread of this process, its thread and its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = Server(uvicorn.Config(make_app(predictor, Limits(megapixels=1)), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield server, thread, listening.getsockname()[1]
    server.should_exit = True
    thread.join(30)


@pytest.fixture
def address(served):
    return f"http://127.0.0.1:{served[2]}/"


STALLED = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\nthe first bytes"


def wait_for_metric(address, line):
    end = time.monotonic() + 60
    while line not in urllib.request.urlopen(f"{address}metrics").read().decode():
        assert time.monotonic() < end, line
        time.sleep(0.05)


@contextmanager
def stalled(address, number, size=0):
    """Senders of which so many bytes have arrived, and no more come."""
    with ExitStack() as stack:
        senders = []
        for count in range(number):
            senders.append(
                stack.enter_context(socket.create_connection(("127.0.0.1", int(address.split(":")[2][:-1]))))
            )
            senders[-1].sendall(STALLED % 10**6 + bytes(size))
            wait_for_metric(address, f"photos_arriving {count + 1}.0")
        yield senders


def test_senders_that_stall_keep_nobody_out(address):
    limits = Limits()
    with (
        stalled(address, limits.together + limits.waiting),
        urllib.request.urlopen(f"{address}predict", file_of(TWO)) as answer,
    ):
        assert len(json.load(answer)["people"]) == 2


@pytest.mark.parametrize("most_bytes, most_arriving", [(10**6, 256), (10**9, 2)])
def test_the_first_of_too_many_senders_that_stall_is_ended(most_bytes, most_arriving, served, address, monkeypatch):
    monkeypatch.setattr(admission, "_MOST_ARRIVING", most_arriving)
    monkeypatch.setattr(admission, "_BODY_SECONDS", 600)  # nobody is ended because this machine is busy
    arrivals = served[0].config.app.state.service.arrivals
    arrivals.most_bytes = most_bytes
    image = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    with stalled(address, 2, 400_000) as (first, second):
        wait_until(lambda: min(arrivals.sizes.values()) > 400_000, 60, lambda: f"{arrivals.sizes} have arrived")
        assert urllib.request.urlopen(f"{address}predict", file_of(image)).status == 200
        answer = b"".join(iter(lambda: first.recv(1000), b""))  # until the connection is closed
        assert answer.startswith(b"HTTP/1.1 408")
        second.setblocking(False)
        with pytest.raises(BlockingIOError):
            second.recv(1)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /predict HTTP/1.1\r\nHost: loc",
        b"GET /about HTTP/1.1\r\nHost: localhost\r\n\r\nGET /about HTT",
        b"POST /about HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nthe first bytes",
    ],
)
def test_a_connection_that_sends_no_whole_request_is_closed(sent, served, monkeypatch):
    monkeypatch.setattr(serve, "_HEADERS_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", served[2]), timeout=20) as sender:
        sender.sendall(sent)
        with suppress(ConnectionResetError):
            while sender.recv(10_000):  # one byte after another does not keep it open
                sender.sendall(b"x")
    assert not served[0].server_state.connections


@pytest.mark.parametrize("size, status", [(1000, b"408"), (10**9, b"413")])
def test_a_server_that_stops_waits_for_no_sender_that_stalls(size, status, served, caplog):
    server, thread, port = served
    with socket.create_connection(("127.0.0.1", port)) as sender:
        sender.sendall(STALLED % size)
        while not server.server_state.tasks:
            time.sleep(0.01)
        server.should_exit = True
        thread.join(15)  # of the 30 seconds that the photo may take
        assert not thread.is_alive() and sender.recv(12) == b"HTTP/1.1 " + status
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_file_that_says_it_is_too_large_is_not_read(client):
    answer = client.post(
        "/predict", content=b"\xff\xd8", headers={"Content-Length": "1000001", "Expect": "100-continue"}
    )
    assert answer.status_code == 413


@pytest.mark.parametrize("status, reason", [(413, "larger than 16 MB"), (503, "too many photos")])
def test_a_refused_sender_reads_the_reason_after_all_is_sent(status, reason, address, monkeypatch):
    """Most clients and browsers send a body whole, and then read the answer."""
    if status == 503:
        monkeypatch.setattr(AdmissionControl, "in_work", property(lambda _: 10**6, lambda *_: None), raising=False)
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(urllib.request.Request(f"{address}predict", bytes(30_000_000)), timeout=60)
    assert refusal.value.code == status and reason in refusal.value.read().decode()


def test_a_form_and_json_are_told_what_to_send(client):
    answers = (
        client.post("/predict", files={"file": file_of(TWO)}),
        client.post("/predict", content=b"--x", headers={"Content-Type": "Multipart/Form-Data; boundary=x"}),
        client.post("/predict", json={"image": "iVBORw0KGgo="}),
    )
    assert all(answer.status_code == 422 and "--data-binary" in answer.json()["detail"] for answer in answers)


def test_a_photo_that_curl_sent_as_text_is_told_how_to_be_sent(client):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    sent = file_of(noise, "JPEG").translate(None, b"\r\n\0")  # as curl -d @photo.jpg does
    answers = [client.post("/predict", content=content) for content in (sent, file_of(noise, "JPEG")[:9000])]
    assert ["--data-binary" in answer.json()["detail"] for answer in answers] == [True, False]
    assert {answer.status_code for answer in answers} == {422}


_DROP = """(async () => {
  const blank = await new Promise(done => document.createElement('canvas').toBlob(done)), dropped = new DataTransfer();
  %s;
  document.dispatchEvent(new DragEvent('drop', {dataTransfer: dropped}));
})()"""


@IN_A_BROWSER
@pytest.mark.slow
@pytest.mark.parametrize("width, dark", [(1280, False), (360, True)], ids=["desk", "phone"])
def test_the_page_shows_boxes_and_ages_and_reasons(address, predictor, tmp_path, width, dark):
    two = TWO[:, ::-1].copy()  # of whom the one on the right is found first
    (tmp_path / "two.png").write_bytes(file_of(two))
    (tmp_path / "text.jpg").write_text("no photo")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # of which browsers do not turn a WebP
    (tmp_path / "turned.webp").write_bytes(file_of(np.rot90(TWO), "WEBP", lossless=True, exif=exif))
    (found,) = predictor.predict([two])
    expected = sorted(found, key=lambda one: one.face[0])
    assert expected != found
    with Browser(tmp_path / "profile") as browser:
        browser.open(address, width, 900, dark)
        browser.wait_for(
            "document.getElementById('about').textContent.includes('Intervals are calibrated to hold 90 %')"
        )
        assert browser.value(FITS) and browser.value(CONTRAST) >= 4.5
        browser.choose_file("#file", tmp_path / "two.png")
        browser.wait_for("!document.getElementById('photo').hidden && document.querySelectorAll('.box').length === 2")
        assert not browser.value("document.getElementById('boxes').hidden")
        assert (
            browser.value("getComputedStyle(document.querySelector('th:nth-child(5)')).display") == "none"
        )  # no tasks
        assert browser.value("document.getElementById('message').textContent") == "2 people found."
        labels = browser.value("[...document.querySelectorAll('.box b')].map(label => label.textContent)")
        assert labels == [f"{number + 1}: {one.age + 1e-9:.0f}" for number, one in enumerate(expected)]
        left = browser.value(
            "(() => { const i = document.querySelector('#photo img').getBoundingClientRect();"
            "const b = document.querySelector('.box').getBoundingClientRect(); return (b.left - i.left) / i.width; })()"
        )
        assert left == pytest.approx(expected[0].face[0] / 320, abs=0.01)
        assert browser.value("document.querySelectorAll('tbody tr').length") == 2
        assert browser.value(FITS) and browser.value(CONTRAST) >= 4.5
        browser.value(_DROP % "['a.png', 'b.png'].forEach(name => dropped.items.add(new File([blank], name)))")
        browser.wait_for("document.getElementById('message').textContent.includes('Only a.png, the first of 2 files')")
        browser.value(_DROP % "dropped.items.add('https://a.page/photo.jpg', 'text/uri-list')")
        assert "no file was dropped" in browser.value("document.getElementById('message').textContent")
        browser.choose_file("#file", tmp_path / "turned.webp")
        browser.wait_for("document.getElementById('message').textContent.includes('lying on its side')")
        assert browser.value(
            "document.getElementById('boxes').hidden && document.querySelectorAll('tbody tr').length === 2"
        )
        browser.choose_file("#file", tmp_path / "text.jpg")
        browser.wait_for("document.getElementById('message').classList.contains('alert')")
        assert "Not estimated" in browser.value("document.getElementById('message').textContent")
        assert browser.value("document.getElementById('photo').hidden") and browser.value(FITS)
        huge = "dropped.items.add(new File([new Uint8Array(16_000_001)], 'huge.jpg'))"
        browser.value(_DROP % huge)  # is not sent: the server would answer 413
        browser.wait_for("document.getElementById('message').textContent.includes('larger than 16 MB')")
        assert [line for line in browser.complaints if "422" not in line] == []


@pytest.mark.slow
def test_the_second_ctrl_c_waits_for_nothing(tmp_path):
    tiny_estimator().save(tmp_path / "best")
    words = [sys.executable, "-m", "mivolo_lite", "serve", "--checkpoint", f"{tmp_path}/best", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().split()[2].rstrip(";")
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as sender:
            sender.sendall(STALLED % 1000)
            wait_for_metric(f"{address}/", "photos_arriving 1.0")
            process.send_signal(signal.SIGINT)
            line = process.stderr.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        assert line == "answering 1 photo first; Ctrl-C again stops at once\n" and process.stderr.read() == ""


@pytest.mark.slow
def test_the_command_serves_on_this_machine_alone_until_it_is_stopped(tmp_path):
    tiny_estimator().save(tmp_path / "best")
    words = ["serve", "--checkpoint", f"{tmp_path}/best", "--port", "0"]
    process = subprocess.Popen([sys.executable, "-m", "mivolo_lite", *words], stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        address = line.split()[2].rstrip(";")
        assert address.startswith("http://127.0.0.1:")
        request = urllib.request.Request(f"{address}/predict", file_of(photo()), method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["width"] == 320
        port = address.rpartition(":")[2]
        words[-1] = port
        second = subprocess.run([sys.executable, "-m", "mivolo_lite", *words], capture_output=True, text=True)
        assert second.returncode == 2 and second.stderr.count("\n") == 1 and port in second.stderr
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (0, 130)


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_one_line(host, capsys):
    from mivolo_lite.cli import main

    with pytest.raises(SystemExit):
        main(["serve", "--host", host, "--port", "0"])
    assert capsys.readouterr().err.endswith("; give a name or an address of this machine\n")


def test_it_estimates_as_the_options_say(monkeypatch):
    from mivolo_lite.cli import main
    from mivolo_lite.inference.predictor import Predictor

    given = {}

    def load(checkpoint, **options):
        given.update(options, checkpoint=checkpoint)
        raise UserError("enough")

    monkeypatch.setattr(Predictor, "load", load)
    with pytest.raises(SystemExit):
        main(["serve", "--port", "0", "--checkpoint", "x", "--detector", "yunet", "--device", "cpu", "--tta", "none"])
    assert given == {"checkpoint": "x", "detector": "yunet", "persons": "rule", "device": "cpu", "tta": "none"}


def test_without_fastapi_the_extra_is_named(monkeypatch, capsys):
    from mivolo_lite.cli import main

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit):
        main(["serve"])
    assert 'pip install "mivolo-lite[serve]"' in capsys.readouterr().err
