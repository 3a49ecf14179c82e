"""The base of all methods that predict a probability for every age."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.methods.interface import AgeEstimate, AgeMethod, AgeSpan, MakeHead
from mivolo_lite.methods.prior import smoothed_counts

Decode = Literal["expectation", "rounded", "median"]


def class_bounds(age: AgeRange, span: AgeSpan) -> tuple[Tensor, Tensor]:
    """The first and the last class that each age allows, rounded to whole years (half to even).

    Returns:
        Two (B,) int64 tensors of indices into ``span.ages()``, ``first <= last``. They are equal for an exact age.
    """
    age = span.clamp(age)
    first = age.lo.round().long() - span.min_age
    last = age.hi.round().long() - span.min_age
    return first, torch.maximum(first, last)


def log_mass(log_probability: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """(B,) log of the probability inside the classes ``first..last``, from (B, A) log probabilities."""
    index = torch.arange(log_probability.shape[-1], device=log_probability.device)
    outside = (index < first[:, None]) | (index > last[:, None])
    return log_probability.masked_fill(outside, -torch.inf).logsumexp(-1)


def widths(std: Tensor | None, width: float) -> Tensor | float:
    """(B, 1) standard deviations of the labels in years, or ``width`` for labels without one."""
    return width if std is None else torch.where(std > 0, std, width)[:, None]


def cross_entropy(log_probability: Tensor, target: Tensor) -> Tensor:
    """(B,) cross entropy of (B, A) log probabilities against a (B, A) target distribution."""
    return -(target * log_probability).sum(-1)


def nearest_class_cross_entropy(log_probability: Tensor, age: Tensor, ages: Tensor) -> Tensor:
    """(B,) cross entropy of (B, A) log probabilities against the class nearest to each age (B,) in years."""
    index = age.round().long() - ages[0].long()
    return -log_probability.gather(-1, index[:, None]).squeeze(-1)


def expectation(probability: Tensor, values: Tensor) -> Tensor:
    """(B,) expected value, by a product and a sum, since autocast would run a matrix product in half precision."""
    return (probability * values).sum(-1)


def mean_and_variance(probability: Tensor, ages: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) mean in years and (B,) variance in years squared of (B, A) probabilities."""
    mean = expectation(probability, ages)
    return mean, expectation(probability, (ages - mean[:, None]).square())


def spread(estimate: AgeEstimate, span: AgeSpan) -> Tensor | None:
    """(B,) standard deviation of the ages in years, None if the method has no distribution."""
    if estimate.probability is None:
        return None
    return mean_and_variance(estimate.probability, span.ages(estimate.mean.device))[1].sqrt()


def median(probability: Tensor, ages: Tensor) -> Tensor:
    """(B,) the smallest age with a cumulative probability of at least one half; it minimises the expected error.

    It is computed as a count of years, not as an index, since some runtimes of exported graphs cannot clamp int64.
    """
    younger = (probability.cumsum(-1) < 0.5).float().sum(-1)
    return ages[0] + younger.clamp(max=len(ages) - 1)


class DistributionMethod(AgeMethod):
    """A softmax over the ages of the span.

    A subclass defines the loss of an exact age. The loss of a range is always minus the log of the probability inside
    it. A new head starts at the distribution of the training ages: their log frequencies are added to its logits.
    """

    @dataclass(frozen=True)
    class Config:
        """Options.

        Attributes:
            decode: the estimate: the expectation, the expectation rounded to whole years, or the median.
        """

        decode: Decode = "expectation"

    ages: Tensor
    start: Tensor

    def __init__(self, make_head: MakeHead, span: AgeSpan, config: Any) -> None:
        super().__init__(make_head, span, config)
        self.head = make_head(len(span))
        self.register_buffer("ages", span.ages(), persistent=False)
        self.register_buffer("start", torch.zeros(len(span)))

    def fit_prior(self, age_counts: Tensor) -> None:
        counts = smoothed_counts(age_counts)
        self.start.copy_((counts / counts.sum()).log())

    def forward(self, features: Any) -> Tensor:
        """(B, A) logits."""
        output = self.head(features)
        return output + self.start.to(output.dtype)

    def exact_loss(self, log_probability: Tensor, age: Tensor, std: Tensor | None) -> Tensor:
        """(B,) loss of exact ages.

        Args:
            log_probability: (B, A) float32.
            age: (B,) float32, years inside the span.
            std: (B,) float32, standard deviation of each label in years, 0 for none; None if no label has one. Only
                methods with a target distribution use it.
        """
        raise NotImplementedError

    def loss(self, output: Tensor, age: AgeRange) -> Tensor:
        log_probability = output.float().log_softmax(-1)
        age = self.span.clamp(age)
        exact = self.exact_loss(log_probability, age.lo, age.std)
        ranged = -log_mass(log_probability, *class_bounds(age, self.span))
        return torch.where(age.lo == age.hi, exact, ranged)

    def estimate(self, output: Tensor) -> AgeEstimate:
        probability = output.float().softmax(-1)
        mean = expectation(probability, self.ages)
        if self.config.decode == "median":
            return AgeEstimate(mean, probability, median(probability, self.ages))
        return AgeEstimate(mean, probability, mean.round() if self.config.decode == "rounded" else mean)
