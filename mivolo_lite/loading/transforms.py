"""Augmentation of training images, as a function of uniform numbers that are hashed from (seed, epoch, sample)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import permutations
from math import exp, log
from typing import Annotated, Any

import cv2
import numpy as np

from mivolo_lite.images.degradations import (
    blur,
    brightness,
    colour_cast,
    contrast,
    grey,
    jpeg,
    low_resolution,
    noise,
    occlusion,
    rotation,
)
from mivolo_lite.images.letterbox import letterbox
from mivolo_lite.images.randaugment import MAX_MAGNITUDE, OPERATIONS
from mivolo_lite.randomness import uniform_of
from mivolo_lite.ranges import Probability, float_range, int_range

Random = Iterator[float]
"""Uniform numbers from 0 to 1, the latter excluded."""

_OPERATIONS = tuple(OPERATIONS.values())
_FLIP = 3
"""Which of an image's numbers decides about the flip: the crop takes three."""


@dataclass
class AugmentConfig:
    """Augmentation of the training images.

    Attributes:
        flip: probability of a horizontal flip.
        crop_scale: smallest share of the image's area that a random crop keeps; 1 switches it off.
        randaugment_ops: operations of RandAugment (Cubuk et al., 2020) on each image; 0 switches it off.
        randaugment_magnitude: their strength, 0 to 30.
        erase: probability of erasing a random rectangle (Zhong et al., 2020).
        rotate: largest rotation in degrees, of every image; it renders each anew, a little blurred.
        photometric: probability of a photometric change: brightness, contrast, saturation, colour cast, grey.
        occlude: probability of an occlusion by a block or a band, of one colour or noisy.
        degrade: probability of one of blur, noise, JPEG compression and low resolution.
    """

    flip: Probability = 0.5
    crop_scale: Annotated[float, float_range(0, 1, low_open=True)] = 0.8
    randaugment_ops: Annotated[int, int_range(0, 100)] = 2
    randaugment_magnitude: Annotated[int, int_range(0, 30)] = 9
    erase: Probability = 0.25
    rotate: Annotated[float, float_range(0, 180)] = 0.0
    photometric: Probability = 0.0
    occlude: Probability = 0.0
    degrade: Probability = 0.0


PRESETS = {
    "none": AugmentConfig(flip=0.0, crop_scale=1.0, randaugment_ops=0, erase=0.0),
    "light": AugmentConfig(crop_scale=0.9, randaugment_ops=0, erase=0.0),
    "medium": AugmentConfig(),
    "strong": AugmentConfig(rotate=5.0, photometric=0.15, occlude=0.1, degrade=0.15),
}
"""Presets of the options by their names."""


class Augment:
    """Random changes to training images."""

    def __init__(self, config: AugmentConfig):
        self.config = config

    def numbers(self, *names: Any) -> list[list[float]]:
        """Uniform numbers (B, N) in [0, 1) from integers or (B,) arrays of them; N is the most that an image takes."""
        # Crop 3, flip 1, erasing 5, rotation 1, photometric 9, occlusion 10, degrading 4; each RandAugment operation 2.
        most = 33 + 2 * self.config.randaugment_ops
        return uniform_of(*(np.atleast_1d(name)[:, None] for name in names), np.arange(most)).tolist()

    def negate_flipped(self, tasks: dict[str, np.ndarray], names: Iterable[str], numbers: list[list[float]]) -> None:
        """Change the sign of these tasks' labels (B,) where the image is flipped, of the ``numbers`` (B, N)."""
        sign = np.array([-1 if row[_FLIP] < self.config.flip else 1 for row in numbers])
        tasks |= {name: sign * tasks[name] for name in names}

    def __call__(self, image: np.ndarray, out: np.ndarray, numbers: list[float]) -> None:
        """Letterbox a part of the image (H, W, 3) uint8 into ``out`` (S, S, 3), changed as ``numbers`` (N,) say."""
        config, random = self.config, iter(numbers)
        image = letterbox(_crop(image, config.crop_scale, random), len(out), out)
        if _chance(config.flip, random):
            image = cv2.flip(image, 1)
        for _ in range(config.randaugment_ops):
            image = _randaugment(image, config.randaugment_magnitude / MAX_MAGNITUDE, random)
        if _chance(config.erase, random):
            image = _erase(image, random)
        # In the order of image formation: pose, light, occlusion, camera.
        if config.rotate:
            image = rotation(image, _between(-config.rotate, config.rotate, random))
        if _chance(config.photometric, random):
            image = _photometric(image, random)
        if _chance(config.occlude, random):
            image = _occlude(image, random)
        if _chance(config.degrade, random):
            image = _degrade(image, random)
        if image is not out:
            out[:] = image


