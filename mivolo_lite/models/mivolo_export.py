"""MiVOLO for export: the same outputs by operators of ONNX runtimes.

Axes: B batch, H and W the grid, C channels.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import volo
from torch import Tensor


def for_export(model: Any) -> Any:
    """A frozen copy of a ``MivoloModel`` without ``fold``, in which a black image's cells are constants."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, volo.OutlookAttention):
            module.__class__ = UnfoldedOutlook
    model.keep_black_cells()
    return model


class UnfoldedOutlook(volo.OutlookAttention):
    """timm's OutlookAttention with a transposed convolution in place of ``fold``, which ONNX exports as Col2Im, unknown
    to TensorRT.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same."""
        height, width, channels = x.shape[1:]
        cells, rows, columns = self.kernel_size**2, -(-height // self.stride), -(-width // self.stride)
        value = self.unfold(self.v(x).permute(0, 3, 1, 2))
        value = value.unflatten(1, (self.num_heads, -1, cells)).permute(0, 1, 4, 3, 2)
        weights = self.attn(self.pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)).flatten(1, 2)
        weights = weights.unflatten(2, (self.num_heads, cells, cells)).permute(0, 2, 1, 3, 4)
        windows = ((weights * self.scale).softmax(dim=-1) @ value).permute(0, 1, 4, 3, 2)
        windows = windows.flatten(1, 3).unflatten(2, (rows, columns))
        return self.proj(
            fold(windows, channels, (height, width), self.kernel_size, self.padding, self.stride).permute(0, 2, 3, 1)
        )


def fold(windows: Tensor, channels: int, size: tuple[int, int], kernel: int, padding: int, stride: int) -> Tensor:
    """``F.fold``: windows (B, C k k, h, w) added up to (B, C, H, W). Each cell of a window has a one-hot kernel."""
    one_hot = torch.eye(kernel**2, dtype=windows.dtype, device=windows.device).view(kernel**2, 1, kernel, kernel)
    spare = [
        side - ((count - 1) * stride - 2 * padding + kernel)
        for side, count in zip(size, windows.shape[2:], strict=True)
    ]
    return F.conv_transpose2d(
        windows,
        one_hot.repeat(channels, 1, 1, 1),
        stride=stride,
        padding=padding,
        output_padding=spare,
        groups=channels,
    )
