"""Errors of faces in photos that are made darker or brighter, and what ``predict`` flags of them.

    python -m benchmarks.exposure FG-NET=FOLDER/annotations.csv=3 All-Age-Faces=FOLDER/annotations.csv=7
        Congress=FOLDER/annotations.csv=2 "FairFace sample=FOLDER/labels.csv=1"

A table lies in the folder of its photos and has MiVOLO's columns (img_name, age, face_x0 ...), or FairFace's (file,
age), whose face is in the middle. The number says that every so many-th photo is made darker and brighter; all are
looked at as they are. Writes benchmarks/results/exposure.md.
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
    """A photo of one labelled person: the years that are right, and the middle of the face."""

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
    """Every level times a factor, as a screen or a picture editor makes a photo darker."""
    return np.rint(image * factor).astype(np.uint8)


def brightened(stops: int, image: np.ndarray) -> np.ndarray:
    """As if the photo had been exposed so many stops longer: twice the light each, cut off at white."""
    light = np.minimum((np.arange(256) / 255) ** 2.2 * 2**stops, 1)
    return np.rint(255 * light ** (1 / 2.2)).astype(np.uint8)[image]


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{f"levels at {factor:.0%}": partial(dimmed, factor) for factor in (0.5, 0.25, 0.15, 0.1, 0.06)},
    **{f"{stops} stops brighter": partial(brightened, stops) for stops in (1, 2, 3, 4)},
}


def error(photo: Photo, person: Person) -> float:
    """Years from the age, or from the group of years."""
    assert person.age is not None
    return max(photo.first - person.age, person.age - photo.last, 0)


def person_of(predictor: Predictor, image: np.ndarray, photo: Photo) -> Person | None:
    """The estimate for the labelled face; None where it is not found."""
    near = [one for one in predictor.locate(image) if _is_of(one, photo)]
    return predictor.estimate([image], [near[:1]])[0][0] if near else None


def _is_of(person: Located, photo: Photo) -> bool:
    assert person.face is not None
    x0, y0, x1, y1 = person.face
    return bool(np.abs(_middle(person.face) - photo.middle).max() < max(x1 - x0, y1 - y0) / 3)


def row(title: str, found: list[tuple[Photo, Person, Person]], *cells: str) -> str:
    """The errors before and after the changes, of the faces that are flagged after them and of the others."""
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
    """Of each change, the photos in which the face is found, with the estimates before and after."""
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

`predict` flags a face as dark where 95 % of the pixels in the middle half of its width and height have a grey level
under 32 of 255, and as overexposed where half of them have 250 or more. Here photos are made darker, all levels by a
factor, or brighter by stops, each of which is twice the light, cut off at white; they are then stored as JPEG of
quality 92. Errors are those of the same faces before and after, MAE in years; FairFace's are distances from the group
of years. The package's own checkpoint and face detector; written by `python -m benchmarks.exposure`.

| | flagged as they are | changed and flagged | MAE before -> after | changed, not flagged | MAE before -> after |
| --- | ---: | ---: | ---: | ---: | ---: |
{by_set}

The same faces by the change:

| | face found | flagged | MAE before -> after | not flagged | MAE before -> after |
| --- | ---: | ---: | ---: | ---: | ---: |
{by_change}
"""


if __name__ == "__main__":
    main()
