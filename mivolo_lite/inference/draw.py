"""Images with boxes and ages."""

from collections.abc import Sequence

import cv2
import numpy as np

from mivolo_lite.inference.people import Person
from mivolo_lite.packing.crops import Box

_FACE, _BODY, _TEXT = (255, 160, 0), (60, 140, 255), (0, 0, 0)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FAR = 1 << 20  # pixels, larger than any photo; OpenCV's coordinates are int32


def draw(image: np.ndarray, people: Sequence[Person], labels: Sequence[str] | None = None) -> np.ndarray:
    """A copy of a photo (H, W, 3) uint8 RGB with everybody's boxes and, above them, age and gender.

    Args:
        image: the photo.
        people: with boxes in its pixels.
        labels: texts instead of age and gender.
    """
    annotated = np.ascontiguousarray(image).copy()
    thickness = max(1, round(min(image.shape[:2]) / 300))
    for person in people:
        for box, colour in ((person.body, _BODY), (person.face, _FACE)):
            if box is not None:
                cv2.rectangle(annotated, *_corners(box), colour, thickness)
    for person, text in zip(people, labels or map(label_of, people), strict=True):
        box = person.face or person.body
        if box is not None:
            _write(annotated, text, box, _FACE if person.face else _BODY)
    return annotated


def label_of(person: Person) -> str:
    """``34 F``: the age in whole years and the gender; ``34? F`` if there are flags."""
    if person.age is None:
        return "?"
    return f"{person.age:.0f}{'?' if person.flags else ''} {person.gender or ''}".strip()


def _write(image: np.ndarray, text: str, box: Box, colour: tuple[int, int, int]) -> None:
    """Write text on a bar at a box's top, as wide as the box if that is legible, and inside the image."""
    scale = float(np.clip((box[2] - box[0]) / 90, 0.45, max(0.6, min(image.shape[:2]) / 500)))
    thickness = max(1, round(1.5 * scale))
    (width, height), base = cv2.getTextSize(text, _FONT, scale, thickness)
    left = int(np.clip(box[0], 0, max(image.shape[1] - width - 4, 0)))
    bottom = int(np.clip(box[1], height + base + 4, image.shape[0]))
    cv2.rectangle(image, (left, bottom - height - base - 4), (left + width + 4, bottom), colour, -1)
    cv2.putText(image, text, (left + 2, bottom - base - 1), _FONT, scale, _TEXT, thickness, cv2.LINE_AA)


def _corners(box: Box) -> tuple[tuple[int, int], tuple[int, int]]:
    x0, y0, x1, y1 = (round(min(max(edge, -_FAR), _FAR)) for edge in box)
    return (x0, y0), (x1, y1)
