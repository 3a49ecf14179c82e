"""What happens to an image between decoding and the batch: the same preparation for training, evaluation and export,
and for training augmentation that depends on (seed, epoch, sample) alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torchvision.transforms import v2

from mivolo_lite.images.letterbox import letterbox
from mivolo_lite.images.photography import Occlusion, degradation, photometric
from mivolo_lite.ranges import Probability, float_range, int_range


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


class Augment:
    """Random changes to a training image, sampled from torch's generator: use inside ``seeded``."""

    def __init__(self, config: AugmentConfig):
        self.crop_scale = config.crop_scale
        steps: list[v2.Transform] = [v2.RandomHorizontalFlip(config.flip)]
        if config.randaugment_ops:
            steps.append(v2.RandAugment(config.randaugment_ops, config.randaugment_magnitude))
        if config.erase:
            steps.append(v2.RandomErasing(config.erase, scale=(0.02, 0.2)))
        # In the order of nature: the face, the light, what is in the way, the camera. Nothing is sampled for what is
        # off.
        if config.rotate:
            steps.append(v2.RandomRotation(config.rotate, interpolation=v2.InterpolationMode.BILINEAR))
        if config.photometric:
            steps.append(v2.RandomApply([photometric()], config.photometric))
        if config.occlude:
            steps.append(v2.RandomApply([Occlusion()], config.occlude))
        if config.degrade:
            steps.append(v2.RandomApply([degradation()], config.degrade))
        self.steps = v2.Compose(steps)

    def crop(self, image: np.ndarray) -> np.ndarray:
        """A random part (h, w, 3) of the image (H, W, 3) with its aspect ratio, before any resizing."""
        scale, top, left = torch.rand(3).tolist()
        side = (1 - scale * (1 - self.crop_scale)) ** 0.5
        height, width = (max(1, round(edge * side)) for edge in image.shape[:2])
        top, left = round(top * (image.shape[0] - height)), round(left * (image.shape[1] - width))
        return image[top : top + height, left : left + width]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(S, S, 3) uint8 in, the same out."""
        return self.steps(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0).numpy()


def prepare(image: np.ndarray, square: np.ndarray, augment: Augment | None = None) -> None:
    """Letterbox a decoded image (H, W, 3) uint8 into its place in a batch, (S, S, 3) uint8."""
    if augment is None:
        letterbox(image, len(square), square)
    else:
        square[:] = augment(letterbox(augment.crop(image), len(square)))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's CPU generator as seeded here, and leave it as it was."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
