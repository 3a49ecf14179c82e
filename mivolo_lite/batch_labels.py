"""The labels of a batch, as tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AgeRange:
    """Ages of a batch, each known exactly (``lo == hi``), as a closed range, or not at all.

    Attributes:
        lo: (B,) float32, youngest possible age in years.
        hi: (B,) float32, oldest possible age in years.
        known: (B,) bool. Where it is False, ``lo`` and ``hi`` are finite but meaningless.
        std: (B,) float32, standard deviation in years of several people's opinions, 0 where unknown; None if the data
            has none.
    """

    lo: Tensor
    hi: Tensor
    known: Tensor
    std: Tensor | None = None

    @classmethod
    def exact(cls, age: Tensor) -> "AgeRange":
        """Exact ages (B,) in years."""
        age = age.float()
        return cls(age, age, torch.ones_like(age, dtype=torch.bool))

    @classmethod
    def concatenate(cls, ages: Sequence["AgeRange"]) -> "AgeRange":
        """Ages of several batches, one after the other."""
        lo, hi, known = (torch.cat([getattr(age, name) for age in ages]) for name in ("lo", "hi", "known"))
        stds = [torch.zeros_like(age.lo) if age.std is None else age.std for age in ages]
        return cls(lo, hi, known, None if all(age.std is None for age in ages) else torch.cat(stds))

    def map(self, function: Callable) -> "AgeRange":
        """Apply a function to each tensor."""
        std = None if self.std is None else function(self.std)
        return AgeRange(function(self.lo), function(self.hi), function(self.known), std)

    @property
    def middle(self) -> Tensor:
        """(B,) the middle of each range, or the exact age."""
        return (self.lo + self.hi) / 2


@dataclass(frozen=True)
class TaskLabel:
    """A batch's labels of one task in addition to age and gender.

    Attributes:
        value: (B,) float32, the index of the class, the number, or the number of the person; 0 where unknown.
        known: (B,) bool.
    """

    value: Tensor
    known: Tensor
