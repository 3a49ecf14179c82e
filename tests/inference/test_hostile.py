"""Files that are no photos, or want to be the last: none ends the work, each has one reason."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mivolo_lite.inference.detect import open_detector
from tests.inference.hostile import write_hostile_files
from tests.inference.scenes import tiny_estimator


@pytest.mark.parametrize("shape", [(1, 1), (1, 9000), (9000, 1), (2, 3), (641, 1), (5, 65_000), (97, 96)])
def test_the_detector_looks_at_images_of_any_shape(shape):
    assert open_detector()(np.full((*shape, 3), 90, np.uint8)) == []


def test_the_detector_keeps_nothing_of_the_images_it_has_seen():
    detector, image = open_detector(), np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    detector(image)
    before = _resident()
    for _ in range(80):
        detector(image)
    assert _resident() - before < 4 << 20 < 80 * image.size


def _resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# getrusage would give a process that was forked of a large one that one's memory.
PEAK = "next(int(line.split()[1]) for line in open('/proc/self/status') if 'VmHWM' in line) // 1024"
SERVE = f"""
import json
from pathlib import Path
from fastapi.testclient import TestClient
from mivolo_lite import Predictor
from mivolo_lite.inference.serve import make_app
answers = {{}}
with TestClient(make_app(Predictor.load("best")), base_url="http://localhost") as client:
    for path in sorted(Path("hostile").iterdir()):
        if path.is_file():
            answer = client.post("/predict", content=path.read_bytes())
            answers[path.name] = answer.status_code, answer.json()
print(json.dumps([{PEAK}, answers]))
"""


@pytest.mark.slow
def test_the_server_answers_two_hundred_hostile_files_or_says_why_not_in_little_memory(tmp_path):
    write_hostile_files(tmp_path / "hostile")
    tiny_estimator().save(tmp_path / "best")
    done = subprocess.run([sys.executable, "-c", SERVE], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-2000:]
    peak, answers = json.loads(done.stdout.splitlines()[-1])
    assert peak < 2000 and len(answers) > 190
    assert {code for code, _ in answers.values()} == {200, 422}
    assert all("people" in answer if code == 200 else "\n" not in answer["detail"] for code, answer in answers.values())
    assert {answers[name][0] for name in ("cmyk.jpg", "animated.gif", "jpeg.png", "no-ending")} == {200}
    assert {answers[name][0] for name in ("bomb-400mp.png", "page.jpg", "empty.jpg", "huge.jpg")} == {422}


@pytest.mark.slow
def test_two_hundred_hostile_files_give_a_row_or_a_reason_each_in_little_memory(tmp_path):
    names = write_hostile_files(tmp_path / "hostile")
    tiny_estimator().save(tmp_path / "best")
    script = (
        "from mivolo_lite.cli import main\n"
        "main(['predict', 'hostile', '--checkpoint', 'best', '--out', 'out', '--draw'])\n"
        f"print({PEAK})"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert int(done.stdout.splitlines()[-1]) < 2000
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    found = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    refused = Counter(Path(one["image"]).name for one in rejected)
    seen = {Path(row["source"]).name for row in found}
    assert set(refused.values()) == {1} and not seen & set(refused)
    assert seen | set(refused) == set(names) - {"folder.jpg"} and len(names) >= 200
    assert all(one["reason"] and "\n" not in one["reason"] for one in rejected)
    assert {"cmyk.jpg", "animated.gif", "huge.jpg", "jpeg.png", "no-ending"} <= seen
    assert {"bomb-400mp.png", "bomb-scans.jpg", "page.jpg", "empty.jpg", "pipe.jpg", "loop.jpg"} <= set(refused)
