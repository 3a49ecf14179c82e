"""CORN: rank-consistent ordinal regression by conditional probabilities."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.methods.distribution import class_bounds, log_mass
from mivolo_lite.methods.interface import AgeSpan, MakeHead
from mivolo_lite.methods.ordinal import OrdinalMethod


class Corn(OrdinalMethod):
    """Questions "older than a_k, given that older than a_{k-1}?".

    Shi, Cao and Raschka, "Deep Neural Networks for Rank-Consistent Ordinal Regression Based On Conditional
    Probabilities", arXiv 2111.08851::

        P(y > a_k) = prod_{j <= k} sigmoid(z_j)        age = a_0 + #{k: P(y > a_k) > 0.5}
        loss = 1/M sum_k sum_{i: y_i >= a_k} BCE(sigmoid(z_ik), [y_i > a_k])        M = sum_k #{i: y_i >= a_k}

    The terms of one sample add up to minus the log probability of its age, so the loss of a range is minus the log of
    the mass inside it. In the paper, M counts the questions of a batch. Here it is the batch size times the mean number
    of questions of a training sample (from ``fit_prior``), so that the loss of a sample does not depend on its batch.
    For a batch with the ages of the training set both are equal.

    Shapes: features (B, D), output z (B, A - 1), loss (B,).
    """

    loss_buffers = ("questions_asked",)

    questions_asked: Tensor

    def __init__(self, make_head: MakeHead, span: AgeSpan, config: Any) -> None:
        super().__init__(make_head, span, config)
        self.head = make_head(len(span) - 1)
        self.register_buffer("questions_asked", torch.tensor(1.0))
        self.count_questions(torch.ones(len(span)))

    def fit_prior(self, age_counts: Tensor) -> None:
        super().fit_prior(age_counts)
        self.count_questions(age_counts)

    def not_older(self, age_counts: Tensor) -> Tensor:
        return age_counts[:-1]

    def count_questions(self, age_counts: Tensor) -> None:
        """Set the mean number of questions of a sample, from counts (A,) by age."""
        counts = age_counts.float()
        questions = torch.arange(1, len(counts) + 1, device=counts.device).clamp(max=len(counts) - 1)
        self.questions_asked.copy_((counts * questions).sum() / counts.sum())

    @property
    def loss_unit(self) -> float:
        """The loss is the mean over the questions of a sample, about a third of all."""
        return 3 / (len(self.span) - 1)

    def exceedance(self, output: Tensor) -> Tensor:
        return F.logsigmoid(output.float()).cumsum(-1).exp()

    def loss(self, output: Tensor, age: AgeRange) -> Tensor:
        logits = output.float()
        log_exceedance = F.logsigmoid(logits).cumsum(-1)
        log_probability = F.pad(log_exceedance, (1, 0)) + F.pad(F.logsigmoid(-logits), (0, 1))
        return -log_mass(log_probability, *class_bounds(age, self.span)) / self.questions_asked
