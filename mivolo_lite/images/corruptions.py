"""Ten image corruptions at five strengths each.

They are functions of an uint8 image, a strength and a random generator. The random choices (direction, position, noise)
are the same at every strength.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from mivolo_lite.images import degradations
from mivolo_lite.randomness import seed_of

Apply = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]

_HEAD = 0.25, 1 / 3  # assumed region of the head, as shares of a body's height and width


@dataclass(frozen=True)
class Corruption:
    """A corruption.

    Attributes:
        apply: maps an image (H, W, 3) uint8, a strength and a random generator to an image of the same shape and type.
        strengths: five, from weak to strong.
        meaning: unit of a strength, as text.
        of_face: whether only the face is changed.
    """

    apply: Apply
    strengths: tuple[float, ...]
    meaning: str
    of_face: bool = False


def _brightness(image: np.ndarray, gain: float, random: np.random.Generator) -> np.ndarray:
    return degradations.brightness(image, gain if random.random() < 0.5 else 1 / gain)


def _colour_cast(image: np.ndarray, shift: float, random: np.random.Generator) -> np.ndarray:
    warm = _to_either_side(shift, random)
    return degradations.colour_cast(image, (1 + warm, 1, 1 - warm))


def _occlusion(image: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    shape = 2 ** random.uniform(-1, 1)  # a covered part may be twice as high as wide, or twice as wide as high
    rows, columns = round((share * shape) ** 0.5 * height), round((share / shape) ** 0.5 * width)
    # Shares of the remaining space, so that larger parts contain the smaller ones and none leaves the image.
    top, left = round(random.random() * (height - rows)), round(random.random() * (width - columns))
    part = slice(top, top + rows), slice(left, left + columns)
    return degradations.occlusion(image, *part, random.integers(0, 256, 3))


def _rotation(image: np.ndarray, degrees: float, random: np.random.Generator) -> np.ndarray:
    turn = _to_either_side(degrees, random)
    return degradations.rotation(image, turn, border=cv2.BORDER_REFLECT_101)


def _to_either_side(strength: float, random: np.random.Generator) -> float:
    return strength if random.random() < 0.5 else -strength


def _certain(degradation: Callable[[np.ndarray, float], np.ndarray]) -> Apply:
    """A deterministic corruption."""
    return lambda image, strength, random: degradation(image, strength)


CORRUPTIONS: dict[str, Corruption] = {
    "brightness": Corruption(_brightness, (1.2, 1.4, 1.7, 2, 2.5), "so many times as bright or as dark, by chance"),
    "contrast": Corruption(
        _certain(degradations.contrast), (0.8, 0.6, 0.45, 0.3, 0.2), "share of the distance to mean grey that is left"
    ),
    "colour cast": Corruption(_colour_cast, (0.1, 0.2, 0.3, 0.4, 0.5), "red so much up and blue down, or the reverse"),
    "grey": Corruption(_certain(degradations.grey), (0.2, 0.4, 0.6, 0.8, 1), "share of the colour that is gone"),
    "blur": Corruption(
        _certain(degradations.blur),
        (0.004, 0.008, 0.014, 0.02, 0.03),
        "standard deviation of a Gaussian, of the longer side",
    ),
    "noise": Corruption(
        degradations.noise, (4, 8, 16, 28, 44), "standard deviation of Gaussian noise, of 255 grey levels"
    ),
    "JPEG": Corruption(_certain(degradations.jpeg), (50, 30, 20, 12, 7), "quality, with halved chroma"),
    "low resolution": Corruption(
        _certain(degradations.low_resolution), (1.5, 2, 3, 4, 6), "times fewer pixels a side, and enlarged again"
    ),
    "occlusion": Corruption(
        _occlusion, (0.05, 0.1, 0.2, 0.3, 0.4), "share of the face under a rectangle of one colour", of_face=True
    ),
    "rotation": Corruption(_rotation, (5, 10, 15, 22, 30), "degrees to either side, by chance"),
}
"""The corruptions by name. Their sizes are relative to the image that the model is shown, so that models of any size
can be compared; noise and JPEG are not, and are harder on small images."""

SEVERITIES = 5


def corrupt(image: np.ndarray, name: str, severity: int, chance: tuple[int, int], part: str = "all") -> np.ndarray:
    """Corrupt a letterboxed image.

    Its black margins stay black, as if the photograph had been corrupted.

    Args:
        image: (S, S, 3) uint8; not modified.
        name: of ``CORRUPTIONS``.
        severity: index of the strength, 0 to 4.
        chance: seed and number of the sample, so that its face and body have the same random choices.
        part: the region for corruptions ``of_face``: ``all`` of a face; the ``head`` of a body, the middle third of its
            upper quarter; ``none`` for a body whose face was blacked out.

    Returns:
        (S, S, 3) uint8 in new memory.
    """
    corruption, worse = CORRUPTIONS[name], image.copy()
    inside = _content(image)
    if inside is None or (corruption.of_face and part == "none"):
        return worse
    if corruption.of_face and part == "head":
        inside = _head(inside)
    random = np.random.Generator(np.random.PCG64(seed_of(*chance, list(CORRUPTIONS).index(name))))
    worse[inside] = corruption.apply(image[inside], corruption.strengths[severity], random)
    return worse


def _content(image: np.ndarray) -> tuple[slice, slice] | None:
    """Rows and columns between the black margins; None if everything is black."""
    light = np.any(image, axis=2)
    rows, columns = (np.flatnonzero(np.any(light, axis=axis)) for axis in (1, 0))
    return (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)) if len(rows) else None


def _head(inside: tuple[slice, slice]) -> tuple[slice, slice]:
    rows, columns = inside
    height, width = rows.stop - rows.start, columns.stop - columns.start
    high, wide = max(1, round(_HEAD[0] * height)), max(1, round(_HEAD[1] * width))
    left = columns.start + (width - wide) // 2
    return slice(rows.start, rows.start + high), slice(left, left + wide)
