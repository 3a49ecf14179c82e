"""Soft ordinal labels (SORD): cross entropy against a softmax of distances."""

from dataclasses import dataclass

from torch import Tensor

from mivolo_lite.methods.distribution import Decode, DistributionMethod, cross_entropy


class Sord(DistributionMethod):
    """A softmax that imitates a softmax of the distances to the age.

    Diaz and Marathe, "Soft Labels for Ordinal Regression", CVPR 2019::

        t = softmax_j(-phi(a_j, y))        phi = |a_j - y| or (a_j - y)^2        loss = -sum_j t_j log p_j

    Shapes: features (B, D), output (B, A), loss (B,).
    """

    @dataclass(frozen=True)
    class Config(DistributionMethod.Config):
        """Options.

        Attributes:
            squared: use the squared distance in years rather than the distance.
        """

        decode: Decode = "median"
        squared: bool = False

    def exact_loss(self, log_probability: Tensor, age: Tensor) -> Tensor:
        distance = (self.ages - age[:, None]).abs()
        distance = distance.square() if self.config.squared else distance
        return cross_entropy(log_probability, (-distance).softmax(-1))
