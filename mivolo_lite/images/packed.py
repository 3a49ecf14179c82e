"""The images that a batch has, and no others: what is absent or hidden is neither decoded, sent nor computed."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Images(NamedTuple):
    """The images of one input in a batch of B samples, of which n have it.

    Attributes:
        pixels: (n, 3, S, S), uint8 RGB in channels-last memory from a loader, normalised floats within a model.
        rows: (n,) int64, rising: the sample of the batch that each belongs to. Or (B,) bool: ``pixels`` are then those
            of all B samples, and count where it is True. Exported graphs, whose shapes depend on no value, have this.
    """

    pixels: Tensor
    rows: Tensor

    @classmethod
    def of(cls, pixels: Tensor, present: Tensor | None = None) -> "Images":
        """Those of (B, 3, S, S) that are ``present``, (B,) bool; all without."""
        if present is None:
            return cls(pixels, torch.arange(pixels.shape[0], device=pixels.device))
        return cls(pixels[present], present.nonzero().squeeze(1))

    @classmethod
    def none_of(cls, size: int, device: torch.device | str = "cpu") -> "Images":
        """No image, where those there are would have sides of ``size``."""
        pixels = torch.empty(0, 3, size, size, dtype=torch.uint8, device=device)
        return cls(pixels, torch.empty(0, dtype=torch.int64, device=device))

    def resized(self, size: int) -> "Images":
        """The same images, uint8, at another side."""
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
    """(B, ...) from values (m, ...), whose first n belong to ``rows``, and ``fill`` (1, ...) for all other rows.

    Rows that are a mask choose between values (B, ...) and ``fill``.
    """
    if not isinstance(fill, Tensor):
        fill = values.new_full((1, *values.shape[1:]), fill)
    if rows.dtype == torch.bool:
        return torch.where(rows.view(-1, *(1 for _ in values.shape[1:])), values, fill.to(values.dtype))
    return fill.to(values.dtype).expand(batch, *values.shape[1:]).index_copy(0, rows, values[: len(rows)])
