"""Embedded colour profiles (ICC). Phones store photos in Display P3, in which skin is too grey if read as sRGB."""

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

_SAME = 3  # of 255 levels; profiles of sRGB differ by rounding
_MOST_BYTES = 1 << 22  # bytes of a profile; those of printers have 3 MB
_STRIP_ROWS = 256
_LEVELS = np.linspace(0, 255, 9).astype(np.uint8)
_SAMPLES = {
    "RGB": np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS), axis=-1).reshape(27, 27, 3),
    "L": np.tile(np.arange(256, dtype=np.uint8)[:, None], (1, 1, 3)),
}
"""Test pixels, which a profile of sRGB does not change."""
_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Pillow's modes of the colour spaces of profiles."""


@lru_cache(maxsize=16)
def transform_of(profile: bytes | None, mode: str = "RGB") -> ImageCms.ImageCmsTransform | None:
    """The transform from the colours of a profile to sRGB.

    Args:
        profile: the bytes embedded in an image.
        mode: of the image's pixels, ``RGB``, ``CMYK`` or, for grey, ``L``, which may have a profile of RGB.

    Returns:
        None if the colours are sRGB already, or if the profile is damaged or of another mode.
    """
    if not profile or len(profile) > _MOST_BYTES:
        return None
    try:
        source, target = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
        of_profile = _MODES[source.profile.xcolor_space.ljust(4)]
        if mode != of_profile and (mode, of_profile) != ("L", "RGB"):
            return None
        transform = ImageCms.buildTransform(source, target, of_profile, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
        samples = _SAMPLES.get(of_profile)
        if samples is not None and np.abs(in_srgb(samples, transform).astype(int) - samples).max() <= _SAME:
            return None
    except Exception:  # a damaged profile does not make the image unusable
        return None
    return transform


def in_srgb(pixels: np.ndarray, transform: ImageCms.ImageCmsTransform) -> np.ndarray:
    """(H, W, 3) uint8 RGB, converted from a profile to sRGB.

    In strips, since Pillow copies what it is given.
    """
    converted = np.empty_like(pixels)
    for top in range(0, len(pixels), _STRIP_ROWS):
        strip = Image.fromarray(pixels[top : top + _STRIP_ROWS]).convert(transform.input_mode)
        converted[top : top + _STRIP_ROWS] = ImageCms.applyTransform(strip, transform)
    return converted
