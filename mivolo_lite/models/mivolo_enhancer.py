"""MiVOLO's feature enhancer: cross attention between face and body, and one map of both (arXiv 2307.04616, figure 3).

It works on tokens in row-major order; the parameters keep the shapes of the published convolutions.
Axes: B batch, C channels, H and W rows and columns of the grid, N = H W tokens, D width of a token.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import trunc_normal_
from torch import Tensor, nn

CELLS = 9
"""Cells of an image of one colour: corners, edges and the middle."""


class Pointwise(nn.Conv2d):
    """A 1 x 1 convolution of tokens (B, N, D)."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__(inputs, outputs, 1, bias=bias)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(tokens, self.weight.flatten(1), self.bias)


class VolumeNorm(nn.LayerNorm):
    """Layer norm over all channels and positions together, with weights (C, H, W), of tokens (B, N, C)."""

    def forward(self, tokens: Tensor) -> Tensor:
        weight, bias = (rearrange(affine, "c h w -> (h w) c") for affine in (self.weight, self.bias))
        return F.layer_norm(tokens, weight.shape, weight, bias, self.eps)


class Mlp(nn.Module):
    """Two linear layers with a GELU in between, for each token."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.fc1 = Pointwise(inputs, hidden)
        self.fc2 = Pointwise(hidden, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class RelativePositions(nn.Module):
    """Relative position logits of a query for each row and column of keys, with a learned vector for each distance.

    The distances go from -(side - 1) to side - 1, so the two tables have 2 side - 1 rows.
    """

    distance: Tensor
    codes: Tensor
    cell: Tensor

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
        codes = torch.cat([F.one_hot(rows, side), F.one_hot(columns, side)], dim=-1).float()
        self.register_buffer("codes", rearrange(codes, "h w two_sides -> (h w) two_sides"), persistent=False)
        band = place.clamp(max=1) + (place == side - 1)  # 0 first, 1 between, 2 last
        self.register_buffer("cell", rearrange(3 * band[:, None] + band, "h w -> (h w)"), persistent=False)

    def forward(self, query: Tensor) -> Tensor:
        """(B, N, 2 side) logits of queries (B, N, D) for each row, then for each column of keys."""
        query = rearrange(query, "b (h w) d -> b h w d", h=self.side)
        rows = torch.einsum("b h w d, h k d -> b h w k", query, self.height_rel[self.distance])
        columns = torch.einsum("b h w d, w k d -> b h w k", query, self.width_rel[self.distance])
        return rearrange(torch.cat([rows, columns], dim=-1), "b h w k -> b (h w) k")


def attend(query: Tensor, key: Tensor, value: Tensor, positions: RelativePositions) -> Tensor:
    """softmax(s q k^T + R(q)) v with one head and s = D^-1/2, all (B, N, D).

    R(q) is a sum over the key's row and column, so it is a dot product with their one-hot codes. These are appended to
    the channels of q and k, which avoids an (N, N) table of biases.
    """
    dim = query.shape[-1]
    codes = positions.codes.to(key.dtype).expand(key.shape[0], -1, -1)
    query = torch.cat([query * dim**-0.5, positions(query).to(query.dtype)], dim=-1)
    key = torch.cat([key, codes], dim=-1)
    value = F.pad(value, (0, codes.shape[-1]))  # the fused kernels need one width for all three
    query, key, value = (rearrange(x, "b n d -> b 1 n d") for x in (query, key, value))
    attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    return rearrange(attended, "b 1 n d -> b n d")[..., :dim]


def attend_to_cells(query: Tensor, key: Tensor, value: Tensor, positions: RelativePositions) -> Tensor:
    """``attend`` to an image of one colour, with the keys and values of its 3 x 3 cells (1, 9, D).

    All positions of a cell have the same q k^T and v, and the sum of e^(row + column) over a block is a product of two
    sums. So the logit of a whole cell is q k^T plus the log-sum-exp over its rows and that over its columns.
    """
    rows, columns = (
        torch.cat([side[..., :1], side[..., 1:-1].logsumexp(dim=-1, keepdim=True), side[..., -1:]], dim=-1)
        for side in positions(query).chunk(2, dim=-1)
    )
    blocks = rearrange(rows[..., :, None] + columns[..., None, :], "b n row column -> b n (row column)")
    weights = (query @ key.transpose(1, 2) * query.shape[-1] ** -0.5 + blocks).softmax(dim=-1)
    return weights @ value


class MivoloEnhancer(nn.Module):
    """Cross attention in both directions, a norm over the whole volume, and an MLP. No residual.

    Each image may also be given as the 3 x 3 cells (1, 9, C) of an image of one colour, the same for all samples: a
    stem maps it to equal tokens within each corner, each edge and the middle.
    """

    attend = staticmethod(attend)

    def __init__(self, dim: int, side: int):
        super().__init__()
        self.qkv_f = Pointwise(dim, 3 * dim, bias=False)
        self.qkv_p = Pointwise(dim, 3 * dim, bias=False)
        self.pos_embed = RelativePositions(side, dim)
        self.norm = VolumeNorm([2 * dim, side, side])
        self.mlp = Mlp(2 * dim, 4 * dim, dim)
        for projection in (self.qkv_f, self.qkv_p):
            trunc_normal_(projection.weight, std=dim**-0.5)

    def forward(self, face: Tensor, body: Tensor) -> Tensor:
        """(B, N, C) from the stems' tokens of the face and of the body, (B, N, C) each."""
        face_query, face_key, face_value = self.qkv_f(face).chunk(3, dim=-1)
        body_query, body_key, body_value = self.qkv_p(body).chunk(3, dim=-1)
        face = self.read(face_query, body_key, body_value)
        body = self.read(body_query, face_key, face_value)
        return self.mlp(self.norm(torch.cat([face, body], dim=-1)))

    def read(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, N, C) attention of one image to the other. Queries, or keys and values, may be those of cells."""
        if query.shape[1] == CELLS:
            query = query[:, self.pos_embed.cell].expand(key.shape[0], -1, -1)
        if key.shape[1] == CELLS:
            return attend_to_cells(query, key, value, self.pos_embed)
        return self.attend(query, key, value, self.pos_embed)
