"""Classification with cross entropy, decoded by the expectation (DEX)."""

from torch import Tensor

from mivolo_lite.methods.distribution import DistributionMethod, nearest_class_cross_entropy


class Classification(DistributionMethod):
    """One class a year, cross entropy, expectation.

    Rothe, Timofte and Van Gool, "DEX: Deep EXpectation of Apparent Age from a Single Image", ICCV workshops 2015::

        loss = -log p_y        age = sum_j a_j p_j        p = softmax(z)

    Shapes: features (B, D), output z (B, A), loss (B,). The paper's 101 classes for the ages 0 to 100 are recalled, not
    verified; here the span decides.
    """

    def exact_loss(self, log_probability: Tensor, age: Tensor, std: Tensor | None) -> Tensor:
        return nearest_class_cross_entropy(log_probability, age, self.ages)
