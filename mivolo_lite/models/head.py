"""The output layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mivolo_lite.interfaces import interface_error


class Head(nn.Linear):
    """A linear layer in float32, also under autocast.

    bfloat16 has 8 bits of mantissa. A head in bfloat16 rounds a regression by up to 2^-9 of its distance from the mean
    age, and logits of 16 by up to 0.06: ages from the same features differed by up to a quarter of a year. float32
    costs almost nothing, since a head has a thousandth of a model's operations.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(..., outputs) float32 from features (..., D) of any precision. Raises UserError for another width."""
        if features.ndim == 0 or features.shape[-1] != self.in_features:
            raise interface_error(
                f"a model's features are {tuple(features.shape)}, its num_features {self.in_features}; give features "
                f"(B, {self.in_features})"
            )
        with torch.autocast(features.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            return F.linear(features.float(), self.weight.float(), bias)
