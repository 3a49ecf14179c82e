"""Aligns faces by their landmarks, and crops rotated boxes."""

from collections.abc import Sequence

import cv2
import numpy as np

TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
"""(5, 2) where ArcFace's crops of 112 x 112 have both eyes, the nose and the corners of the mouth, left ones first
(Deng, Guo, Xue and Zafeiriou, CVPR 2019; the points of its published code)."""
_TEMPLATE_SIZE = 112


def similarity(landmarks: np.ndarray, size: int) -> np.ndarray:
    """The least-squares similarity transform from landmarks to the template.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991; without
    reflection.

    Args:
        landmarks: (5, 2) x and y in pixels, in the template's order.
        size: side of the aligned square in pixels.

    Returns:
        (2, 3) float64, for ``warp``.

    Raises:
        ValueError: all landmarks are one point, or they are not finite.
    """
    target = TEMPLATE.astype(np.float64) * (size / _TEMPLATE_SIZE)
    source = np.asarray(landmarks, np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    source_centred, target_centred = source - source_mean, target - target_mean
    spread = np.square(source_centred).sum()
    if not np.isfinite(spread) or spread == 0:
        raise ValueError("five landmarks that are no face")
    # in two dimensions the solution is one complex number, with the scale and the angle
    cosine = (source_centred * target_centred).sum() / spread
    sine = (source_centred[:, 0] * target_centred[:, 1] - source_centred[:, 1] * target_centred[:, 0]).sum() / spread
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([rotation, target_mean - rotation @ source_mean])


def warp(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Warp an image (H, W, 3) by an affine map (2, 3) to a square (size, size, 3), black outside the image.

    An image that is shrunk to less than half is averaged first, since bilinear sampling would skip pixels.
    """
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 0.5:
        height, width = image.shape[:2]
        size_between = max(1, round(2 * scale * width)), max(1, round(2 * scale * height))
        shrunk = cv2.resize(image, size_between, interpolation=cv2.INTER_AREA)
        factors = np.array([width / shrunk.shape[1], height / shrunk.shape[0]])
        # Pixel centres lie at whole numbers: x = factor * (x' + 0.5) - 0.5.
        offset = matrix[:, :2] @ ((factors - 1) / 2)
        matrix = np.column_stack([matrix[:, :2] * factors, matrix[:, 2] + offset])
        image = shrunk
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)


def align(image: np.ndarray, landmarks: np.ndarray, size: int) -> np.ndarray:
    """A face aligned to ArcFace's template, as a square of at most ``size``; a small face is not enlarged.

    Args:
        image: (H, W, 3) uint8.
        landmarks: (5, 2) x and y in pixels: eyes, nose and corners of the mouth.
        size: largest side in pixels.

    Raises:
        ValueError: impossible landmarks.
    """
    matrix = similarity(landmarks, size)
    scale = float(np.hypot(*matrix[:, 0]))
    if scale > 1:
        size = max(1, round(size / scale))
        matrix = similarity(landmarks, size)
    return warp(image, matrix, size)


def cut_corners(image: np.ndarray, corners: Sequence[float], size: float) -> np.ndarray:
    """The content of a rotated box as a square of its size, but at most ``size``; black outside the image.

    Args:
        image: (H, W, 3) uint8.
        corners: 8 numbers: x and y of the corners, clockwise from the upper left.
        size: largest side in pixels.

    Raises:
        ValueError: the corners lie on a line.
    """
    points = np.asarray(corners, np.float32).reshape(4, 2)
    (across, down), side = points[[1, 3]] - points[0], float(np.linalg.norm(points[1] - points[0]))
    if not side >= 1 or not abs(across[0] * down[1] - across[1] * down[0]) >= 1:
        raise ValueError("a rotated box without an area")
    square = round(min(side, size))
    target = np.array([[0, 0], [square, 0], [0, square]], np.float32) - 0.5
    return warp(image, cv2.getAffineTransform(points[[0, 1, 3]] - 0.5, target), square)
