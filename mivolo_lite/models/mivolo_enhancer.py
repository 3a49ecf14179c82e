"""MiVOLO's feature enhancer: face and body read each other, then one map of both goes on (arXiv 2307.04616, figure 3).

Axes: B batch, C channels, H and W rows and columns of the grid, N = H W tokens, D width of a token.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import Mlp, trunc_normal_
from torch import Tensor, nn


class RelativePositions(nn.Module):
    """What a query adds to its logits for each row and each column of keys: a learned vector per distance.

    The distances go from -(side - 1) to side - 1, so the two tables have 2 side - 1 rows.
    """

    def __init__(self, side: int, dim: int):
        super().__init__()
        self.side = side
        self.height_rel = nn.Parameter(torch.empty(2 * side - 1, dim))
        self.width_rel = nn.Parameter(torch.empty(2 * side - 1, dim))
        for table in (self.height_rel, self.width_rel):
            trunc_normal_(table, std=dim**-0.5)
        place = torch.arange(side)
        self.register_buffer("distance", place - place[:, None] + side - 1, persistent=False)
        rows, columns = torch.meshgrid(place, place, indexing="ij")
        where = torch.cat([F.one_hot(rows, side), F.one_hot(columns, side)], dim=-1)
        self.register_buffer("where", rearrange(where.float(), "h w two_sides -> (h w) two_sides"), persistent=False)

    def logits(self, query: Tensor) -> Tensor:
        """(B, N, 2 side): the logits that queries (B, N, D) give to each row, then to each column, of keys."""
        query = rearrange(query, "b (h w) d -> b h w d", h=self.side)
        rows = torch.einsum("b h w d, h k d -> b h w k", query, self.height_rel[self.distance])
        columns = torch.einsum("b h w d, w k d -> b h w k", query, self.width_rel[self.distance])
        return rearrange(torch.cat([rows, columns], dim=-1), "b h w k -> b (h w) k")


def attend(query: Tensor, key: Tensor, value: Tensor, positions: RelativePositions) -> Tensor:
    """softmax(s q k^T + R(q)) v with one head and s = D^-1/2, all (B, N, D).

    R(q) is a sum over the key's row and column, hence a dot product with their one-hot codes: it rides along as further
    channels of q and k, and no (N, N) table of biases is ever made, forward or backward.
    """
    dim = query.shape[-1]
    codes = positions.where.to(key.dtype).expand(len(key), -1, -1)
    query = torch.cat([query * dim**-0.5, positions.logits(query).to(query.dtype)], dim=-1)
    key = torch.cat([key, codes], dim=-1)
    value = F.pad(value, (0, codes.shape[-1]))  # the fused kernels want one width for all three
    query, key, value = (rearrange(x, "b n d -> b 1 n d") for x in (query, key, value))
    attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    return rearrange(attended, "b 1 n d -> b n d")[..., :dim]


class MivoloEnhancer(nn.Module):
    """Cross attention in both directions, a norm over the whole volume, and an MLP. No residual.

    Either input may have a batch of 1, when all samples share it (a picture that is missing everywhere).
    """

    def __init__(self, dim: int, side: int):
        super().__init__()
        self.qkv_f = nn.Conv2d(dim, 3 * dim, 1, bias=False)
        self.qkv_p = nn.Conv2d(dim, 3 * dim, 1, bias=False)
        self.pos_embed = RelativePositions(side, dim)
        self.norm = nn.LayerNorm([2 * dim, side, side])
        self.mlp = Mlp(2 * dim, 4 * dim, dim, use_conv=True)
        for conv in (self.qkv_f, self.qkv_p):
            trunc_normal_(conv.weight, std=dim**-0.5)

    def forward(self, face: Tensor, body: Tensor) -> Tensor:
        """(B, C, H, W) from the stems' maps of the face and of the body, (B, C, H, W) each."""
        side = self.pos_embed.side
        face_query, face_key, face_value = self.split(self.qkv_f(face))
        body_query, body_key, body_value = self.split(self.qkv_p(body))
        face = attend(face_query, body_key, body_value, self.pos_embed)
        body = attend(body_query, face_key, face_value, self.pos_embed)
        both = rearrange([face, body], "two b (h w) c -> b (two c) h w", h=side)
        return self.mlp(self.norm(both))

    @staticmethod
    def split(qkv: Tensor) -> Tensor:
        """Queries, keys and values, (B, N, C) each, from (B, 3 C, H, W)."""
        return rearrange(qkv, "b (three c) h w -> three b (h w) c", three=3)
