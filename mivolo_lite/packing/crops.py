"""Cutting a person's face and body out of a photo, by MiVOLO's training rules (Kuprashevich and Tolstykh, 2023)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import cv2
import numpy as np
import simplejpeg

from mivolo_lite.errors import UserError
from mivolo_lite.images.letterbox import fitted, resize

Box = tuple[float, float, float, float]
"""Corners x0, y0, x1, y1 in pixels; x1 and y1 are exclusive."""

JPEG_QUALITY = 95
# Chroma subsampling saves a quarter of the bytes, but costs more than 2 grey levels on noisy bodies at 224 px.
JPEG_CHROMA = "444"


@dataclass(frozen=True)
class CropRules:
    """Which boxes give a crop.

    Args:
        crop_size: largest side of a stored crop in pixels. Larger crops are shrunk, smaller ones are not enlarged. 256
            is enough for a model of 224 px, and halves the decoding time in training.
        min_face: smallest shorter side of a face crop in pixels.
        min_body: smallest shorter side of a body crop in pixels.
        min_overlap: smallest intersection over union at which another person's box is blanked out of a body.
        min_kept: smallest share of a body's pixel values that are not black after blanking.
        blank: which boxes of other people are blanked out of a body: ``large`` ones, as in MiVOLO, without faces under
            min_face and bodies under min_body; ``all``; or ``none``.
        resample: how crops are shrunk: ``average`` is bilinear down to half the size and averages below; ``mivolo`` is
            bilinear at any ratio, as in MiVOLO.
        align: align faces by five landmarks to ArcFace's template, as squares of crop_size.
        face_square: crop faces to a square whose side is this multiple of the geometric mean of the box's sides; 0 for
            the box itself.
        face_shift: shift of that square downwards, as a share of the box's height.
    """

    crop_size: int = 448
    min_face: int = 5
    min_body: int = 100
    min_overlap: float = 1e-4
    min_kept: float = 0.4
    blank: Literal["large", "all", "none"] = "large"
    resample: Literal["average", "mivolo"] = "average"
    align: bool = False
    face_square: float = 0.0
    face_shift: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.face_square <= 10 and -1 <= self.face_shift <= 1):
            raise UserError(
                f"--face_square {self.face_square} --face_shift {self.face_shift}: give a multiple up to 10, and a "
                "share from -1 to 1"
            )
        for name in ("crop_size", "min_face", "min_body"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: give a side in pixels, 1 or more")

    @classmethod
    def of_policy(cls, policy: Mapping[str, Any]) -> "CropRules":
        """The rules in a ``dataset.json`` or a model's card, also of earlier versions."""
        rules = {field.name: policy[field.name] for field in fields(cls) if field.name in policy}
        return cls(**({"blank": "all"} if policy.get("blank_small") else {}) | rules)

    def policy(self) -> dict:
        """The rules as recorded in ``dataset.json``."""
        return asdict(self) | {"jpeg_quality": JPEG_QUALITY, "jpeg_chroma": JPEG_CHROMA}


def check_cuts_nothing(rules: CropRules) -> None:
    """Raise UserError if the rules have an option without effect on whole images.

    ``dataset.json`` would record it, and ``predict`` would crop faces by it.
    """
    for field in fields(rules):
        value = getattr(rules, field.name)
        if field.name not in ("crop_size", "resample") and value != field.default:
            option = f"--{field.name}"
            raise UserError(f"{option} {value}: the images are taken whole and nothing is cut; leave {option} out")


class NoCrop(Exception):
    """A box gives no crop; the message is the reason, as in "under 100 px"."""


def cut_face(image: np.ndarray, face: Box, rules: CropRules) -> np.ndarray:
    """The face crop (H, W, 3) of a photo, at full size, without blanking. Raises NoCrop if it is too small."""
    if _shorter_side(clip_box(face, image)) < rules.min_face:
        raise NoCrop(f"under {rules.min_face} px")
    left, top, right, bottom = clip_box(framed(face, rules), image)
    if _shorter_side((left, top, right, bottom)) < 1:
        raise NoCrop("outside the photo")
    return image[top:bottom, left:right]


def framed(face: Box, rules: CropRules) -> Box:
    """The box of a face crop: the square of ``rules.face_square``, or the face's box."""
    if not rules.face_square:
        return face
    left, top, right, bottom = face
    half = rules.face_square * math.sqrt((right - left) * (bottom - top)) / 2
    x, y = (left + right) / 2, (top + bottom) / 2 + rules.face_shift * (bottom - top)
    return x - half, y - half, x + half, y + half


