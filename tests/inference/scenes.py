"""Photos with faces that anybody may have: synthetic ones, and a detector that finds them by their colour."""

import json
from pathlib import Path

import cv2
import numpy as np

from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.inference.windows import Detection

SIDE = 32
RULES = {"crop_size": 64, "min_face": 5, "min_body": 20, "jpeg_quality": 95, "jpeg_chroma": "444"}


def tiny_estimator(inputs: str = "face", seed: int = 0, **card) -> Estimator:
    """An estimator of random weights, of which no two faces get the same age."""
    import torch

    torch.manual_seed(seed)
    model = {"name": "single", "backbone": "test_resnet"}
    if inputs == "both":
        model = {"name": "dual", "face": "test_resnet", "body": "test_resnet"}
    card = {"crop_policy": RULES} | card
    estimator = Estimator(Card(model, {"name": "classification"}, {"min_age": 0, "max_age": 100}, SIDE, **card))
    for parameter in estimator.method.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return estimator.eval()


def photo(*faces: tuple[int, int, int], width: int = 320, height: int = 240, seed: int = 0) -> np.ndarray:
    """A blue photo with faces: red squares with their own noise, each given by its left, top and side."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), (20, 20, 120), np.uint8)
    for left, top, side in faces:
        part = image[top : top + side, left : left + side]
        part[:] = rng.integers(0, 90, part.shape)
        part[..., 0] = 220
    return image


class RedSquares:
    """Finds the faces of ``photo`` by their red, as the smallest box around each connected part."""

    name, side = "red", 4096

    def __call__(self, image: np.ndarray) -> list[Detection]:
        import cv2

        red = (image[..., 0].astype(int) - image[..., 2] > 60).astype(np.uint8)
        _, _, boxes, _ = cv2.connectedComponentsWithStats(red)
        return [
            Detection((float(x), float(y), float(x + w), float(y + h)), 0.9) for x, y, w, h, n in boxes[1:] if n > 20
        ]


def rows(out: Path, stem: str = "predictions") -> list[dict]:
    """What the command wrote to ``STEM.jsonl``."""
    return [json.loads(line) for line in (out / f"{stem}.jsonl").read_text().splitlines()]


def draw_face(canvas: np.ndarray, x: int, y: int, radius: int) -> None:
    """Draw a face that detectors find."""

    def ellipse(right: float, down: float, wide: float, high: float, colour: tuple[int, int, int]) -> None:
        centre, axes = (x + int(right * radius), y + int(down * radius)), (int(wide * radius), int(high * radius))
        cv2.ellipse(canvas, centre, axes, 0, 0, 360, colour, -1)

    ellipse(0, 0, 0.78, 1, (224, 172, 138))
    for side in (-0.32, 0.32):
        ellipse(side, -0.15, 0.14, 0.08, (250, 250, 250))
        ellipse(side, -0.15, 0.07, 0.07, (40, 30, 20))
        ellipse(side, -0.34, 0.16, 0.03, (60, 40, 30))
    ellipse(0, 0.1, 0.05, 0.18, (190, 130, 100))
    ellipse(0, 0.5, 0.3, 0.1, (170, 60, 60))
