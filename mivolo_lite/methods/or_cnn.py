"""OR-CNN: ordinal regression by independent binary classifiers."""

import math
from typing import Any

from torch import Tensor

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.methods.interface import AgeSpan, MakeHead
from mivolo_lite.methods.ordinal import OrdinalMethod, threshold_loss


class OrCnn(OrdinalMethod):
    """One binary classifier with separate weights for each question "older than a_k?".

    Niu, Zhou, Wang, Gao and Hua, "Ordinal Regression With Multiple Output CNN for Age Estimation", CVPR 2016::

        loss = sum_k BCE(sigmoid(z_k), [y > a_k])        age = a_0 + #{k: sigmoid(z_k) > 0.5}

    All questions have weight 1. The P(age > a_k) need not decrease with k. An age range decides only the questions
    outside it.

    Shapes: features (B, D), output z (B, A - 1), loss (B,).
    """

    def __init__(self, make_head: MakeHead, span: AgeSpan, config: Any) -> None:
        super().__init__(make_head, span, config)
        self.head = make_head(len(span) - 1)

    @property
    def loss_unit(self) -> float:
        """The gradients of independent questions add up like a random walk."""
        return math.sqrt(len(self.span) - 1) / 2

    def loss(self, output: Tensor, age: AgeRange) -> Tensor:
        return threshold_loss(output.float(), age, self.span).sum(-1)
