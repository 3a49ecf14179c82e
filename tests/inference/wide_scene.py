"""A wide photo composed of many faces of 300, 150 and 75 pixels."""

import random
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mivolo_lite.inference.detect import open_detector
from mivolo_lite.packing.crops import Box

_HIGH, _MIDDLE, _LOW = 300, 150, 75
PLACES = (
    [(_HIGH, 10, 10), (_HIGH, 560, 10)]
    + [(_MIDDLE, left, top) for top in (10, 300) for left in (1110, 1400, 1660)]
    + [(_LOW, 20 + 150 * column, top) for top in (620, 800) for column in range(12)]
)
"""(height of the face, left, top) of each part: 2 large faces, 6 middling and 24 small ones."""


def wide_scene(photos: Sequence[Path], seed: int) -> tuple[np.ndarray, list[Box]]:
    """(1080, 1920, 3) uint8 RGB, and where its 32 faces are.

    Args:
        photos: of one person each, from which faces are cut, with half of their height around them.
        seed: which are taken.
    """
    chance, detector = random.Random(seed), open_detector(min_score=0.5)
    scene = np.empty((1080, 1920, 3), np.uint8)
    scene[:] = np.linspace(90, 170, 1920)[None, :, None]
    boxes: list[Box] = []
    while len(boxes) < len(PLACES):
        photo = cv2.cvtColor(cv2.imread(str(chance.choice(photos))), cv2.COLOR_BGR2RGB)
        faces = detector(photo)
        if len(faces) == 1 and faces[0].score > 0.85 and faces[0].box[3] - faces[0].box[1] > 120:
            boxes.append(_paste(scene, photo, faces[0].box, *PLACES[len(boxes)]))
    return scene, boxes


def _paste(scene: np.ndarray, photo: np.ndarray, face: Box, size: int, left: int, top: int) -> Box:
    """Put a face of ``size`` pixels with what is around it into the scene; returns its box there."""
    x0, y0, x1, y1 = face
    around, scale = (0.35 if size == _HIGH else 0.5) * (y1 - y0) / 2, size / (y1 - y0)
    middle, half = (x0 + x1) / 2, (y1 - y0) / 2 + around
    begin_x, begin_y = max(round(middle - half), 0), max(round(y0 - around), 0)
    part = photo[begin_y : round(y1 + around), begin_x : round(middle + half)]
    part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    place = scene[top : top + part.shape[0], left : left + part.shape[1]]
    place[:] = part[: place.shape[0], : place.shape[1]]
    at_x, at_y = (x0 - begin_x) * scale + left, (y0 - begin_y) * scale + top
    return at_x, at_y, at_x + (x1 - x0) * scale, at_y + (y1 - y0) * scale