def _chance(probability: float, random: Random) -> bool:
    return next(random) < probability


def _between(low: float, high: float, random: Random) -> float:
    return low + (high - low) * next(random)


def _up_to(most: int, random: Random) -> int:
    """An integer from 0 to ``most``, both included."""
    return int(next(random) * (most + 1))


def _somewhere(image: np.ndarray, height: float, width: float, random: Random) -> tuple[slice, slice]:
    """Rows and columns of a part whose sides are these shares of the image's."""
    return _along(image.shape[0], height, random), _along(image.shape[1], width, random)


def _along(side: int, share: float, random: Random) -> slice:
    length = max(1, round(share * side))
    start = _up_to(side - length, random)
    return slice(start, start + length)


def _crop(image: np.ndarray, smallest: float, random: Random) -> np.ndarray:
    """A part with the image's aspect ratio and at least this share of its area."""
    side = _between(1, smallest, random) ** 0.5
    return image[_somewhere(image, side, side, random)]


def _randaugment(image: np.ndarray, share: float, random: Random) -> np.ndarray:
    operation = _OPERATIONS[_up_to(len(_OPERATIONS) - 1, random)]
    return operation(image, share, 1 if _chance(0.5, random) else -1)


def _erase(image: np.ndarray, random: Random) -> np.ndarray:
    """A black rectangle over 2 to 20 % of the area, 0.3 to 3.3 times as high as wide."""
    area = _between(0.02, 0.2, random)
    shape = exp(_between(log(0.3), log(3.3), random))
    return occlusion(image, *_somewhere(image, (area * shape) ** 0.5, (area / shape) ** 0.5, random), 0)


def _photometric(image: np.ndarray, random: Random) -> np.ndarray:
    """Brightness, contrast and saturation in random order, a colour cast, and sometimes greyscale."""
    changes = (
        (brightness, _between(0.4, 2.0, random)),
        (contrast, _between(0.3, 1.5, random)),
        (grey, 1 - _between(0.3, 1.5, random)),
    )
    orders = tuple(permutations(changes))
    for change, strength in orders[_up_to(len(orders) - 1, random)]:
        image = change(image, strength)
    gains = _between(0.7, 1.3, random), _between(0.7, 1.3, random), _between(0.7, 1.3, random)
    image = colour_cast(image, gains)
    return grey(image, 1) if _chance(0.15, random) else image


def _occlude(image: np.ndarray, random: Random) -> np.ndarray:
    """A block, or a band over the whole width as of glasses or a mask, of one colour or noisy."""
    height, width = _between(0.15, 0.5, random), _between(0.15, 0.5, random)
    band, noisy = _chance(0.5, random), _chance(0.5, random)
    area = _somewhere(image, height, 1 if band else width, random)
    if noisy:
        return occlusion(image, *area, _generator(random).integers(0, 256, image[area].shape, np.uint8))
    return occlusion(image, *area, [_up_to(255, random) for _ in range(3)])


def _degrade(image: np.ndarray, random: Random) -> np.ndarray:
    """Blur, noise, JPEG compression or low resolution."""
    kind = _up_to(3, random)
    if kind == 0:
        return blur(image, _between(0.005, 0.04, random))
    if kind == 1:
        return noise(image, 255 * _between(0.02, 0.2, random), _generator(random))
    if kind == 2:
        return jpeg(image, 5 + _up_to(55, random))
    return low_resolution(image, 1 / _between(0.125, 0.6, random))


def _generator(random: Random) -> np.random.Generator:
    """A generator of noise. Creating one takes longer than most changes, so only those that need noise do."""
    return np.random.Generator(np.random.PCG64(_up_to(2**53 - 1, random)))
