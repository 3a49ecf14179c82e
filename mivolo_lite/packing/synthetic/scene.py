"""Background, light, lens and camera, independent of age."""

from functools import cache

import cv2
import numpy as np

from mivolo_lite.packing.synthetic.canvas import Colour, mix, shade

_UNCHANGED = 160
_SPARE = 97
_COARSE = 16  # the background is rendered smaller by this factor and enlarged, which blurs it


def background(width: int, height: int, floor_y: int, rng: np.random.Generator) -> np.ndarray:
    """A blurred background, (height, width, 3) uint8."""
    small = np.empty((height // _COARSE, width // _COARSE, 3), np.uint8)
    small[:] = _muted(rng)
    rows, columns = small.shape[:2]
    for _ in range(rng.integers(2, 8)):
        x, y = int(rng.integers(-4, columns)), int(rng.integers(-4, rows))
        colour = _muted(rng)
        if rng.random() < 0.6:
            corner = (x + int(rng.integers(2, columns // 2)), y + int(rng.integers(3, rows // 2)))
            cv2.rectangle(small, (x, y), corner, colour, -1)
        else:
            cv2.circle(small, (x, y), int(rng.integers(2, columns // 4)), colour, -1, cv2.LINE_AA)
    small[floor_y // _COARSE :] = shade(_muted(rng), 0.85)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def expose(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply camera effects: uneven coloured light, focus, contrast, brightness and noise."""
    image = cv2.multiply(image, _light(image.shape, rng), scale=1 / _UNCHANGED)
    blur = rng.gamma(1.4, 0.4)
    if blur > 0.4:
        image = cv2.GaussianBlur(image, (7, 7), min(blur, 1.8))
    contrast, brightness = rng.uniform(0.7, 1.15), rng.normal(0, 9)
    noise = min(rng.gamma(1.5, 0.09), 0.5)
    offset = 128 * (1 - contrast - noise) + brightness
    return cv2.addWeighted(image, contrast, _grain_like(image, rng), noise, offset)


def _muted(rng: np.random.Generator) -> Colour:
    """A colour of walls and furniture, mostly grey."""
    return mix(rng.uniform(30, 240, 3), (rng.uniform(60, 215),) * 3, rng.uniform(0.25, 1.0))


def _light(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Uneven, coloured light over the photo, as bytes of which ``_UNCHANGED`` leaves a pixel as it is."""
    corners = rng.uniform(0.86, 1.1) * rng.uniform(0.75, 1.2, (2, 2, 1)) * np.exp(rng.normal(0, 0.06, 3))
    corners = np.clip(_UNCHANGED * corners, 0, 255).astype(np.uint8)
    return cv2.resize(corners, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def _grain_like(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise around 128 of a photo's size."""
    height, width = image.shape[:2]
    x, y = rng.integers(0, _SPARE, 2)
    return _grain(height + _SPARE, width + _SPARE)[y : y + height, x : x + width]


@cache
def _grain(height: int, width: int) -> np.ndarray:
    """Noise to crop from, since generating it for each photo takes longer than the rest."""
    noise = np.random.default_rng(0).normal(128, 32, (height, width, 3))
    return np.clip(np.rint(noise), 0, 255).astype(np.uint8)
