"""Images inside a page."""

from base64 import b64encode

import numpy as np
import simplejpeg


def data_address(pixels: np.ndarray) -> str:
    """A ``data:`` address of (H, W, 3) uint8 RGB as JPEG."""
    encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=85)
    return f"data:image/jpeg;base64,{b64encode(encoded).decode()}"
