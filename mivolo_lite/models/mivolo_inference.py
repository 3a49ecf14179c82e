"""MiVOLO for faster inference on a CPU, with the same outputs.

Axes: B batch, H and W the grid, C channels = heads D, N = H W tokens.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from timm.layers import Mlp
from timm.models.volo import ClassAttention, ClassBlock, OutlookAttention
from torch import Tensor, nn

from mivolo_lite.models import mivolo_enhancer
from mivolo_lite.models.mivolo_enhancer import MivoloEnhancer, Pointwise, RelativePositions, VolumeNorm


@torch.no_grad()
def for_inference(model: Any) -> Any:
    """A frozen copy of a ``MivoloModel`` with faster modules of the same outputs."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    stems = model.volo.patch_embed
    for name, stem in list(stems.named_children()):
        if name.startswith("conv"):
            setattr(stems, name, fold_batch_norms(stem))
    replace(model)
    model.keep_black_cells()
    return model


def replace(module: nn.Module) -> None:
    """Replace all submodules that have a replacement in ``FASTER``."""
    for name, child in module.named_children():
        if type(child) in FASTER:
            setattr(module, name, FASTER[type(child)](child))
        else:
            replace(child)


def fold_batch_norms(stem: nn.Sequential) -> nn.Sequential:
    """Fold the batch norms of repeated convolution, batch norm and ReLU into the convolutions."""
    convs = [layer for layer in stem if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in stem if isinstance(layer, nn.BatchNorm2d)]
    layers = []
    for conv, norm in zip(convs, norms, strict=True):
        layers += [nn.utils.fuse_conv_bn_eval(conv, norm), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class PackedLinear(nn.Module):
    """A linear layer, optionally with a GELU, by oneDNN with prepacked weights.

    The ordinary layer uses MKL, which takes a tenth longer, and a GELU would be another pass over the memory. With few
    rows the ordinary layer is faster.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d | Pointwise, then: str = "none"):
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.flatten(1), None)
        self.bias, self.then = layer.bias, then

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, self.then, [], "none")


def is_packable(layer: nn.Linear | nn.Conv2d | Pointwise) -> bool:
    """Whether oneDNN is available in torch, and the weights are float32 on the CPU."""
    is_available = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return is_available and layer.weight.is_cpu and layer.weight.dtype == torch.float32


def pack(layer: nn.Linear | Pointwise) -> nn.Module:
    """A linear layer with packed weights, or the layer itself if it is not packable."""
    return PackedLinear(layer) if is_packable(layer) else layer


def pack_mlp(mlp: Mlp | mivolo_enhancer.Mlp) -> nn.Module:
    """An MLP with packed weights and the GELU fused into the first layer."""
    if not is_packable(mlp.fc1):
        return mlp
    return nn.Sequential(PackedLinear(mlp.fc1, then="gelu"), PackedLinear(mlp.fc2))


def masked_enhancer(enhancer: MivoloEnhancer) -> MivoloEnhancer:
    """The enhancer with position logits as an attention mask, and faster submodules."""
    enhancer.attend = attend_by_sample
    replace(enhancer)
    return enhancer


def attend_by_sample(query: Tensor, key: Tensor, value: Tensor, positions: RelativePositions) -> Tensor:
    """``mivolo_enhancer.attend`` with a full table R(q), one sample at a time.

    Without gradients, this takes less time than codes as additional channels.
    """
    rows, columns = positions(query).chunk(2, dim=-1)
    samples = []
    for q, k, v, row, column in zip(*(x.split(1) for x in (query, key, value, rows, columns)), strict=True):
        bias = rearrange(row[..., :, None] + column[..., None, :], "b n h w -> b 1 n (h w)")
        q, k, v = (rearrange(x, "b n d -> b 1 n d") for x in (q, k, v))
        samples.append(F.scaled_dot_product_attention(q, k, v, attn_mask=bias))
    return rearrange(samples, "sample 1 1 n d -> sample n d")


class TokenNorm(nn.Module):
    """VolumeNorm with weights in the order of the tokens."""

    def __init__(self, norm: VolumeNorm):
        super().__init__()
        self.eps = norm.eps
        self.weight, self.bias = (
            nn.Parameter(rearrange(affine, "c h w -> (h w) c").contiguous(), False)
            for affine in (norm.weight, norm.bias)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        return F.layer_norm(tokens, self.weight.shape, self.weight, self.bias, self.eps)


class GatheredOutlook(nn.Module):
    """timm's OutlookAttention that gathers windows from, and adds them to, channels-last maps.

    ``unfold`` and ``fold`` are not contiguous in memory and take more time than the attention itself. So does a softmax
    over nine contiguous values; the outputs of the logits' layer are reordered so that it is over rows instead.
    """

    def __init__(self, attention: OutlookAttention):
        super().__init__()
        self.heads, scale = attention.num_heads, attention.scale
        self.window, self.stride, self.padding = attention.kernel_size, attention.stride, attention.padding
        logits = copy.deepcopy(attention.attn)
        for parameter in (logits.weight, logits.bias):
            rows = "(heads out kk) ... -> (kk heads out) ..."
            parameter.copy_(scale * rearrange(parameter, rows, heads=self.heads, kk=self.window**2))
        self.v, self.attn, self.proj = pack(attention.v), pack(logits), pack(attention.proj)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same."""
        height, width = x.shape[1:3]
        padding, window, stride = self.padding, self.window, self.stride
        value = F.pad(self.v(x), (0, 0, padding, padding, padding, padding))
        windows = value.unfold(1, window, stride).unfold(2, window, stride)
        windows = rearrange(windows, "b h w (heads d) i j -> b h w heads (i j) d", heads=self.heads)
        centers = F.avg_pool2d(rearrange(x, "b h w c -> b c h w"), stride, ceil_mode=True)
        weights = self.attn(rearrange(centers, "b c h w -> b h w c"))
        weights = rearrange(weights, "b h w (kk rest) -> b h w kk rest", kk=window**2).softmax(-2)
        weights = rearrange(weights, "b h w kk (heads out) -> b h w heads out kk", heads=self.heads)
        spread = rearrange(weights @ windows, "b h w heads (i j) d -> i j b h w (heads d)", i=window)
        summed = torch.zeros_like(value)
        rows, columns = windows.shape[1] * stride, windows.shape[2] * stride
        for i in range(window):
            for j in range(window):
                summed[:, i : i + rows : stride, j : j + columns : stride] += spread[i, j]
        return self.proj(summed[:, padding : padding + height, padding : padding + width])


class OneQueryAttention(nn.Module):
    """timm's ClassAttention without computing keys and values: only the class token is a query.

    It uses q (W_k x) = (W_k^T q) x, and that the sum of a W_v x is W_v times the sum of a x.
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
        attended = einsum(weights, x, "b heads n, b n c -> b heads c")
        attended = einsum(attended, self.value, "b heads c, heads d c -> b heads d")
        return self.proj(rearrange(attended, "b heads d -> b 1 (heads d)"))


def one_query_block(block: ClassBlock) -> ClassBlock:
    """The class block with ``OneQueryAttention``."""
    block.set_submodule("attn", OneQueryAttention(block.attn))
    return block


def channels_last(conv: nn.Conv2d) -> nn.Conv2d:
    """The module in channels-last format, so that its output's tokens are contiguous."""
    return conv.to(memory_format=torch.channels_last)


FASTER: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.Conv2d: channels_last,
    nn.Linear: pack,
    MivoloEnhancer: masked_enhancer,
    Pointwise: pack,
    mivolo_enhancer.Mlp: pack_mlp,
    VolumeNorm: TokenNorm,
    OutlookAttention: GatheredOutlook,
    Mlp: pack_mlp,
    ClassBlock: one_query_block,
}
"""The replacement of each kind of module."""
