"""Measures how data sets of already cropped faces frame them, so that faces of photos are cut alike.

UTKFace's chips are squares around heads; a detector's boxes in photos are narrow and end at the hair. A model trained
on such chips had an MAE of 9.7 years on FG-NET with the boxes, and of 6.7 with squares like its chips.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from mivolo_lite.images.jpeg import BrokenJpeg, decode
from mivolo_lite.images.letterbox import fitted
from mivolo_lite.inference.detect import FaceDetector, open_detector
from mivolo_lite.inference.find_faces import by_prominence
from mivolo_lite.shards.framing import DETECTOR_KEY, FRAMING_KEY, is_whole_face
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.storage import open_shards

FACES, FEWEST = 100, 10
"""The number of faces to measure, and of those in which a face must be found."""

_SIDE = 128  # pixels of the detector's images, without the border
# If an image ends at the face, the detector's box differs from that in a photo: the square would be up to a tenth too
# large and its shift 0. With a black border of half the image's side, both are right to 0.02.
_BORDER = 0.5


def record_framing(indexes: Sequence[ShardIndex]) -> str:
    """Write the framing of the faces into the crop policies of a data set's splits, if they are whole images.

    Args:
        indexes: of the splits. The faces of the largest are measured.

    Returns:
        A line on the result, or nothing if there is nothing to measure.

    Raises:
        UserError: an index cannot be written.
    """
    largest = max(indexes, key=len)
    if not is_whole_face(largest.info["crop_policy"]) or not (largest.columns["face_size"] > 0).any():
        return ""
    detector = open_detector()
    faces = list(_faces(largest))
    framing = measure_framing(faces, detector)
    if framing is None:
        return (
            f"framing of the faces not measured, {detector.name} finds too few of {len(faces)}: `predict` cuts to the "
            "detector's boxes"
        )
    for index in indexes:
        index.info["crop_policy"][FRAMING_KEY] = framing
        index.save_info()
    return (
        f"faces are framed by squares of {framing['face_square']} times {detector.name}'s boxes, "
        f"{framing['face_shift']:+} of their height down: `predict` will cut photos so"
    )


def measure_framing(faces: Sequence[np.ndarray], detector: FaceDetector) -> dict[str, Any] | None:
    """Measure how images frame their faces.

    Args:
        faces: (H, W, 3) uint8 RGB each.
        detector: the one for the faces of photos.

    Returns:
        ``face_square`` and ``face_shift`` as in ``CropRules``, medians, and the detector's name; None if it finds a
        face in less than half of the images, or in fewer than ``FEWEST``.
    """
    framings = np.array([framing for face in faces if (framing := _framing(face, detector)) is not None])
    if len(framings) < max(FEWEST, len(faces) / 2):
        return None
    square, shift = np.median(framings, axis=0).round(2).tolist()
    return {"face_square": square, "face_shift": shift, DETECTOR_KEY: detector.name}


def _framing(face: np.ndarray, detector: Callable) -> tuple[float, float] | None:
    """An image's side by that of the face's box, and how far its middle is below the box's, by the box's height."""
    scale = _SIDE / max(face.shape[:2])
    width, height = fitted(face.shape[1], face.shape[0], _SIDE)
    image = cv2.resize(face, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    border = round(_BORDER * _SIDE)
    framed = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    boxes = by_prominence((detection.box for detection in detector(framed)), framed.shape[1], framed.shape[0])
    if not boxes:
        return None
    left, top, right, bottom = boxes[0]
    side = np.sqrt((right - left) * (bottom - top))
    return np.sqrt(width * height) / side, (border + height / 2 - (top + bottom) / 2) / (bottom - top)


def _faces(index: ShardIndex) -> Iterator[np.ndarray]:
    """Evenly spaced face images of a data set, without undecodable ones."""
    for jpeg in open_shards(index, 1).read_all("face", index.some_with_image(["face"], FACES)):
        try:
            yield decode(jpeg)
        except BrokenJpeg:
            continue
