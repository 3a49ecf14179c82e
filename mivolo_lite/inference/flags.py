"""Reasons to trust an estimate less, from the boxes, the crops and the detector."""

from collections.abc import Sequence

import cv2
import numpy as np

from mivolo_lite.audit.quality import blur
from mivolo_lite.images.letterbox import fitted, resize
from mivolo_lite.inference.people import Located
from mivolo_lite.inference.windows import Detection, Find
from mivolo_lite.packing.crops import Box, clip_box

TOO_SMALL, BLURRED, CUT_OFF, TURNED = "too small to trust", "blurred", "cut off", "turned away"
DARK, OVEREXPOSED, NOT_UPRIGHT = "dark", "overexposed", "not upright"

SAFE_SIDE = 32
"""Pixels of a face's shorter side, below which errors grow by a quarter and more: benchmarks/results/predict.md."""
_SOFT = 0.6  # the blur effect of 2 % of UTKFace's images, which look soft
_DARK, _WHITE = 32, 250  # grey levels of a face, below and from which errors grow: benchmarks/results/exposure.md
_BEYOND = 0.1  # share of a box's side that lies outside the photo
_AT_EDGE = 0.15  # of a face's side; chips, whose faces fill them, have more between the landmarks and their edges
_ASIDE = 0.8  # how far the nose may lie from the middle of the eyes, in half distances of the eyes: half profile
_SURE = 0.92  # a score from which on faces are upright: four of five need no second look, of 8 ms
_AROUND = 1.6  # longer sides of a face: the square in which it is looked for again
_AGAIN = 96  # pixels of that square's side, with which 64 and 128 agree


def flags_of(image: np.ndarray, person: Located, find_faces: Find | None = None) -> tuple[str, ...]:
    """What is wrong with a person's face, or with the body where there is no face.

    Args:
        image: (H, W, 3) uint8, the photo.
        person: with boxes in its pixels. Without landmarks it is not known who is turned away.
        find_faces: what found the faces. Without it, and of a box without a score, it is not known who is upright.
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
    """The middle half of a face's width and height, which has little of what is behind the face."""
    height, width = grey.shape
    return grey[height // 4 : height - height // 4, width // 4 : width - width // 4]


def _share_outside(box: Box, image: np.ndarray) -> float:
    """The largest share of a box's width or height that is not in the photo."""
    height, width = image.shape[:2]
    across = max(-box[0], 0) + max(box[2] - width, 0)
    down = max(-box[1], 0) + max(box[3] - height, 0)
    return max(across / (box[2] - box[0]), down / (box[3] - box[1]))


def _is_cut_through(box: Box, landmarks: np.ndarray | None, image: np.ndarray) -> bool:
    """Whether an eye, the nose or the mouth lies at the photo's edge, where detectors end a box of half a face."""
    if landmarks is None:
        return False
    height, width = image.shape[:2]
    near = _AT_EDGE * np.array([box[2] - box[0], box[3] - box[1]])
    return bool((landmarks < near).any() or (landmarks > (width, height) - near).any())


def _is_turned(landmarks: np.ndarray) -> bool:
    """Whether the nose lies far from the middle between the eyes, along the line through them."""
    right_eye, left_eye, nose = landmarks[:3]
    line = left_eye - right_eye
    length = float(np.hypot(*line))
    if length == 0:
        return True
    along = float((nose - (right_eye + left_eye) / 2) @ line) / length
    return abs(along) > _ASIDE * length / 2


def _is_not_upright(image: np.ndarray, person: Located, find_faces: Find | None) -> bool:
    """Whether the detector is surer of the face once it is turned by a quarter or a half.

    The landmarks do not say it: YuNet puts the eyes of a face that is upside down where its mouth is.
    """
    if person.face is None or person.score is None or find_faces is None or person.score >= _SURE:
        return False
    around = _square_around(image, person.face)
    upright, *turned = (_best_score(find_faces(np.ascontiguousarray(np.rot90(around, k)))) for k in range(4))
    return max(turned) > upright


def _square_around(image: np.ndarray, face: Box) -> np.ndarray:
    """A face with some of its photo around it, at most ``_AGAIN`` pixels a side."""
    x, y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
    half = _AROUND * max(face[2] - face[0], face[3] - face[1]) / 2
    left, top, right, bottom = clip_box((x - half, y - half, x + half, y + half), image)
    return resize(image[top:bottom, left:right], *fitted(right - left, bottom - top, _AGAIN))


def _best_score(faces: Sequence[Detection]) -> float:
    return max((face.score for face in faces), default=0.0)