def body_around(face: Box) -> Box:
    """A body box derived from a face box: three faces wide, from half a face above to four faces below it.

    For an upright person who faces the camera, it covers head, arms and hips. Cropping clips it to the photo.
    """
    x0, y0, x1, y1 = map(int, face)
    width, height = x1 - x0, y1 - y0
    return x0 - width, y0 - height // 2, x1 + width, y1 + 4 * height


def cut_body(
    image: np.ndarray,
    body: Box,
    own_face: Box | None,
    other_faces: Sequence[Box],
    other_bodies: Sequence[Box],
    rules: CropRules,
) -> np.ndarray:
    """The body crop (H, W, 3) of a photo, at full size, with other people and the person's own face blacked out.

    The own face is always blacked out, so that the two crops share no evidence. Boxes of others are blacked out if they
    overlap the body, by ``rules.blank``.

    Raises:
        NoCrop: the body is too small, or too little of it is left.
    """
    clipped = left, top, right, bottom = clip_box(body, image)
    if _shorter_side(clipped) < rules.min_body:
        raise NoCrop(f"under {rules.min_body} px")
    other_boxes = (
        []
        if rules.blank == "none"
        else [
            box
            for boxes, min_side in ((other_faces, rules.min_face), (other_bodies, rules.min_body))
            for box in _large_enough(boxes, image, min_side, rules)
            if box_iou(box, clipped) >= rules.min_overlap
        ]
    )
    faces = [] if own_face is None else _large_enough([own_face], image, rules.min_face, rules)
    crop = image[top:bottom, left:right].copy()
    for x0, y0, x1, y1 in other_boxes + faces:
        # Both edges are clamped on both sides. Otherwise a box beyond the crop's edge becomes a negative slice, which
        # counts from the other end (MiVOLO's reader blanks a quarter of such a crop).
        rows = slice(max(y0 - top, 0), max(y1 - top, 0))
        columns = slice(max(x0 - left, 0), max(x1 - left, 0))
        crop[rows, columns] = 0
    # Counts channel values, so that naturally black pixels count as blanked. This is MiVOLO's rule.
    if np.count_nonzero(crop) < rules.min_kept * crop.size:
        raise NoCrop("hidden by boxes of others" if other_boxes else "hidden by the own face" if faces else "black")
    return crop


def _large_enough(
    boxes: Sequence[Box], image: np.ndarray, min_side: int, rules: CropRules
) -> list[tuple[int, int, int, int]]:
    """The boxes in whole pixels, without those that are too small."""
    clipped = [clip_box(box, image) for box in boxes]
    return clipped if rules.blank == "all" else [box for box in clipped if _shorter_side(box) >= min_side]


def _shorter_side(box: tuple[int, int, int, int]) -> int:
    """The shorter side; negative for a box upside down."""
    return min(box[2] - box[0], box[3] - box[1])


def clip_box(box: Box, image: np.ndarray) -> tuple[int, int, int, int]:
    """The box in whole pixels, clipped to the photo."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (int(edge) for edge in box)
    return min(max(x0, 0), width), min(max(y0, 0), height), min(max(x1, 0), width), min(max(y1, 0), height)


def square_around(image: np.ndarray, box: Box, factor: float) -> np.ndarray:
    """The photo within the square around a box, with sides of ``factor`` times its longer side, clipped."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half = factor * max(box[2] - box[0], box[3] - box[1]) / 2
    left, top, right, bottom = clip_box((x - half, y - half, x + half, y + half), image)
    return image[top:bottom, left:right]


def box_iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes, 0 if both are empty."""
    shared = intersection(first, second)
    union = _area(first) + _area(second) - shared
    return shared / union if union > 0 else 0.0


def intersection(first: Box, second: Box) -> float:
    """The area that two boxes share."""
    width = max(min(first[2], second[2]) - max(first[0], second[0]), 0)
    height = max(min(first[3], second[3]) - max(first[1], second[1]), 0)
    return width * height


def encode(crop: np.ndarray, crop_size: float, resample: str = "average") -> bytes:
    """A crop as the JPEG of a shard, shrunk if its larger side exceeds ``crop_size``."""
    height, width = crop.shape[:2]
    if max(height, width) > crop_size:
        size = fitted(width, height, crop_size)
        crop = resize(crop, *size) if resample == "average" else cv2.resize(crop, size)  # by default bilinear
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(crop), JPEG_QUALITY, colorspace="RGB", colorsubsampling=JPEG_CHROMA
    )


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)
