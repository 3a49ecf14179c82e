"""Compares two images by their pixels, to decide whether they are the same photograph."""

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
_FINEST, _COARSEST = 1.0, 4.0  # pixels; finer structure is noise, coarser structure is common to all faces
_EDGE = 4
_MIN_SHARED = 0.6


def thumbnails_alike(
    thumbnails: np.ndarray, first: np.ndarray, second: np.ndarray, mirrored: np.ndarray
) -> Iterator[np.ndarray]:
    """(K,) bool, in chunks: whether the thumbnails of two rows correlate, the second mirrored where ``mirrored``."""
    for start in range(0, len(first), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        ends = standardised(thumbnails[first[chunk]]), standardised(thumbnails[second[chunk]])
        flipped = np.where(mirrored[chunk, None, None], ends[1][:, :, ::-1], ends[1])
        yield np.einsum("nij,nij->n", ends[0], flipped) >= THUMBNAILS_ALIKE


def similarities(files: Sequence[ShardFiles], task: tuple[str, list[tuple]]) -> list[float]:
    """``similarity`` of pairs ((folder, sample), (folder, sample), mirrored) of faces or of bodies."""
    image, pairs = task
    views = {location: _view(files[location[0]].read(image, location[1])) for pair in pairs for location in pair[:2]}
    ends = ((views[first], views[second], mirrored) for first, second, mirrored in pairs)
    return [similarity(first, second[:, ::-1] if mirrored else second) for first, second, mirrored in ends]


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of the fine patterns of two grey views (64, 64) float32, after aligning the second to the first.

    Alignment (an affine map, by Evangelidis and Psarakis' ECC, PAMI 2008) compensates crops and sizes. Removing the
    coarse pattern distinguishes faces in the same pose and light. On UTKFace, pairs from 0.9 on are the same
    photograph, also with watermarks, 0.87 to 0.9 are the same person a moment later, and the most similar different
    people have 0.86.
    """
    second = np.ascontiguousarray(second)
    warp = _find_warp(first, second)
    if warp is None:
        return 0.0
    # Filtered before warping, since filtering would spread the border that warping adds.
    shared = (_warped(_interior(second), warp) > 0.999) & (_interior(first) > 0)
    if shared.mean() < _MIN_SHARED:
        return 0.0
    return _correlation(_fine_pattern(first)[shared], _warped(_fine_pattern(second), warp)[shared])


def _view(data: bytes) -> np.ndarray:
    """(64, 64) float32 grey of a JPEG."""
    grey = cv2.cvtColor(decode(data), cv2.COLOR_RGB2GRAY)
    return resize(grey, _SIDE, _SIDE).astype(np.float32)


def _find_warp(first: np.ndarray, second: np.ndarray) -> np.ndarray | None:
    """(2, 3) affine map from points of ``first`` to points of ``second``, None if it does not converge."""
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-4)
    try:
        return cv2.findTransformECC(first, second, np.eye(2, 3, dtype=np.float32), cv2.MOTION_AFFINE, stop)[1]
    except cv2.error:
        return None


def _warped(view: np.ndarray, warp: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(view, warp, view.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _interior(view: np.ndarray) -> np.ndarray:
    """Mask of the interior, without the border that filters affect."""
    inside = np.zeros_like(view)
    inside[_EDGE:-_EDGE, _EDGE:-_EDGE] = 1
    return inside


def _fine_pattern(view: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(view, (0, 0), _FINEST) - cv2.GaussianBlur(view, (0, 0), _COARSEST)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / norm if norm else 0.0
