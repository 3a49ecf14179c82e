"""Deep label distribution learning: cross entropy against a Gaussian around the age."""

import math
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from mivolo_lite.methods.distribution import Decode, DistributionMethod, cross_entropy, widths
from mivolo_lite.ranges import float_range


class Dldl(DistributionMethod):
    """A softmax with a Gaussian target.

    Gao, Xing, Xie, Wu and Geng, "Deep Label Distribution Learning with Label Ambiguity", IEEE TIP 2017::

        t_j = exp(-(a_j - y)^2 / 2 sigma^2) / sum_i exp(-(a_i - y)^2 / 2 sigma^2)        loss = -sum_j t_j log p_j

    which is the paper's divergence KL(t || p) up to the entropy of t, a constant. The Gaussian is truncated at the ends
    of the span, so the mean of the youngest age's target is above it. A sample's ``age_std``, the standard deviation of
    people's opinions (APPA-REAL, ChaLearn LAP), replaces sigma.

    Shapes: features (B, D), output (B, A), loss (B,).
    """

    @dataclass(frozen=True)
    class Config(DistributionMethod.Config):
        """Options.

        Attributes:
            sigma: width of the Gaussian target in years, of samples without ``age_std``.
        """

        decode: Decode = "median"
        sigma: Annotated[float, float_range(0.01, 1000)] = 2.0

    @property
    def loss_unit(self) -> float:
        """The norm of the target: the gradient at the logits is the new head's flat distribution minus the target."""
        return min(1.0, (2 * math.sqrt(math.pi) * self.config.sigma) ** -0.5)

    def exact_loss(self, log_probability: Tensor, age: Tensor, std: Tensor | None) -> Tensor:
        distance = (self.ages - age[:, None]) / widths(std, self.config.sigma)
        return cross_entropy(log_probability, (-0.5 * distance.square()).softmax(-1))
