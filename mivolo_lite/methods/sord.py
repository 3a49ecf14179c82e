"""Soft ordinal labels (SORD): cross entropy against a softmax of distances."""

from dataclasses import dataclass

from torch import Tensor

from mivolo_lite.methods.distribution import Decode, DistributionMethod, cross_entropy, widths


class Sord(DistributionMethod):
    """A softmax that imitates a softmax of the distances to the age.

    Diaz and Marathe, "Soft Labels for Ordinal Regression", CVPR 2019::

        t = softmax_j(-phi(a_j, y))        phi = |a_j - y| or (a_j - y)^2        loss = -sum_j t_j log p_j

    Where a sample has an ``age_std``, the distances are scaled so that its target has this standard deviation.

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

    def exact_loss(self, log_probability: Tensor, age: Tensor, std: Tensor | None) -> Tensor:
        # Without widths phi is in years: the width of exp(-|d|) is the root of 2, of exp(-d^2) that of a half.
        usual = 0.5**0.5 if self.config.squared else 2**0.5
        distance = (self.ages - age[:, None]).abs() * (usual / widths(std, usual))
        distance = distance.square() if self.config.squared else distance
        return cross_entropy(log_probability, (-distance).softmax(-1))
