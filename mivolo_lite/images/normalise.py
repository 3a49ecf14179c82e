"""Normalisation of pixels for a backbone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """uint8 pixels to normalised floats, in one pass over the memory.

    Args:
        mean, std: of the three channels, of images in [0, 1].
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        means, stds = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (mean, std))
        self.register_buffer("scale", (1 / (255 * stds)).float(), persistent=False)
        self.register_buffer("shift", (-means / stds).float(), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) in the same memory format; under autocast in its precision."""
        device = pixels.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.scale.dtype
        if torch.compiler.is_exporting():  # Core ML's converter has no addcmul
            return pixels.to(dtype) * self.scale + self.shift
        return torch.addcmul(self.shift, pixels, self.scale, out=torch.empty_like(pixels, dtype=dtype))
