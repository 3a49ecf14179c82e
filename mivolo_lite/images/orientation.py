"""EXIF orientation, and turning images upright."""

import warnings
from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image

UPRIGHT = 1


def orientation_in(exif: bytes) -> int:
    """The orientation, 1 to 8, that EXIF data name, with or without the ``Exif`` in front of them."""

    def read() -> Image.Exif:
        data = Image.Exif()
        data.load(exif)
        return data

    return _orientation(read)


def orientation_of(image: Image.Image) -> int:
    """The orientation, 1 to 8, of an image that Pillow has opened."""
    return _orientation(image.getexif)


def _orientation(read_exif: Callable[[], Image.Exif]) -> int:
    """Upright where EXIF data name none or are damaged: an image whose pixels are good is not lost for its notes."""
    try:
        with warnings.catch_warnings(action="ignore"):
            orientation = read_exif().get(ExifTags.Base.Orientation, UPRIGHT)
    # Pillow raises whatever the damage makes it stumble over: struct.error, SyntaxError, KeyError, TypeError, ...
    except Exception:
        return UPRIGHT
    return orientation if orientation in range(1, 9) else UPRIGHT


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image (H, W, ...) turned and mirrored as EXIF's orientation, 1 to 8, says; (W, H, ...) from 5 on."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
