"""The present images of a batch: absent or hidden ones are neither decoded, copied nor computed."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Images(NamedTuple):
    """The n images of one input in a batch of B samples.

    Attributes:
        pixels: (n, 3, S, S), uint8 RGB in channels-last memory from a loader, normalised floats within a model.
        rows: (n,) int64, increasing: the sample of each image. Or, in exported graphs with static shapes, (B,) bool:
            ``pixels`` then has all B samples, and those with False are ignored.
    """

    pixels: Tensor
    rows: Tensor

    @classmethod
    def of(cls, pixels: Tensor, present: Tensor | None = None) -> "Images":
        """The images of (B, 3, S, S) that are ``present``, (B,) bool; all by default."""
        if present is None:
            return cls(pixels, torch.arange(pixels.shape[0], device=pixels.device))
        return cls(pixels[present], present.nonzero().squeeze(1))

    @classmethod
    def none_of(cls, size: int, device: torch.device | str = "cpu") -> "Images":
        """No images, with a side of ``size``."""
        pixels = torch.empty(0, 3, size, size, dtype=torch.uint8, device=device)
        return cls(pixels, torch.empty(0, dtype=torch.int64, device=device))

    def resized(self, size: int) -> "Images":
        """The images, uint8, resized to another side."""
        if self.pixels.shape[-1] == size or not len(self.rows):
            return self
        pixels = F.interpolate(self.pixels.float(), (size, size), mode="bilinear", antialias=True)
        return self._replace(pixels=pixels.round().to(torch.uint8))

    def present(self, batch: int) -> Tensor:
        """(B,) bool: which samples have the image."""
        if self.rows.dtype == torch.bool:
            return self.rows
        return torch.zeros(batch, dtype=torch.bool, device=self.rows.device).index_fill_(0, self.rows, True)


def scatter(values: Tensor, rows: Tensor, batch: int, fill: Tensor | float = 0.0) -> Tensor:
    """(B, ...) with the first n of the values (m, ...) in ``rows``, and ``fill`` (1, ...) in all other rows.

    A mask selects between values (B, ...) and ``fill``.
    """
    if not isinstance(fill, Tensor):
        fill = values.new_full((1, *values.shape[1:]), fill)
    if rows.dtype == torch.bool:
        return torch.where(rows.view(-1, *(1 for _ in values.shape[1:])), values, fill.to(values.dtype))
    return fill.to(values.dtype).expand(batch, *values.shape[1:]).index_copy(0, rows, values[: len(rows)])
