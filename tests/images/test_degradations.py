"""Degradations: each is the formula that it stands for, keeps size and type, and leaves the image as it is."""

import cv2
import numpy as np
import pytest

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

LUMA = np.float32([0.299, 0.587, 0.114])
ALL = {
    "brightness": lambda image: brightness(image, 1.7),
    "contrast": lambda image: contrast(image, 0.4),
    "cast": lambda image: colour_cast(image, (1.2, 1, 0.8)),
    "grey": lambda image: grey(image, 0.6),
    "blur": lambda image: blur(image, 0.03),
    "noise": lambda image: noise(image, 20, np.random.default_rng(0)),
    "JPEG": lambda image: jpeg(image, 20),
    "low resolution": lambda image: low_resolution(image, 3),
    "occlusion": lambda image: occlusion(image, slice(0, 3), slice(0, 2), (1, 2, 3)),
    "rotation": lambda image: rotation(image, 20),
}


def example(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def every_level() -> np.ndarray:
    """(256, 256, 3): every level of every channel, with every other of its neighbour."""
    first, second = np.meshgrid(np.arange(256), np.arange(256))
    return np.stack([first, second, 255 - first // 2], axis=-1).astype(np.uint8)


def rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ALL)
def test_size_and_type_stay_and_the_image_is_left_alone(name):
    for size in ((48, 48), (30, 17), (1, 1), (2, 9)):
        image = example(*size)
        part = np.pad(image, ((1, 1), (2, 2), (0, 0)))[1:-1, 2:-2]  # rows that are not side by side in memory
        before = part.copy()
        changed = ALL[name](part)
        assert changed.shape == image.shape and changed.dtype == np.uint8
        assert np.array_equal(part, before) and np.array_equal(ALL[name](image), changed)
        assert min(size) < 3 or not np.array_equal(changed, image)


@pytest.mark.parametrize("strength", [0.2, 0.45, 1 / 1.7, 0.8, 1, 1.3, 2.5])
def test_changes_of_light_are_their_formulas_to_the_bit(strength):
    """In float32, rounded to even. The robustness evaluation rests on it."""
    strength32 = np.float32(strength)
    for image in (every_level(), example(64, 33)):
        np.testing.assert_array_equal(brightness(image, strength), rounded(image * strength32))
        gains = (1 + strength / 3, 1, 1 - strength / 3)
        np.testing.assert_array_equal(colour_cast(image, gains), rounded(image * np.float32(gains)))
        luma = image @ LUMA
        mean = np.float32(luma.mean())
        np.testing.assert_array_equal(contrast(image, strength), rounded(mean + strength32 * (image - mean)))
        for share in (strength, 1 - strength):  # less colour, and more
            expected = rounded(image + np.float32(share) * (luma[..., None] - image))
            np.testing.assert_array_equal(grey(image, share), expected)


def test_noise_is_added_before_rounding():
    image = example(40, 40)
    normal = np.random.default_rng(3).standard_normal(image.shape, dtype=np.float32)
    expected = rounded(image + np.float32(16) * normal)
    np.testing.assert_array_equal(noise(image, 16, np.random.default_rng(3)), expected)


def test_blur_and_low_resolution_take_detail_away_the_more_the_stronger():
    image = cv2.GaussianBlur(example(96, 96), (0, 0), 1)

    def detail(each: np.ndarray) -> float:
        return float(np.abs(np.diff(each.astype(float), n=2, axis=1)).mean())

    for weak, strong in (
        (blur(image, 0.01), blur(image, 0.04)),
        (low_resolution(image, 2), low_resolution(image, 6)),
        (jpeg(image, 50), jpeg(image, 5)),
    ):
        assert np.abs(weak.astype(float) - image).mean() < np.abs(strong.astype(float) - image).mean()
        assert detail(strong) < detail(image)


def test_occlusion_covers_its_part_alone():
    image, fill = example(20, 30), example(4, 6, seed=1)
    for each in (fill, (7, 8, 9), 0):
        covered = occlusion(image, slice(3, 7), slice(10, 16), each)
        assert (covered[3:7, 10:16] == np.asarray(each)).all()
        covered[3:7, 10:16] = image[3:7, 10:16]
        np.testing.assert_array_equal(covered, image)


def test_rotation_turns_to_the_left_and_its_corners_are_black_or_reflected():
    image = np.full((101, 101, 3), 90, np.uint8)
    cv2.circle(image, (80, 50), 5, (255, 255, 255), -1)
    y, x = np.argwhere(rotation(image, 30)[..., 0] > 200).mean(axis=0) - 50
    assert np.degrees(np.arctan2(-y, x)) == pytest.approx(30, abs=1) and np.hypot(x, y) == pytest.approx(30, abs=0.5)
    assert not rotation(image, 30)[0, 0].any()
    assert (rotation(image, 30, border=cv2.BORDER_REFLECT_101)[0, 0] == 90).all()
