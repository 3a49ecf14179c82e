"""Fits a crop into a square without changing its aspect ratio, as MiVOLO does."""

import cv2
import numpy as np


def resize(image: np.ndarray, width: int, height: int, out: np.ndarray | None = None) -> np.ndarray:
    """``image`` (H, W, 3) uint8 at another size, written to ``out`` (height, width, 3) if given.

    Bilinear, as in MiVOLO, down to half the size; averaged below that, where bilinear would skip pixels.
    """
    averages = 4 * width * height < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height), out, interpolation=cv2.INTER_AREA if averages else cv2.INTER_LINEAR)


def fitted(width: int, height: int, size: float) -> tuple[int, int]:
    """The width and height of an image scaled so that its larger side is ``size``; neither falls below 1."""
    ratio = min(size / height, size / width)
    return max(1, round(width * ratio)), max(1, round(height * ratio))


def letterbox(image: np.ndarray, size: int, out: np.ndarray | None = None) -> np.ndarray:
    """Scales an image to fit a square, up or down, and pads it with black on both sides.

    Args:
        image: (H, W, 3) uint8.
        size: side of the square in pixels.
        out: (size, size, 3) uint8 to write to, such as a row of a batch.

    Returns:
        (size, size, 3) uint8; without ``out``, it is ``image`` itself if that has this shape. An odd row or column of
        padding is at the bottom or right.
    """
    height, width = image.shape[:2]
    if out is None:
        if height == width == size:
            return image
        out = np.empty((size, size, 3), np.uint8)
    new_width, new_height = fitted(width, height, size)
    if new_width != new_height:
        out[:] = 0
    top, left = (size - new_height) // 2, (size - new_width) // 2
    inner = out[top : top + new_height, left : left + new_width]
    if (new_width, new_height) == (width, height):
        inner[:] = image
    else:
        resize(image, new_width, new_height, inner)
    return out
