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
    """The ages of a model in whole years, both ends included. Ages outside are clamped to it."""

    min_age: Annotated[int, int_range(MIN_AGE, MAX_AGE)] = MIN_AGE
    max_age: Annotated[int, int_range(MIN_AGE, MAX_AGE)] = MAX_AGE

    def __post_init__(self) -> None:
        if self.min_age >= self.max_age:
            raise ValueError(f"ages from min_age {self.min_age} to max_age {self.max_age} are no span")

    @property
    def typical_error(self) -> float:
        """Mean error in years of a new head, which returns the mean age: a fifth of the span.

        It is a quarter of the span for uniform ages, and less than a fifth for the ages in face data sets.
        """
        return (self.max_age - self.min_age) / 5

    def __len__(self) -> int:
        return self.max_age - self.min_age + 1

    def ages(self, device: torch.device | str | None = None) -> Tensor:
        """(A,) float32: every age of the span, in years."""
        return torch.arange(self.min_age, self.max_age + 1, dtype=torch.float32, device=device)

    def clamp(self, age: AgeRange) -> AgeRange:
        """The ages, clamped to the span."""
        lo, hi = (end.clamp(self.min_age, self.max_age) for end in (age.lo, age.hi))
        return replace(age, lo=lo, hi=hi)


class AgeEstimate:
    """The estimates of a method for a batch.

    Attributes:
        mean: (B,) float32, expected age in years.
        probability: (B, A) float32 over ``AgeSpan.ages()``, or None if the method has no distribution.
        age: (B,) float32, the estimate in years by the method's decoding; ``mean`` by default.
    """

    def __init__(self, mean: Tensor, probability: Tensor | None = None, age: Tensor | None = None):
        self.mean, self.probability, self.age = mean, probability, mean if age is None else age


class AgeMethod(nn.Module):
    """The head, the loss and the decoding of one way to estimate age.

    A subclass has a nested dataclass ``Config`` with its options, one file, and one line in ``METHODS``.
    Masking of unknown ages, weighting and averaging over the batch happen once, in the training step.

    Attributes:
        span: the ages the method covers.
        required: attributes and methods that a subclass must define.
        defining: names of the options that determine the meaning of an output, besides those that determine shapes.
        progress: completed share of the training, from 0 to 1; the trainer sets it before every step.
        averages: whether raw outputs of several models can be averaged, with the mean of their biases.
        loss_buffers: names of the buffers that only training needs; runs with ``init_from`` and soups initialise them.
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
        """Keep the precision of buffers (ages, weights, leaves) if an engine casts the whole model to half
        precision."""
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in self.named_buffers(recurse=False):
            if buffer.dtype != before[name].dtype:
                setattr(self, name, before[name].to(buffer.device))
        return self

    @property
    def loss_unit(self) -> float:
        """The divisor of the loss before it is added to the others, so that age and gender have equal influence.

        Published losses differ in scale by a factor of up to ten thousand. In this unit, the gradients of the age loss
        and of the gender's cross entropy at the features have about the same norm, for a new head and ages about a
        fifth of the span from their mean. It is derived for each method, not measured.
        """
        return 1.0

    @property
    def balancing_option(self) -> str | None:
        """The name of an active option that weighs ages by the counts of ``fit_prior``, and so needs true counts; or
        None."""
        return None

    def forward(self, features: Any) -> Tensor:
        """The method's raw output from a model's features: (B, D), or another input of the model's heads."""
        raise NotImplementedError

    def loss(self, output: Tensor, age: AgeRange) -> Tensor:
        """(B,) float32, without reduction. It is finite, also for unknown ages."""
        raise NotImplementedError

    def estimate(self, output: Tensor) -> AgeEstimate:
        """The ages in years from the raw output."""
        raise NotImplementedError

    def fit_prior(self, age_counts: Tensor) -> None:
        """Initialise the method from the training labels, once before training.

        Args:
            age_counts: (A,) training samples of each age of the span; ranges count by their middle.
        """

    def refit(self, output: Tensor, age: AgeRange, sample: Tensor) -> None:
        """A second update after every optimizer step. None by default.

        The result must be equal on all ranks, and independent of the world size and accumulation.

        Args:
            output: raw outputs of all samples of this rank in the step.
            age: their ages.
            sample: (B,) int64, their numbers in the index.
        """
