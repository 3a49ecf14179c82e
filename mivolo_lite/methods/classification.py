"""Classification with cross entropy, decoded by the expectation (DEX)."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from mivolo_lite.methods.distribution import DistributionMethod, nearest_class_cross_entropy
from mivolo_lite.ranges import float_range


class Classification(DistributionMethod):
    """One class a year, cross entropy, expectation.

    Rothe, Timofte and Van Gool, "DEX: Deep EXpectation of Apparent Age from a Single Image", ICCV workshops 2015::

        loss = -log p_y        age = sum_j a_j p_j        p = softmax(z)

    With label smoothing (Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016), a share of each target is
    spread over all ages of the span.

    Shapes: features (B, D), output z (B, A), loss (B,). Here the span determines the number of classes; that the paper
    has 101 for the ages 0 to 100 is not verified.
    """

    @dataclass(frozen=True)
    class Config(DistributionMethod.Config):
        """Options.

        Attributes:
            label_smoothing: share of the target that is spread over all ages; only for exact ages.
        """

        label_smoothing: Annotated[float, float_range(0, 1, high_open=True)] = 0.0

    @property
    def loss_unit(self) -> float:
        """Approximately the norm of the target."""
        return 1 - self.config.label_smoothing

    def exact_loss(self, log_probability: Tensor, age: Tensor, std: Tensor | None) -> Tensor:
        loss, smoothing = nearest_class_cross_entropy(log_probability, age, self.ages), self.config.label_smoothing
        return loss if not smoothing else (1 - smoothing) * loss - smoothing * log_probability.mean(-1)
