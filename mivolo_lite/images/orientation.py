"""EXIF orientation, and turning images upright."""

import warnings
from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image

UPRIGHT = 1


def orientation_in(exif: bytes) -> int:
    """The orientation, 1 to 8, in EXIF data, with or without the prefix ``Exif``."""

    def read() -> Image.Exif:
        data = Image.Exif()
        data.load(exif)
        return data

    return _orientation(read)


def orientation_of(image: Image.Image) -> int:
    """The orientation, 1 to 8, of an image that Pillow has opened."""
    return _orientation(image.getexif)


def _orientation(read_exif: Callable[[], Image.Exif]) -> int:
    """The orientation; upright if EXIF data have none or are damaged, so that the image stays usable."""
    try:
        with warnings.catch_warnings(action="ignore"):
            orientation = read_exif().get(ExifTags.Base.Orientation, UPRIGHT)
    # Pillow raises any exception for damaged data: struct.error, SyntaxError, KeyError, TypeError, ...
    except Exception:
        return UPRIGHT
    return orientation if orientation in range(1, 9) else UPRIGHT


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image (H, W, ...) rotated and mirrored by EXIF's orientation, 1 to 8; (W, H, ...) from 5 on."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
