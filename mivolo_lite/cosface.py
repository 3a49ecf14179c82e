"""CosFace: a softmax over cosines with a margin, for face recognition (Wang et al., CVPR 2018).

Axes: B batch, E channels of an embedding, P people of the training data.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Centres(nn.Module):
    """Class centres: the target embedding of each person of the training data, used only in training."""

    def __init__(self, people: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(people, width))
        nn.init.normal_(self.weight, std=width**-0.5)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, P) float32 cosines between embeddings (B, E) and every person's centre."""
        # the error of a bfloat16 cosine near 1 is up to 0.002, or 1/8 in the logits at scale 64
        with torch.autocast(embedding.device.type, enabled=False):
            return F.linear(F.normalize(embedding.float()), F.normalize(self.weight.float()))


def cosface(cosine: Tensor, person: Tensor, margin: float, scale: float) -> Tensor:
    """(B,) float32 cross entropy of logits ``scale * cosine``, the true person's cosine minus ``margin``; no reduction.

    Args:
        cosine: (B, P).
        person: (B,) int64, the true ones.
        margin: subtracted from the cosine to the true person's centre.
        scale: of the logits, since the range of cosines is too small for a softmax.
    """
    margins = torch.zeros_like(cosine).scatter_(1, person[:, None], margin)
    return F.cross_entropy(scale * (cosine - margins), person, reduction="none")
