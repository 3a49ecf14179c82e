"""How an image could have been taken otherwise: in another light, with a poorer camera, with something in the way.

Transforms of images (3, S, S) uint8 that draw from torch's generator. Lengths are shares of the side, so that
images of every size change alike.
"""

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F


def photometric() -> v2.Transform:
    """Another light, another film: brightness, contrast, saturation, colour cast and now and then grey."""
    return v2.Compose([v2.ColorJitter((0.4, 2.0), (0.3, 1.5), (0.3, 1.5)), ColourCast(0.3), v2.RandomGrayscale(0.15)])


def degradation() -> v2.Transform:
    """A poorer camera: blur, noise, JPEG or low resolution, one of them."""
    return v2.RandomChoice([Blur(0.005, 0.04), Noise(0.02, 0.2), v2.JPEG((5, 60)), LowResolution(0.125, 0.6)])


def uniform(low: float, high: float) -> float:
    """A number sampled between the two."""
    return torch.empty(1).uniform_(low, high).item()


class Between(v2.Transform):
    """A change whose strength is sampled between two numbers."""

    def __init__(self, low: float, high: float):
        super().__init__()
        self.low, self.high = low, high

    def strength(self) -> float:
        """A new draw."""
        return uniform(self.low, self.high)


class ColourCast(v2.Transform):
    """Another colour of the light: each channel times a number of its own.

    Args:
        strength: the largest difference of such a number from 1.
    """

    def __init__(self, strength: float):
        super().__init__()
        self.strength = strength

    def transform(self, image: Tensor, params: dict) -> Tensor:
        gain = torch.empty(3, 1, 1).uniform_(1 - self.strength, 1 + self.strength)
        return (image * gain).clamp_(0, 255).to(torch.uint8)


class Blur(Between):
    """Out of focus: a Gaussian.

    Args:
        low, high: its standard deviation as a share of the side.
    """

    def transform(self, image: Tensor, params: dict) -> Tensor:
        sigma = self.strength() * image.shape[-1]
        return F.gaussian_blur(image, 2 * round(2.5 * sigma) + 1, sigma)


class Noise(Between):
    """Too little light: Gaussian noise.

    Args:
        low, high: its standard deviation as a share of white.
    """

    def transform(self, image: Tensor, params: dict) -> Tensor:
        return F.gaussian_noise(image, sigma=self.strength())


class LowResolution(Between):
    """Far away: fewer pixels, enlarged again.

    Args:
        low, high: the side as a share of what it was.
    """

    def transform(self, image: Tensor, params: dict) -> Tensor:
        side = image.shape[-1]
        fewer = max(1, round(self.strength() * side))
        return F.resize(F.resize(image, [fewer, fewer], antialias=True), [side, side], antialias=False)


class Occlusion(Between):
    """Something in the way: a block, or a band over the whole width as of glasses or a mask, of one colour or noisy.

    Args:
        low, high: the sides of the block, and the height of the band, as shares of the image's.
    """

    def __init__(self, low: float = 0.15, high: float = 0.5):
        super().__init__(low, high)

    def transform(self, image: Tensor, params: dict) -> Tensor:
        side = image.shape[-1]
        height, width = (round(self.strength() * side) for _ in range(2))
        band, noisy = (torch.rand(2) < 0.5).tolist()
        width = side if band else width
        top, left = (round(uniform(0, side - length)) for length in (height, width))
        size = (3, height, width) if noisy else (3, 1, 1)
        return F.erase(image, top, left, height, width, torch.randint(0, 256, size, dtype=torch.uint8))
