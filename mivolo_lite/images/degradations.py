"""Photometric changes, camera degradations and occlusion, as pure functions.

The robustness evaluation applies them at fixed strengths, training at random ones. Images are (H, W, 3) uint8 RGB, in
and out; the input is not modified. Lengths are shares of the image's side, so that images of all sizes change alike.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg
from numpy.typing import ArrayLike

from mivolo_lite.images.letterbox import resize

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in JPEG

LEVELS = np.arange(256, dtype=np.uint8)[None]
"""All values of a pixel, (1, 256). Changes of single values are applied to these, and then by ``table_lookup``."""


def brightness(image: np.ndarray, gain: float) -> np.ndarray:
    """All channels times ``gain``."""
    return cv2.convertScaleAbs(image, alpha=gain)


def colour_cast(image: np.ndarray, gains: Sequence[float]) -> np.ndarray:
    """Each of the three channels times its gain."""
    return table_lookup(image, as_pixels(np.array(gains, np.float32)[:, None] * LEVELS))


def contrast(image: np.ndarray, share: float) -> np.ndarray:
    """The difference to the mean grey times ``share``."""
    mean = (image @ _LUMA).mean()
    return table_lookup(image, as_pixels(mean + np.float32(share) * (LEVELS - mean)))


def grey(image: np.ndarray, share: float) -> np.ndarray:
    """Saturation reduced by ``share``; increased if it is negative."""
    values = image.astype(np.float32)
    change: np.ndarray = cv2.cvtColor(values @ _LUMA, cv2.COLOR_GRAY2RGB)
    change -= values
    change *= np.float32(share)
    return cv2.add(values, change, dtype=cv2.CV_8U)


def blur(image: np.ndarray, share: float) -> np.ndarray:
    """Gaussian blur with a standard deviation of ``share`` of the longer side."""
    return cv2.GaussianBlur(image, (0, 0), share * max(image.shape[:2]), borderType=cv2.BORDER_REFLECT_101)


def noise(image: np.ndarray, deviation: float, random: np.random.Generator) -> np.ndarray:
    """Gaussian noise with a standard deviation in grey levels."""
    change = random.standard_normal(image.shape, dtype=np.float32)
    change *= np.float32(deviation)
    return cv2.add(image.astype(np.float32), change, dtype=cv2.CV_8U)


def jpeg(image: np.ndarray, quality: float) -> np.ndarray:
    """JPEG compression with chroma subsampling."""
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), int(quality), "RGB", "420")
    return simplejpeg.decode_jpeg(data, "RGB")


def low_resolution(image: np.ndarray, times: float) -> np.ndarray:
    """Low resolution: shrunk by the factor ``times``, and enlarged again."""
    height, width = image.shape[:2]
    small = resize(image, max(1, round(width / times)), max(1, round(height / times)))
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def occlusion(image: np.ndarray, rows: slice, columns: slice, fill: ArrayLike) -> np.ndarray:
    """Occlusion of a part by one level, a colour (3,), or pixels (h, w, 3)."""
    covered = image.copy()
    covered[rows, columns] = fill
    return covered


def rotation(
    image: np.ndarray, degrees: float, interpolation: int = cv2.INTER_LINEAR, border: int = cv2.BORDER_CONSTANT
) -> np.ndarray:
    """Rotated to the left about its centre; OpenCV's ``border`` fills the corners, by default with black."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    return cv2.warpAffine(image, matrix, (width, height), flags=interpolation, borderMode=border)


def table_lookup(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Each pixel's value looked up in ``table`` (1, 256) uint8, or (3, 256) by channel."""
    return cv2.LUT(image, table.T[None])


def as_pixels(values: np.ndarray) -> np.ndarray:
    """float32 rounded and clipped to uint8, in one pass."""
    return cv2.add(values, 0, dtype=cv2.CV_8U)  # type: ignore[call-overload]  # OpenCV's stubs know no numbers here
