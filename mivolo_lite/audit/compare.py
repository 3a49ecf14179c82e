"""Whether two images show the same photograph, from their pixels."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from mivolo_lite.audit.hashing import standardised
from mivolo_lite.images.jpeg import decode
from mivolo_lite.images.letterbox import resize
from mivolo_lite.shards.storage import ShardFiles

THUMBNAILS_ALIKE = 0.88
"""Correlation of thumbnails from which a pair is decoded. Of UTKFace's copies, aligned a little differently each
time, the lowest has 0.887; of all pairs of its images one in 100,000 has more than 0.9."""

_CHUNK = 4096
_SIDE = 64
_FINEST, _COARSEST = 1.0, 4.0  # pixels; below lies the noise of files, above what is alike in all faces
_EDGE = 4
_MIN_SHARED = 0.6


def thumbnails_alike(
    thumbnails: np.ndarray, one: np.ndarray, other: np.ndarray, mirrored: np.ndarray
) -> Iterator[np.ndarray]:
    """(K,) bool, in parts: whether the thumbnails of two places correlate, the second mirrored where ``mirrored``."""
    for first in range(0, len(one), _CHUNK):
        part = slice(first, first + _CHUNK)
        left, right = standardised(thumbnails[one[part]]), standardised(thumbnails[other[part]])
        right = np.where(mirrored[part, None, None], right[:, :, ::-1], right)
        yield np.einsum("nij,nij->n", left, right) >= THUMBNAILS_ALIKE


def similarities(files: Sequence[ShardFiles], task: tuple[str, list[tuple]]) -> list[float]:
    """``similarity`` of pairs ((folder, sample), (folder, sample), mirrored) of one kind of image."""
    image, pairs = task
    read = {place: _view(files[place[0]].read(image, place[1])) for pair in pairs for place in pair[:2]}
    return [similarity(read[one], read[other][:, ::-1] if mirrored else read[other]) for one, other, mirrored in pairs]


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of the fine pattern of two grey views (64, 64) float32, once the second is laid over the first.

    Alignment (an affine map, by Evangelidis and Psarakis' ECC, PAMI 2008) makes up for another crop or size; taking
    away the coarse pattern keeps two faces in the same pose and light apart. On UTKFace 0.9 and more is the same
    photograph whatever was done to it, watermarks included, 0.87 to 0.9 the same person a moment later, and the best
    lookalikes have 0.86.
    """
    other = np.ascontiguousarray(other)
    move = _move(one, other)
    if move is None:
        return 0.0
    # Filtered before it is moved: what moving brings in from outside would spread.
    shared = (_moved(_inside(other), move) > 0.999) & (_inside(one) > 0)
    if shared.mean() < _MIN_SHARED:
        return 0.0
    return _correlation(_fine(one)[shared], _moved(_fine(other), move)[shared])


def _view(data: bytes) -> np.ndarray:
    """(64, 64) float32 grey of a JPEG."""
    grey = cv2.cvtColor(decode(data), cv2.COLOR_RGB2GRAY)
    return resize(grey, _SIDE, _SIDE).astype(np.float32)


def _move(one: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    """(2, 3) affine map from places in ``one`` to places in ``other``, None where there is nothing to hold on to."""
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-4)
    try:
        return cv2.findTransformECC(one, other, np.eye(2, 3, dtype=np.float32), cv2.MOTION_AFFINE, stop, None, 5)[1]
    except cv2.error:
        return None


def _moved(other: np.ndarray, move: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(other, move, other.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _inside(view: np.ndarray) -> np.ndarray:
    """1 but for the edge, where filters meet its end."""
    inside = np.zeros_like(view)
    inside[_EDGE:-_EDGE, _EDGE:-_EDGE] = 1
    return inside


def _fine(view: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(view, (0, 0), _FINEST) - cv2.GaussianBlur(view, (0, 0), _COARSEST)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / norm if norm else 0.0
