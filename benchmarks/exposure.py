"""Errors of faces in photos that are made darker or brighter, with and without a flag of ``predict``.

    python -m benchmarks.exposure FG-NET=FOLDER/annotations.csv=3 All-Age-Faces=FOLDER/annotations.csv=7
        Congress=FOLDER/annotations.csv=2 "FairFace sample=FOLDER/labels.csv=1"

A table is in the folder of its photos. It has MiVOLO's columns (img_name, age, face_x0 ...), or FairFace's (file, age),
whose face is in the middle. With the number 3, every third photo is made darker and brighter. All photos are also
evaluated unchanged. Writes benchmarks/results/exposure.md.
"""

import csv
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
import torch

from benchmarks.timing import write_result
from mivolo_lite import Predictor
from mivolo_lite.inference.flags import DARK, OVEREXPOSED
from mivolo_lite.inference.people import Located, Person
from mivolo_lite.inference.predictor import as_array
from mivolo_lite.packing.crops import Box

RESULTS = Path(__file__).parent / "results" / "exposure.md"
QUALITY = 92  # of the JPEG that a changed photo is stored as
OLDEST = 120


class Photo(NamedTuple):
    """A photo of one labelled person: the first and the last year of the age, and the middle of the face."""

    image: np.ndarray
    first: float
    last: float
    middle: np.ndarray


def photos(table: Path, step: int) -> Iterator[Photo]:
    """Every ``step``-th row with an age."""
    with open(table, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["age"] not in ("", "-1")]
    for row in rows[::step]:
        years = [float(number) for number in re.findall(r"\d+", row["age"])]
        last = OLDEST if "more" in row["age"] else years[-1]
        image = as_array(table.parent / (row.get("img_name") or row["file"]))
        corners = [row.get(f"face_{corner}") for corner in ("x0", "y0", "x1", "y1")]
        box = tuple(map(float, corners)) if all(corners) else (0, 0, *image.shape[1::-1])
        yield Photo(image, years[0], last, _middle(box))


def _middle(box: Box) -> np.ndarray:
    return (np.array(box[:2]) + box[2:]) / 2


def dimmed(factor: float, image: np.ndarray) -> np.ndarray:
    """Every level times a factor, as a screen or an image editor makes a photo darker."""
    return np.rint(image * factor).astype(np.uint8)


def brightened(stops: int, image: np.ndarray) -> np.ndarray:
    """Exposed longer by this number of stops: each doubles the light, clipped at white."""
    light = np.minimum((np.arange(256) / 255) ** 2.2 * 2**stops, 1)
    return np.rint(255 * light ** (1 / 2.2)).astype(np.uint8)[image]


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{f"levels at {factor:.0%}": partial(dimmed, factor) for factor in (0.5, 0.25, 0.15, 0.1, 0.06)},
    **{f"{stops} stop{'s' * (stops > 1)} brighter": partial(brightened, stops) for stops in (1, 2, 3, 4)},
}


def error(photo: Photo, person: Person) -> float:
    """Years from the age, or from the age group."""
    assert person.age is not None
    return max(photo.first - person.age, person.age - photo.last, 0)


def person_of(predictor: Predictor, image: np.ndarray, photo: Photo) -> Person | None:
    """The estimate for the labelled face; None if it is not found."""
    near = [one for one in predictor.locate(image) if _is_of(one, photo)]
    return predictor.estimate([image], [near[:1]])[0][0] if near else None


def _is_of(person: Located, photo: Photo) -> bool:
    assert person.face is not None
    x0, y0, x1, y1 = person.face
    return bool(np.abs(_middle(person.face) - photo.middle).max() < max(x1 - x0, y1 - y0) / 3)


def row(title: str, found: list[tuple[Photo, Person, Person]], *cells: str) -> str:
    """Errors before and after the changes: of the faces that are then flagged, and of the others."""
    errors = np.array([(error(photo, before), error(photo, after)) for photo, before, after in found]).reshape(-1, 2)
    flagged = np.array([is_flagged(after) for _, _, after in found], bool)
    columns = [title, *cells]
    for chosen in (flagged, ~flagged):
        before, after = errors[chosen].mean(0) if chosen.any() else (np.nan, np.nan)
        columns += [str(chosen.sum()), f"{before:.2f} -> {after:.2f}" if chosen.any() else ""]
    return f"| {' | '.join(columns)} |"


def is_flagged(person: Person) -> bool:
    return bool({DARK, OVEREXPOSED} & {*person.flags})


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    predictor = Predictor.load(device="cpu")
    by_change: dict[str, list] = {title: [] for title in CHANGES}
    by_set: list[str] = []
    total = 0
    for word in sys.argv[1:]:
        name, table, step = word.split("=")
        untouched = [person for photo in photos(Path(table), 1) if (person := person_of(predictor, photo.image, photo))]
        chosen = [*photos(Path(table), int(step))]
        found = changed(predictor, chosen)
        total += len(chosen)
        alarms = f"{sum(map(is_flagged, untouched))} of {len(untouched)}"
        by_set.append(row(name, [person for people in found.values() for person in people], alarms))
        print(by_set[-1], flush=True)
        for title, people in found.items():
            by_change[title] += people
    write_result(RESULTS, PAGE.format(
        by_set="\n".join(by_set),
        by_change="\n".join(row(title, found, f"{len(found)} of {total}") for title, found in by_change.items()),
    ))  # fmt: skip


def changed(predictor: Predictor, chosen: list[Photo]) -> dict[str, list[tuple[Photo, Person, Person]]]:
    """By change, the photos in which the face is found, with the estimates before and after."""
    found: dict[str, list] = {title: [] for title in CHANGES}
    for photo in chosen:
        before = person_of(predictor, photo.image, photo)
        for title, change in CHANGES.items():
            jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(change(photo.image)), QUALITY)
            after = before and person_of(predictor, simplejpeg.decode_jpeg(jpeg), photo)
            if after:
                found[title].append((photo, before, after))
    return found


PAGE = """# Dark and overexposed photos

`predict` flags dark and overexposed faces:

* Dark: 95 % of the pixels in the middle half of the face's width and height have a grey level under 32 of 255.
* Overexposed: half of these pixels have a grey level of 250 or more.

Here photos are made darker (all levels times a factor) or brighter (by stops, each of which doubles the light, clipped
at white), and stored as JPEG of quality 92. The tables compare the errors of the same faces before and after, as MAE in
years. FairFace's errors are distances from the age group. The package's own checkpoint and face detector are used.
Written by `python -m benchmarks.exposure`.

| | flagged, unchanged photos | changed and flagged | MAE before -> after | changed, not flagged | MAE before -> after |
| --- | ---: | ---: | ---: | ---: | ---: |
{by_set}

The same faces by change:

| | face found | flagged | MAE before -> after | not flagged | MAE before -> after |
| --- | ---: | ---: | ---: | ---: | ---: |
{by_change}
"""


if __name__ == "__main__":
    main()
