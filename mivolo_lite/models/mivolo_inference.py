"""The same MiVOLO for evaluation alone: equal outputs, less time.

Axes: B batch, H and W the grid, C channels = heads D, N tokens.
"""

import copy

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from timm.models.volo import ClassAttention, OutlookAttention
from torch import Tensor, nn


def for_inference(model: nn.Module) -> nn.Module:
    """A frozen copy of a :class:`MivoloModel` with its slow parts replaced by faster ones of the same outputs."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    stems = model.volo.patch_embed
    for name, stem in list(stems.named_children()):
        if name.startswith("conv"):
            setattr(stems, name, folded(stem))
        if name.startswith(("conv", "proj")):
            getattr(stems, name).to(memory_format=torch.channels_last)
    for block in model.volo.modules():
        attention = getattr(block, "attn", None)
        if isinstance(attention, OutlookAttention):
            block.attn = GatheredOutlook(attention)
        if isinstance(attention, ClassAttention):
            block.attn = OneQueryAttention(attention)
    if len(model.inputs) > 1:
        with torch.no_grad():
            for name in model.inputs:
                setattr(model, f"black_{name}", model.black_cells(name))
    return model


def folded(stem: nn.Sequential) -> nn.Sequential:
    """Convolution, batch norm, ReLU, repeated: the batch norms become part of the convolutions."""
    convs = [layer for layer in stem if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in stem if isinstance(layer, nn.BatchNorm2d)]
    layers = []
    for conv, norm in zip(convs, norms, strict=True):
        layers += [nn.utils.fuse_conv_bn_eval(conv, norm), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class GatheredOutlook(nn.Module):
    """timm's OutlookAttention, windows gathered from and added to channels-last maps, whose channels lie together.

    ``unfold`` and ``fold`` take them apart and cost more than the attention itself.
    """

    def __init__(self, attention: OutlookAttention):
        super().__init__()
        self.v, self.attn, self.proj = attention.v, attention.attn, attention.proj
        self.heads, self.scale = attention.num_heads, attention.scale
        self.window, self.stride, self.padding = attention.kernel_size, attention.stride, attention.padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same."""
        height, width = x.shape[1:3]
        padding, window, stride = self.padding, self.window, self.stride
        value = F.pad(self.v(x), (0, 0, padding, padding, padding, padding))
        windows = value.unfold(1, window, stride).unfold(2, window, stride)
        windows = rearrange(windows, "b h w (heads d) i j -> b h w heads (i j) d", heads=self.heads)
        centers = F.avg_pool2d(rearrange(x, "b h w c -> b c h w"), stride, ceil_mode=True)
        weights = self.attn(rearrange(centers, "b c h w -> b h w c")) * self.scale
        weights = rearrange(
            weights, "b h w (heads out kk) -> b h w heads out kk", heads=self.heads, kk=window**2
        ).softmax(-1)
        spread = rearrange(weights @ windows, "b h w heads (i j) d -> i j b h w (heads d)", i=window)
        summed = torch.zeros_like(value)
        rows, columns = windows.shape[1] * stride, windows.shape[2] * stride
        for i in range(window):
            for j in range(window):
                summed[:, i : i + rows : stride, j : j + columns : stride] += spread[i, j]
        return self.proj(summed[:, padding : padding + height, padding : padding + width])


class OneQueryAttention(nn.Module):
    """timm's ClassAttention. The class token alone asks, so keys and values of the other tokens need not be made.

    q (W_k x) = (W_k^T q) x, and the sum of a W_v x is W_v times the sum of a x.
    """

    def __init__(self, attention: ClassAttention):
        super().__init__()
        self.q, self.proj = attention.q, attention.proj
        self.heads, self.scale = attention.num_heads, attention.scale
        key, value = rearrange(attention.kv.weight, "(two heads d) c -> two heads d c", two=2, heads=self.heads)
        self.key, self.value = nn.Parameter(key, False), nn.Parameter(value, False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, C) from tokens (B, N, C), the class token first."""
        query = rearrange(self.q(x[:, 0]) * self.scale, "b (heads d) -> b heads d", heads=self.heads)
        query = einsum(query, self.key, "b heads d, heads d c -> b heads c")
        weights = einsum(query, x, "b heads c, b n c -> b heads n").softmax(-1)
        read = einsum(weights, x, "b heads n, b n c -> b heads c")
        read = einsum(read, self.value, "b heads c, heads d c -> b heads d")
        return self.proj(rearrange(read, "b heads d -> b 1 (heads d)"))
