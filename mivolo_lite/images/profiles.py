"""Embedded colour profiles (ICC). Phones store photos in Display P3: read as sRGB, their skin is too grey."""

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

_SAME = 3  # levels of 255; profiles of sRGB differ by rounding
_MOST_BYTES = 1 << 22  # of a profile; those of printers have 3 MB
_STRIP_ROWS = 256
_LEVELS = np.linspace(0, 255, 9).astype(np.uint8)
_COLOURS = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS), axis=-1).reshape(27, 27, 3)


@lru_cache(maxsize=16)
def transform_of(profile: bytes | None, mode: str = "RGB") -> ImageCms.ImageCmsTransform | None:
    """What turns the colours of a profile into sRGB.

    Args:
        profile: as it is embedded in an image.
        mode: of the image's pixels, ``RGB`` or ``CMYK``.

    Returns:
        None where there is nothing to do: the colours are sRGB's already, or the profile is damaged or of other pixels.
    """
    if not profile or len(profile) > _MOST_BYTES:
        return None
    try:
        target, intent = ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
        transform = ImageCms.buildTransform(BytesIO(profile), target, mode, "RGB", intent)
        if mode == "RGB" and np.abs(in_srgb(_COLOURS, transform).astype(int) - _COLOURS).max() <= _SAME:
            return None
    except Exception:  # an image whose pixels are good is not lost for its profile, whatever is wrong with that
        return None
    return transform


def in_srgb(pixels: np.ndarray, transform: ImageCms.ImageCmsTransform) -> np.ndarray:
    """(H, W, 3) uint8 RGB with the colours of a profile as sRGB. In strips, since Pillow copies what it is given."""
    converted = np.empty_like(pixels)
    for top in range(0, len(pixels), _STRIP_ROWS):
        strip = Image.fromarray(pixels[top : top + _STRIP_ROWS])
        converted[top : top + _STRIP_ROWS] = ImageCms.applyTransform(strip, transform)
    return converted
