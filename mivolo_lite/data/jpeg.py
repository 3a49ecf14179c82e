"""JPEG bytes to pixels, with libjpeg-turbo."""

import numpy as np
import simplejpeg


class BrokenJpeg(Exception):
    """The bytes are not a whole JPEG; the message says why."""


def decode(data: bytes) -> np.ndarray:
    """JPEG bytes as (H, W, 3) uint8 RGB; grey pictures are expanded.

    Raises:
        BrokenJpeg: not a JPEG, or one that ends early or is damaged.
    """
    try:
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError as error:
        raise BrokenJpeg(f"unreadable JPEG: {str(error).strip().rstrip('.').lower()}") from None
