"""RandAugment's operations against torchvision's."""

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from mivolo_lite.images.randaugment import MAX_MAGNITUDE, OPERATIONS

TORCHVISION = v2.RandAugment(2, 9)
MOVES = ("Rotate", "ShearX", "ShearY")  # a pixel half-way between two may be rounded to the other
# torchvision cuts decimals off where OpenCV rounds.
TOLERANCE = {"Brightness": 1, "Color": 2, "Contrast": 1, "Sharpness": 2, "AutoContrast": 1}


def images() -> list[np.ndarray]:
    """Structure of all sizes, in a square and not; dark with a black margin; of one colour; too small to smooth."""
    random, structure = np.random.default_rng(0), np.full((96, 96, 3), 110, np.float32)
    for cells, height in ((3, 60), (12, 40), (48, 25)):
        part = random.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        structure += height * cv2.resize(part, (96, 96), interpolation=cv2.INTER_CUBIC)
    image = np.clip(structure, 0, 255).astype(np.uint8)
    dark = image // 3 + 20
    dark[:, :30] = 0
    return [image, np.ascontiguousarray(image[:50, :77]), dark, np.full((20, 20, 3), (9, 200, 90), np.uint8), image[:2]]


def torchvision(image: np.ndarray, name: str, magnitude: int, sign: int) -> np.ndarray:
    strengths, signed = TORCHVISION._AUGMENTATION_SPACE[name]
    strengths = strengths(MAX_MAGNITUDE + 1, *image.shape[:2])
    strength = 0.0 if strengths is None else float(strengths[magnitude]) * (sign if signed else 1)
    changed = TORCHVISION._apply_image_or_video_transform(
        torch.from_numpy(image).permute(2, 0, 1), name, strength, TORCHVISION.interpolation, TORCHVISION._fill
    )
    return changed.permute(1, 2, 0).numpy()


def test_there_are_the_published_fourteen():
    assert list(OPERATIONS) == list(TORCHVISION._AUGMENTATION_SPACE)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("magnitude", [0, 1, 9, 17, 30])
def test_an_operation_is_torchvisions(name, magnitude):
    for image in images():
        for sign in (-1, 1):
            before = image.copy()
            found = OPERATIONS[name](image, magnitude / MAX_MAGNITUDE, sign)
            difference = np.abs(found.astype(int) - torchvision(image, name, magnitude, sign))
            assert found.shape == image.shape and found.dtype == np.uint8 and np.array_equal(image, before)
            if name in MOVES:
                assert difference.any(axis=2).mean() < 0.002
            else:
                assert difference.max() <= TOLERANCE.get(name, 0)
