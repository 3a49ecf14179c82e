"""Adaptive mean-residue loss: cross entropy, the error of the mean, and the entropy outside a dynamic top K."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from mivolo_lite.methods.distribution import Decode, DistributionMethod, expectation, nearest_class_cross_entropy
from mivolo_lite.ranges import float_range

EPSILON = 1e-3


def residue(log_probability: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The entropy of the classes less probable than the true one, which the loss drives to 0.

    The top K are the classes at least as probable as the true class, ties included. They are masked out, but as in the
    published code they stay in the sum as 0, so the residue is never below -A epsilon log(epsilon). Where the true
    class is the least probable, everything is masked and there is no gradient.

    Args:
        log_probability: (B, A) float32.
        index: (B,) int64, the true class.

    Returns:
        (B,) float32 residue, and (B,) int64 K.
    """
    outside = log_probability < log_probability.gather(-1, index[:, None])
    masked = torch.where(outside, log_probability.exp(), 0.0) + EPSILON
    return -(masked * masked.log()).sum(-1), (~outside).sum(-1)


class MeanResidue(DistributionMethod):
    """A softmax with the age as its mean, and little probability outside its dynamic top K.

    Zhao, Qian, Hou and Zeng, "Adaptive Mean-Residue Loss for Robust Facial Age Estimation", ICME 2022::

        loss = -log p_y + lambda_1 (mu - y)^2 / 2 + lambda_2 sum_j -(q_j + e) log(q_j + e)
        mu = sum_j a_j p_j        q_j = p_j where p_j < p_y else 0        e = 0.001

    The equation is that of the authors' code; whether the paper's sum leaves masked classes out is not verified, nor
    whether its tables used lambda_2 = 0.05 (the scripts, our default) or 0.25 (the code's own default). The code
    answers the rounded expectation. The loss of a range is only that of the mass inside it.

    Shapes: features (B, D), output (B, A), loss (B,).
    """

    @dataclass(frozen=True)
    class Config(DistributionMethod.Config):
        """Options.

        Attributes:
            mean_weight: weight (lambda 1) of half the squared error of the mean, per year squared.
            residue_weight: weight (lambda 2) of the residue.
        """

        decode: Decode = "rounded"
        mean_weight: Annotated[float, float_range(0)] = 0.2
        residue_weight: Annotated[float, float_range(0)] = 0.05

    @property
    def loss_unit(self) -> float:
        return 1 + self.config.mean_weight * self.span.typical_error**2 / 6

    def exact_loss(self, log_probability: Tensor, age: Tensor, std: Tensor | None) -> Tensor:
        mean = expectation(log_probability.exp(), self.ages)
        entropy_outside, _ = residue(log_probability, age.round().long() - self.span.min_age)
        loss = nearest_class_cross_entropy(log_probability, age, self.ages)
        return loss + self.config.mean_weight * (mean - age).square() / 2 + self.config.residue_weight * entropy_outside
