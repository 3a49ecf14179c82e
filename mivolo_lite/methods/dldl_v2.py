"""DLDL-v2: the Gaussian label distribution and the error of the expectation, learned together."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from mivolo_lite.methods.distribution import Decode, expectation
from mivolo_lite.methods.dldl import Dldl
from mivolo_lite.ranges import float_range


class DldlV2(Dldl):
    """DLDL with an L1 loss on its expectation.

    Gao, Zhou, Wu and Geng, "Age Estimation Using Expectation of Label Distribution Learning", IJCAI 2018::

        loss = -sum_j t_j log p_j + lambda |sum_j a_j p_j - y|

    The loss of a range is only that of the mass inside it.

    Shapes: features (B, D), output (B, A), loss (B,).
    """

    @dataclass(frozen=True)
    class Config(Dldl.Config):
        """Options.

        Attributes:
            sigma: width of the Gaussian target in years, of samples without ``age_std``.
            expectation_weight: weight (lambda) of the error of the expectation, per year.
        """

        decode: Decode = "expectation"
        expectation_weight: Annotated[float, float_range(0)] = 1.0

    @property
    def loss_unit(self) -> float:
        return super().loss_unit + self.config.expectation_weight * self.span.typical_error / 8

    def exact_loss(self, log_probability: Tensor, age: Tensor, std: Tensor | None) -> Tensor:
        error = (expectation(log_probability.exp(), self.ages) - age).abs()
        return super().exact_loss(log_probability, age, std) + self.config.expectation_weight * error
