"""SwinFace's multi-level channel attention (Qin et al., arXiv 2308.11509): every task has its own attention.

Axes: B batch, D channels of all levels together, H and W the coarsest level's grid, C channels a task keeps.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from einops import rearrange
from torch import Tensor, nn

REDUCTION = 16
"""Reduction ratio of the gate."""

EPS = 2e-5
"""Epsilon of every batch norm here, as published."""


def shares(dims: Sequence[int], width: int) -> list[int]:
    """``width`` channels split in proportion to the levels' own; they add up to it exactly."""
    ends = [round(width * total / sum(dims)) for total in accumulate(dims, initial=0)]
    return [end - start for start, end in pairwise(ends)]


def linear(inputs: int, outputs: int, bias: bool = True, layer: type[nn.Linear] = nn.Linear) -> nn.Linear:
    """A linear layer with SwinFace's initial weights."""
    module = layer(inputs, outputs, bias)
    nn.init.trunc_normal_(module.weight, std=0.02)
    if bias:
        nn.init.zeros_(module.bias)
    return module


class LevelAttention(nn.Module):
    """A convolution for each level, a gate for each channel, and max pooling over the image."""

    def __init__(self, dims: Sequence[int], width: int):
        super().__init__()
        self.dims = list(dims)
        channels = zip(dims, shares(dims, width), strict=True)
        self.convs = nn.ModuleList(nn.Conv2d(dim, share, 3, padding=1, bias=False) for dim, share in channels)
        hidden = max(1, width // REDUCTION)
        self.gate = nn.Sequential(linear(width, hidden), nn.ReLU(), linear(hidden, width))
        self.norm = nn.BatchNorm1d(width, eps=EPS)

    def forward(self, levels: Tensor) -> Tensor:
        """(B, C) of the levels' maps (B, D, H, W), pooled to one grid and concatenated."""
        levels_by_conv = zip(self.convs, levels.split(self.dims, dim=1), strict=True)
        grid = torch.cat([conv(level) for conv, level in levels_by_conv], dim=1)
        gate = torch.sigmoid(self.gate(grid.mean((2, 3))) + self.gate(grid.amax((2, 3))))
        return self.norm((grid * rearrange(gate, "b c -> b c 1 1")).relu().amax((2, 3)))


class TaskSubnet(nn.Module):
    """The subnet of a task, or of a few related ones: (B, C) for their linear heads."""

    def __init__(self, dims: Sequence[int], width: int, drop_rate: float):
        super().__init__()
        self.attention = LevelAttention(dims, width)
        self.layers = nn.Sequential(
            linear(width, width),
            nn.ReLU(),
            nn.Dropout(drop_rate),
            linear(width, width),
            nn.ReLU(),
            nn.Dropout(drop_rate),
        )

    def forward(self, levels: Tensor) -> Tensor:
        """(B, C) of maps (B, D, H, W)."""
        return self.layers(self.attention(levels))


class Embedding(nn.Module):
    """A face embedding (B, E) of the last level, compared by the cosine."""

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.dim = dim
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.Sequential(
            nn.Linear(dim, dim, bias=False),
            nn.BatchNorm1d(dim, eps=EPS),
            nn.Linear(dim, width, bias=False),
            nn.BatchNorm1d(width, eps=EPS),
        )

    def forward(self, levels: Tensor) -> Tensor:
        """(B, E) of maps (B, D, H, W)."""
        last_level = rearrange(levels[:, -self.dim :], "b d h w -> b (h w) d")
        return self.layers(self.norm(last_level).mean(dim=1))
