"""Reasons to trust an estimate less, from the boxes, the crops and the detector."""

from collections.abc import Sequence

import cv2
import numpy as np

from mivolo_lite.audit.quality import blur
from mivolo_lite.images.letterbox import fitted, resize
from mivolo_lite.inference.people import Located
from mivolo_lite.inference.windows import Detection, Find
from mivolo_lite.packing.crops import Box, clip_box, square_around

TOO_SMALL, BLURRED, CUT_OFF, TURNED = "too small to trust", "blurred", "cut off", "turned away"
DARK, OVEREXPOSED, NOT_UPRIGHT = "dark", "overexposed", "not upright"

SAFE_SIDE = 32
"""Pixels of a face's shorter side, below which errors grow by a quarter or more: benchmarks/results/predict.md."""
_SOFT = 0.6  # blur effect that 2 % of UTKFace's images reach; they look blurred
_DARK, _WHITE = 32, 250  # grey levels of a face, below and from which errors grow: benchmarks/results/exposure.md
_BEYOND = 0.1  # share of a box's side outside the photo
_AT_EDGE = 0.15  # share of a face's side; chips, whose faces fill them, have more between the landmarks and their edges
_ASIDE = 0.8  # distance of the nose from the middle of the eyes, by half the eyes' distance: half profile
_SURE = 0.92  # faces with this score are upright: four of five skip the second detection of 8 ms
_AROUND = 1.6  # side of the square for the second detection, by the face's longer side
_AGAIN = 96  # largest side of that square in pixels; 64 and 128 agree with it


def flags_of(image: np.ndarray, person: Located, find_faces: Find | None = None) -> tuple[str, ...]:
    """The flags of a person's face, or of the body if there is no face.

    Args:
        image: (H, W, 3) uint8, the photo.
        person: with boxes in its pixels. Turned faces are known only with landmarks.
        find_faces: the face detector. Faces that are not upright are known only with it and a box's score.
    """
    box = person.face or person.body
    if box is None:
        return ()
    left, top, right, bottom = clip_box(box, image)
    if right <= left or bottom <= top:
        return (CUT_OFF,)
    grey = cv2.cvtColor(image[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
    applies = {
        TOO_SMALL: min(right - left, bottom - top) < SAFE_SIDE,
        BLURRED: blur(grey) >= _SOFT,
        DARK: person.face is not None and np.percentile(_middle(grey), 95) < _DARK,
        OVEREXPOSED: person.face is not None and np.median(_middle(grey)) >= _WHITE,
        CUT_OFF: _share_outside(box, image) >= _BEYOND or _is_cut_through(box, person.landmarks, image),
        TURNED: person.landmarks is not None and _is_turned(person.landmarks),
        NOT_UPRIGHT: _is_not_upright(image, person, find_faces),
    }
    return tuple(flag for flag, is_on in applies.items() if is_on)


def _middle(grey: np.ndarray) -> np.ndarray:
    """The middle half of a face's width and height, which has little background."""
    height, width = grey.shape
    return grey[height // 4 : height - height // 4, width // 4 : width - width // 4]


def _share_outside(box: Box, image: np.ndarray) -> float:
    """The largest share of a box's width or height outside the photo."""
    height, width = image.shape[:2]
    across = max(-box[0], 0) + max(box[2] - width, 0)
    down = max(-box[1], 0) + max(box[3] - height, 0)
    return max(across / (box[2] - box[0]), down / (box[3] - box[1]))


def _is_cut_through(box: Box, landmarks: np.ndarray | None, image: np.ndarray) -> bool:
    """Whether an eye, the nose or the mouth is at the photo's edge, where detectors end a box of half a face."""
    if landmarks is None:
        return False
    height, width = image.shape[:2]
    near = _AT_EDGE * np.array([box[2] - box[0], box[3] - box[1]])
    return bool((landmarks < near).any() or (landmarks > (width, height) - near).any())


def _is_turned(landmarks: np.ndarray) -> bool:
    """Whether the nose is far from the middle between the eyes, along the line through them."""
    right_eye, left_eye, nose = landmarks[:3]
    line = left_eye - right_eye
    length = float(np.hypot(*line))
    if length == 0:
        return True
    along = float((nose - (right_eye + left_eye) / 2) @ line) / length
    return abs(along) > _ASIDE * length / 2


def _is_not_upright(image: np.ndarray, person: Located, find_faces: Find | None) -> bool:
    """Whether the detector's score of the face rises when it is rotated by 90, 180 or 270 degrees.

    The landmarks do not show it: YuNet puts the eyes of an upside-down face at its mouth.
    """
    if person.face is None or person.score is None or find_faces is None or person.score >= _SURE:
        return False
    around = _square_around(image, person.face)
    upright, *turned = (_best_score(find_faces(np.ascontiguousarray(np.rot90(around, k)))) for k in range(4))
    return max(turned) > upright


def _square_around(image: np.ndarray, face: Box) -> np.ndarray:
    """A face with some of its surroundings, at most ``_AGAIN`` pixels per side."""
    around = square_around(image, face, _AROUND)
    return resize(around, *fitted(around.shape[1], around.shape[0], _AGAIN))


def _best_score(faces: Sequence[Detection]) -> float:
    return max((face.score for face in faces), default=0.0)
