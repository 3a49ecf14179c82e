"""Mean-variance loss: cross entropy, the error of the mean, and the spread around it."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from mivolo_lite.methods.distribution import Decode, DistributionMethod, mean_and_variance, nearest_class_cross_entropy
from mivolo_lite.ranges import float_range


class MeanVariance(DistributionMethod):
    """A softmax with the age as its mean, and a small variance.

    Pan, Han, Shan and Chen, "Mean-Variance Loss for Deep Age Estimation from a Face", CVPR 2018::

        loss = -log p_y + lambda_1 (mu - y)^2 / 2 + lambda_2 sum_j p_j (a_j - mu)^2        mu = sum_j a_j p_j

    The loss of a range is only that of the mass inside it.

    Shapes: features (B, D), output (B, A), loss (B,).
    """

    @dataclass(frozen=True)
    class Config(DistributionMethod.Config):
        """Options.

        Attributes:
            mean_weight: weight (lambda 1) of half the squared error of the mean, per year squared.
            variance_weight: weight (lambda 2) of the variance, per year squared.
        """

        decode: Decode = "median"
        mean_weight: Annotated[float, float_range(0)] = 0.2
        variance_weight: Annotated[float, float_range(0)] = 0.05

    @property
    def loss_unit(self) -> float:
        return 1 + self.config.mean_weight * self.span.typical_error**2 / 6

    def exact_loss(self, log_probability: Tensor, age: Tensor, std: Tensor | None) -> Tensor:
        mean, variance = mean_and_variance(log_probability.exp(), self.ages)
        loss = nearest_class_cross_entropy(log_probability, age, self.ages)
        return loss + self.config.mean_weight * (mean - age).square() / 2 + self.config.variance_weight * variance
