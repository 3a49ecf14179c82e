"""The interface of a method of age estimation."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.labels import MAX_AGE, MIN_AGE
from mivolo_lite.option_values import check_options
from mivolo_lite.ranges import int_range

MakeHead = Callable[..., nn.Module]
"""``make_head(outputs, bias=True)`` gives the module that maps a model's features to ``(B, outputs)``.

For most models it is a linear layer in float32, ``models.head.Head``; MiVOLO adds its token head. Methods build their
layers with it, so that each of them sits on every model.
"""


@dataclass(frozen=True)
class AgeSpan:
    """The ages that a model can tell apart, in whole years, both ends included. Ages outside are clamped to it."""

    min_age: Annotated[int, int_range(MIN_AGE, MAX_AGE)] = MIN_AGE
    max_age: Annotated[int, int_range(MIN_AGE, MAX_AGE)] = MAX_AGE

    def __post_init__(self) -> None:
        if self.min_age >= self.max_age:
            raise ValueError(f"ages from min_age {self.min_age} to max_age {self.max_age} are no span")

    @property
    def typical_error(self) -> float:
        """Mean error in years of a new head, which answers the mean age: a fifth of the span.

        Of uniform ages it is a quarter of the span, of the ages in face data sets less than a fifth.
        """
        return (self.max_age - self.min_age) / 5

    def __len__(self) -> int:
        return self.max_age - self.min_age + 1

    def ages(self, device: torch.device | str | None = None) -> Tensor:
        """(A,) float32: every age of the span, in years."""
        return torch.arange(self.min_age, self.max_age + 1, dtype=torch.float32, device=device)

    def clamp(self, age: AgeRange) -> AgeRange:
        """The same ages, moved to the nearer end of the span where they lie outside it."""
        lo, hi = (end.clamp(self.min_age, self.max_age) for end in (age.lo, age.hi))
        return replace(age, lo=lo, hi=hi)


class AgeEstimate:
    """The estimates of a method for a batch.

    Attributes:
        mean: (B,) float32, expected age in years.
        probability: (B, A) float32 over ``AgeSpan.ages()``, or None where the method has no distribution.
        age: (B,) float32, the answer in years by the method's configured decoding; ``mean`` unless told otherwise.
    """

    def __init__(self, mean: Tensor, probability: Tensor | None = None, age: Tensor | None = None):
        self.mean, self.probability, self.age = mean, probability, mean if age is None else age


class AgeMethod(nn.Module):
    """The head, the loss and the decoding of one way to estimate age.

    A subclass has a nested dataclass ``Config`` with its options, one file, and one line in ``METHODS``.
    Masking of unknown ages, weighting and averaging over the batch happen once, in the training step.

    Attributes:
        span: the ages the method covers.
        required: what a subclass has to define.
        defining: names of the options that say what an output means, beside those that shape the weights.
        progress: share of the training done, from 0 to 1; the trainer sets it before every step.
        averages: whether the mean of several models' raw outputs, read with the mean of their biases, is an answer.
        loss_buffers: names of the buffers that training alone needs; a run that starts from another one's weights
            keeps its own, and a soup begins them anew.
    """

    Config: ClassVar[Any]
    required: ClassVar[tuple[str, ...]] = ("forward", "loss", "estimate")
    defining: ClassVar[tuple[str, ...]] = ()
    averages: ClassVar[bool] = True
    loss_buffers: ClassVar[tuple[str, ...]] = ()
    progress: float = 0.0

    def __init__(self, make_head: MakeHead, span: AgeSpan, config: Any) -> None:
        super().__init__()
        check_options(config, "method")
        self.span = span
        self.config = config

    def _apply(self, fn: Any, recurse: bool = True) -> "AgeMethod":
        """Keeps buffers (ages, weights, leaves) as they are where an engine casts the whole model to half precision."""
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in self.named_buffers(recurse=False):
            if buffer.dtype != before[name].dtype:
                setattr(self, name, before[name].to(buffer.device))
        return self

    @property
    def loss_unit(self) -> float:
        """The divisor of the loss before it is added to the others, so that age and gender have equal influence.

        Published losses differ in size ten thousandfold: years over 120, or the sum over 120 questions. In this unit,
        the gradient of the age loss at the features is about as long as that of a gender's cross entropy, for a new
        head and ages that lie about a fifth of the span from their mean. It is stated for each method, not measured.
        """
        return 1.0

    @property
    def balancing_option(self) -> str | None:
        """The option, where it is on, that weighs ages by the counts of ``fit_prior``, and so needs real ones."""
        return None

    def forward(self, features: Any) -> Tensor:
        """The method's raw output from a model's features: (B, D), or whatever the model's heads accept."""
        raise NotImplementedError

    def loss(self, output: Tensor, age: AgeRange) -> Tensor:
        """(B,) float32, no reduction. Finite everywhere, also where the age is not known."""
        raise NotImplementedError

    def estimate(self, output: Tensor) -> AgeEstimate:
        """The ages, in years, that the raw output means."""
        raise NotImplementedError

    def fit_prior(self, age_counts: Tensor) -> None:
        """Take what the method wants to know of the training labels before training starts, and only then.

        Args:
            age_counts: (A,) how many training samples have each age of the span (the middle of a range).
        """

    def refit(self, output: Tensor, age: AgeRange, sample: Tensor) -> None:
        """A second kind of update, once after every optimizer step. Usually none.

        Must leave the method equal on every rank, and the same at every world size and accumulation.

        Args:
            output: raw outputs of all samples that this rank had in the step, over its micro-batches.
            age: their ages.
            sample: (B,) int64, their numbers in the index.
        """
