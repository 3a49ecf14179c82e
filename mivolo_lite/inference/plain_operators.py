"""Layers of exported graphs in a form that most runtimes read: a few common operators, with static shapes."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def gelu(x: Tensor, *, approximate: str = "none") -> Any:
    """GELU with its factors in the order that runtimes fuse; OpenCV 5.0.0 crashes on the exporter's order."""
    if approximate != "none":
        return NotImplemented
    return x * (1 + torch.erf(x / math.sqrt(2))) * 0.5


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Attention by two products. The exporter's transposes the keys through their shape: ten operators per layer."""
    if dropout_p or is_causal or enable_gqa:
        return NotImplemented
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * scale) @ key.transpose(-2, -1)
    return (scores if attn_mask is None else scores + attn_mask).softmax(-1) @ value


PLAIN: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.gelu.default: gelu,
    torch.ops.aten.scaled_dot_product_attention.default: attention,
}
"""Decompositions of torch's operators; if one returns ``NotImplemented``, the operator stays."""
