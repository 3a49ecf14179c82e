"""The base of the ordinal methods: one binary question "older than a_k?" for every age of the span but the last."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.methods.distribution import class_bounds
from mivolo_lite.methods.interface import AgeEstimate, AgeMethod, AgeSpan, MakeHead
from mivolo_lite.methods.prior import smoothed_counts


def threshold_loss(logits: Tensor, age: AgeRange, span: AgeSpan) -> Tensor:
    """(B, A - 1) binary cross entropy of each question, 0 if it is inside the age range.

    Args:
        logits: (B, A - 1) float32, of "older than a_k".
        age: ages (B,); a range [lo, hi] decides only the questions below lo and from hi on.
        span: the ages a_k.
    """
    first, last = class_bounds(age, span)
    index = torch.arange(logits.shape[-1], device=logits.device)
    older, younger = index < first[:, None], index >= last[:, None]
    decided = (older | younger).float()
    return F.binary_cross_entropy_with_logits(logits, older.float(), weight=decided, reduction="none")


class OrdinalMethod(AgeMethod):
    """Binary questions "older than a_k?", by default with independent sigmoids.

    A subclass creates the head. A new head starts at the age distribution of the training data: its log odds are added
    to the logits.
    """

    @dataclass(frozen=True)
    class Config:
        """Options.

        Attributes:
            decode: the estimate: the count of questions answered yes (published), or the expectation.
        """

        decode: Literal["count", "expectation"] = "count"

    head: nn.Module
    start: Tensor

    def __init__(self, make_head: MakeHead, span: AgeSpan, config: Any) -> None:
        super().__init__(make_head, span, config)
        self.register_buffer("start", torch.zeros(len(span) - 1))

    def fit_prior(self, age_counts: Tensor) -> None:
        # summed from the oldest, in float64: float32 sums near 180,000 would lose the few oldest samples
        counts = smoothed_counts(age_counts).double()
        older = counts.flip(0).cumsum(0).flip(0)[1:]
        self.start.copy_((older / self.not_older(counts)).log())

    def forward(self, features: Any) -> Tensor:
        """(B, A - 1) logits of the questions."""
        output = self.head(features)
        return output + self.start.to(output.dtype)

    def not_older(self, age_counts: Tensor) -> Tensor:
        """(A - 1,) number of samples of each question that are not older, from counts (A,) by age."""
        return age_counts.cumsum(0)[:-1]

    def exceedance(self, output: Tensor) -> Tensor:
        """(B, A - 1) float32 P(age > a_k) from the output."""
        return output.float().sigmoid()

    def estimate(self, output: Tensor) -> AgeEstimate:
        """The mean is the youngest age plus the sum of the P(age > a_k), and the probabilities are their steps.

        If a P(age > a_k) increases with k, as independent questions may, that step counts as 0 and the others are
        scaled to sum to 1. The mean is then not exactly that of the probabilities.
        """
        exceedance = self.exceedance(output)
        mean = self.span.min_age + exceedance.sum(-1)
        steps = (F.pad(exceedance, (1, 0), value=1.0) - F.pad(exceedance, (0, 1))).clamp(min=0)
        probability = steps / steps.sum(-1, keepdim=True)
        count = self.span.min_age + (exceedance > 0.5).sum(-1).float()
        return AgeEstimate(mean, probability, count if self.config.decode == "count" else mean)
