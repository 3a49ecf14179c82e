"""Finds boxes of any size with a detector for images of a limited size: scales, windows, and merging."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mivolo_lite.images.letterbox import resize
from mivolo_lite.packing.crops import Box, box_iou, intersection

_SAME = 0.4
"""Boxes of one detector with this intersection over union are one face."""
_INSIDE = 0.8
"""A box with this share of its area inside one of a higher score is a part of it: half a face at a window's edge."""
_EDGE = 2.0


class Detection(NamedTuple):
    """A detected box.

    Attributes:
        box: corners in pixels of the photo; it may reach beyond the photo.
        score: of the detector, 0 to 1.
        landmarks: (5, 2) pixels: the eyes, the nose, the corners of the mouth; None if the detector has none.
    """

    box: Box
    score: float
    landmarks: np.ndarray | None = None


Find = Callable[[np.ndarray], Sequence[Detection]]
"""A detector of faces or bodies in a photo (H, W, 3) uint8 RGB."""


class Window(NamedTuple):
    """A part of a scaled photo.

    Attributes:
        pixels: (h, w, 3) uint8.
        left, top: its position in the scaled photo, in pixels.
        scale: of the scaled photo: its pixels by the photo's.
        inner: which of its edges left, top, right, bottom are inside the photo.
        largest: boxes with a longer side, in pixels of the window, are found better at another scale.
    """

    pixels: np.ndarray
    left: int
    top: int
    scale: float
    inner: tuple[bool, bool, bool, bool]
    largest: float


def windows(image: np.ndarray, coarse: int, fine: int, side: int, overlap: int) -> Iterator[Window]:
    """The windows for detecting all faces of a photo: large ones in the whole, small ones in its parts.

    Args:
        image: (H, W, 3) uint8.
        coarse: longer side of the whole photo in pixels; smaller photos are not scaled.
        fine: longer side of the photo for its parts, which are used if it is larger than ``coarse``.
        side: largest side of a part.
        overlap: of neighbouring parts, and so the largest face that is certainly whole in one of them.
    """
    height, width = image.shape[:2]
    longer = max(height, width)
    yield from _parts(image, min(1.0, coarse / longer), max(coarse, side), 0, float("inf"))
    if longer > coarse:
        yield from _parts(image, min(1.0, fine / longer), side, overlap, overlap)


def _parts(image: np.ndarray, scale: float, side: int, overlap: int, largest: float) -> Iterator[Window]:
    height, width = (max(1, round(edge * scale)) for edge in image.shape[:2])
    scaled = image if scale == 1 else resize(image, width, height)
    for top, bottom in _spans(height, side, overlap):
        for left, right in _spans(width, side, overlap):
            inner = left > 0, top > 0, right < width, bottom < height
            yield Window(scaled[top:bottom, left:right], left, top, scale, inner, largest)


def _spans(length: int, side: int, overlap: int) -> list[tuple[int, int]]:
    """The smallest number of spans of at most ``side`` pixels that cover ``length``, as short as possible.

    Neighbours share only ``overlap`` pixels, since a detector's time is proportional to its pixels.
    """
    if length <= side:
        return [(0, length)]
    count = -(-(length - overlap) // (side - overlap))
    size = -(-(length + (count - 1) * overlap) // count)
    starts = [round(number * (length - size) / (count - 1)) for number in range(count)]
    return [(start, start + size) for start in starts]


def to_photo(window: Window, detections: Sequence[Detection]) -> list[Detection]:
    """The detections of a window in pixels of the photo, without boxes that its inner edges cut."""
    return [
        _moved(detection, window)
        for detection in detections
        if _longer_side(detection.box) <= window.largest and not _is_cut(detection.box, window)
    ]


def _is_cut(box: Box, window: Window) -> bool:
    height, width = window.pixels.shape[:2]
    beyond = box[0] <= _EDGE, box[1] <= _EDGE, box[2] >= width - _EDGE, box[3] >= height - _EDGE
    return any(inner and out for inner, out in zip(window.inner, beyond, strict=True))


def _moved(detection: Detection, window: Window) -> Detection:
    offset = np.array([window.left, window.top])
    corners = ((np.array(detection.box).reshape(2, 2) + offset) / window.scale).ravel().tolist()
    landmarks = None if detection.landmarks is None else (detection.landmarks + offset) / window.scale
    return Detection((corners[0], corners[1], corners[2], corners[3]), detection.score, landmarks)


def merge(detections: Sequence[Detection]) -> list[Detection]:
    """One detection for each face, highest score first (greedy non-maximum suppression)."""
    merged: list[Detection] = []
    for detection in sorted(detections, key=lambda detection: -detection.score):
        box = detection.box
        if not any(box_iou(box, surer.box) >= _SAME or _share_inside(box, surer.box) >= _INSIDE for surer in merged):
            merged.append(detection)
    return merged


def _share_inside(box: Box, other: Box) -> float:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return intersection(box, other) / area if area > 0 else 1.0


def _longer_side(box: Box) -> float:
    return max(box[2] - box[0], box[3] - box[1])
