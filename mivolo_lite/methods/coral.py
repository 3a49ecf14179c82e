"""CORAL: rank-consistent ordinal regression with one shared weight vector."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.methods.interface import AgeSpan, MakeHead
from mivolo_lite.methods.ordinal import OrdinalMethod, threshold_loss

BIAS_UNIT = 128.0
"""The unit of the bias parameters.

AdamW moves every parameter by about the learning rate in a step, and by that alone a bias: 600 steps at 1e-3 could not
spread the biases by more than 0.6, where 120 ages that are told apart need dozens (UTKFace, after one epoch: MAE 17.2).
"""


class Coral(OrdinalMethod):
    """Binary questions "older than a_k?" with one shared score and separate biases.

    Cao, Mirjalili and Raschka, "Rank consistent ordinal regression for neural networks with application to age
    estimation", Pattern Recognition Letters 2020::

        z_k = w^T x + b_k        loss = sum_k lambda_k BCE(sigmoid(z_k), [y > a_k])
        age = a_0 + #{k: sigmoid(z_k) > 0.5}

    The P(age > a_k) decrease with k exactly if the biases do. They do so at the start (1, ..., 1 / (A - 1), as in
    coral-pytorch) and, as the paper proves, at the optimum; no step enforces it. The loss is a sum over about a hundred
    questions, so it starts near 70, where cross entropy starts near 5. An age range decides only the questions outside
    it.

    Shapes: features (B, D), output z (B, A - 1), loss (B,).
    """

    @dataclass(frozen=True)
    class Config(OrdinalMethod.Config):
        """Options.

        Attributes:
            importance: weigh question k by the square root of the count of its more frequent answer, normalised to at
                most 1.
        """

        importance: bool = False

    loss_buffers = ("question_weight",)

    question_weight: Tensor

    def __init__(self, make_head: MakeHead, span: AgeSpan, config: Any) -> None:
        super().__init__(make_head, span, config)
        questions = len(span) - 1
        self.head = make_head(1, bias=False)
        self.scaled_bias = nn.Parameter(torch.arange(questions, 0, -1) / questions / BIAS_UNIT)
        self.register_buffer("question_weight", torch.ones(questions))

    @property
    def bias(self) -> Tensor:
        """(A - 1,) b_k."""
        return BIAS_UNIT * self.scaled_bias + self.start

    def fit_prior(self, age_counts: Tensor) -> None:
        super().fit_prior(age_counts)
        if self.config.importance:
            older = age_counts.sum() - age_counts.cumsum(0)[:-1]
            majority = torch.maximum(older, age_counts.sum() - older).float().sqrt()
            self.question_weight.copy_(majority / majority.max())

    @property
    def balancing_option(self) -> str | None:
        return "importance" if self.config.importance else None

    @property
    def loss_unit(self) -> float:
        """The gradients of all questions add up in the shared score."""
        return (len(self.span) - 1) / 4

    def forward(self, features: Any) -> Tensor:
        """(B, A - 1) logits of the questions."""
        score = self.head(features)
        return score + self.bias.to(score.dtype)

    def loss(self, output: Tensor, age: AgeRange) -> Tensor:
        return (self.question_weight * threshold_loss(output.float(), age, self.span)).sum(-1)
