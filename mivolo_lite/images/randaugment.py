"""The operations of RandAugment (Cubuk et al., 2020), with torchvision's magnitudes: 31 steps, 0 to 30.

Images are (H, W, 3) uint8 RGB in and out; the input is not modified, and returned if nothing changes.
"""

from collections.abc import Callable

import cv2
import numpy as np

from mivolo_lite.images.degradations import LEVELS, brightness, rotation, table_lookup

MAX_MAGNITUDE = 30


def shear_x(image: np.ndarray, slope: float) -> np.ndarray:
    """Each row moved to the left by ``slope`` times its distance from the top."""
    # the fixed point is the corner of the image, half a pixel from the centre of its first pixel
    return _warp(image, [[1, -slope, -slope / 2], [0, 1, 0]])


def shear_y(image: np.ndarray, slope: float) -> np.ndarray:
    """Each column moved up by ``slope`` times its distance from the left."""
    return _warp(image, [[1, 0, 0], [-slope, 1, -slope / 2]])


def translate_x(image: np.ndarray, share: float) -> np.ndarray:
    """Translated to the right by a share of its width."""
    return _translate(image, int(share * image.shape[1]), 0)


def translate_y(image: np.ndarray, share: float) -> np.ndarray:
    """Translated down by a share of its height."""
    return _translate(image, 0, int(share * image.shape[0]))


def color(image: np.ndarray, factor: float) -> np.ndarray:
    """Saturation: grey at 0, unchanged at 1, stronger colours above."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return _blend(image, factor, cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Contrast: the mean grey at 0, unchanged at 1, more contrast above."""
    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    return cv2.addWeighted(image, factor, image, 0, (1 - factor) * mean)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Sharpness: smoothed at 0, unchanged at 1, sharper above; border pixels are unchanged."""
    smooth = cv2.addWeighted(image, 4 / 13, cv2.blur(image, (3, 3)), 9 / 13, 0)  # weights 5 in the middle, 1 around it
    sharp = _blend(image, factor, smooth)
    for border in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        sharp[border] = image[border]
    return sharp


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """The highest ``bits`` of every level."""
    return image & np.uint8(0xFF00 >> bits & 0xFF)


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    """Levels from ``threshold`` on inverted."""
    return image ^ -(image >= threshold).view(np.uint8)  # 255 where it is bright, which inverts


def autocontrast(image: np.ndarray) -> np.ndarray:
    """Every channel stretched to 0 to 255; one of a single value stays."""
    low, high = image.min(axis=0).min(axis=0).astype(float), image.max(axis=0).max(axis=0).astype(float)
    flat = low == high
    low[flat], high[flat] = 0, 255
    gains = 255 / (high - low)
    matrix = np.zeros((3, 4))
    matrix[range(3), range(3)], matrix[:, 3] = gains, -low * gains
    return cv2.transform(image, matrix)


def equalize(image: np.ndarray) -> np.ndarray:
    """Histogram equalisation of each channel, as in PIL, which ignores the brightest level."""
    channels = [cv2.calcHist([image], [channel], None, [256], [0, 256]) for channel in range(3)]
    counts = np.concatenate(channels).reshape(3, 256).astype(np.int64)
    below = counts.cumsum(axis=1)
    brightest = below.argmax(axis=1)
    below -= counts
    step = below[range(3), brightest][:, None] // 255
    below += step // 2
    even = np.minimum(below // np.maximum(step, 1), 255)
    return table_lookup(image, np.where(step, even, LEVELS).astype(np.uint8))


def _blend(image: np.ndarray, factor: float, other: np.ndarray) -> np.ndarray:
    """The other image at 0, the image at 1, and beyond it up to 2."""
    return cv2.addWeighted(image, factor, other, 1 - factor, 0)


def _translate(image: np.ndarray, x: int, y: int) -> np.ndarray:
    top, bottom, left, right = max(y, 0), max(-y, 0), max(x, 0), max(-x, 0)  # borders that become black
    visible = image[bottom : image.shape[0] - top, right : image.shape[1] - left]
    return cv2.copyMakeBorder(visible, top, bottom, left, right, cv2.BORDER_CONSTANT)


def _warp(image: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    return cv2.warpAffine(image, np.array(matrix, np.float64), image.shape[1::-1], flags=cv2.INTER_NEAREST)


# Each a function of the image and a strength: the share 0 to 1 of the largest magnitude, and its sign by chance.
OPERATIONS: dict[str, Callable[[np.ndarray, float, int], np.ndarray]] = {
    "Identity": lambda image, share, sign: image,
    "ShearX": lambda image, share, sign: shear_x(image, sign * 0.3 * share),
    "ShearY": lambda image, share, sign: shear_y(image, sign * 0.3 * share),
    "TranslateX": lambda image, share, sign: translate_x(image, sign * 150 / 331 * share),
    "TranslateY": lambda image, share, sign: translate_y(image, sign * 150 / 331 * share),
    "Rotate": lambda image, share, sign: rotation(image, sign * 30 * share, cv2.INTER_NEAREST),
    "Brightness": lambda image, share, sign: brightness(image, 1 + sign * 0.9 * share),
    "Color": lambda image, share, sign: color(image, 1 + sign * 0.9 * share),
    "Contrast": lambda image, share, sign: contrast(image, 1 + sign * 0.9 * share),
    "Sharpness": lambda image, share, sign: sharpness(image, 1 + sign * 0.9 * share),
    "Posterize": lambda image, share, sign: posterize(image, 8 - round(4 * share)),
    "Solarize": lambda image, share, sign: solarize(image, 255 * (1 - share)),
    "AutoContrast": lambda image, share, sign: autocontrast(image),
    "Equalize": lambda image, share, sign: equalize(image),
}
