"""Soft ordinal labels (SORD): cross entropy against a softmax of distances."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from mivolo_lite.methods.distribution import Decode, DistributionMethod, cross_entropy, widths
from mivolo_lite.ranges import float_range


class Sord(DistributionMethod):
    """A softmax with a softmax of the distances to the age as its target.

    Diaz and Marathe, "Soft Labels for Ordinal Regression", CVPR 2019::

        t = softmax_j(-phi(a_j, y))        phi = |a_j - y| / s or ((a_j - y) / s)^2        loss = -sum_j t_j log p_j

    If a sample has an ``age_std``, the distances are scaled so that the target has this standard deviation.

    Shapes: features (B, D), output (B, A), loss (B,).
    """

    @dataclass(frozen=True)
    class Config(DistributionMethod.Config):
        """Options.

        Attributes:
            squared: use the squared distance rather than the distance.
            scale: years (s) of a distance of 1, proportional to the width of the labels; 1 in the paper.
        """

        decode: Decode = "median"
        squared: bool = False
        scale: Annotated[float, float_range(0.01, 1000)] = 1.0

    @property
    def loss_unit(self) -> float:
        """The norm of the target, which decreases with the root of its width."""
        return min(1.0, self.config.scale**-0.5)

    def exact_loss(self, log_probability: Tensor, age: Tensor, std: Tensor | None) -> Tensor:
        # the standard deviation of exp(-|d|) is sqrt(2), that of exp(-d^2) is sqrt(1/2)
        usual = 0.5**0.5 if self.config.squared else 2**0.5
        distance = (self.ages - age[:, None]).abs() * (usual / widths(std, usual * self.config.scale))
        distance = distance.square() if self.config.squared else distance
        return cross_entropy(log_probability, (-distance).softmax(-1))
