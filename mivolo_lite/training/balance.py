"""Weights of training samples to balance an uneven label distribution.

Rare samples weigh more in the losses and are not sampled more often: an epoch has every sample once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from mivolo_lite.errors import UserError
from mivolo_lite.labels import MAX_AGE
from mivolo_lite.methods.prior import smoothed_counts
from mivolo_lite.ranges import Probability, float_range
from mivolo_lite.training.subgroups import UNKNOWN, By, label_codes


@dataclass
class BalanceConfig:
    """Larger weights for rare training samples, in all their losses.

    Attributes:
        by: the labels whose rarity counts, ``age``, ``gender``, ``group``, ``age_gender``, ``age_group`` or ``none``.
        power: 1 gives every subgroup the same total weight, 0 every sample the same weight; 0.5 is half way.
        cap: largest weight; the mean is 1.
    """

    by: By = "none"
    power: Probability = 0.5
    cap: Annotated[float, float_range(1, low_open=True)] = 5.0


def balanced_weights(
    columns: Mapping[str, np.ndarray], config: BalanceConfig, frequency: np.ndarray | None = None
) -> Tensor:
    """(N,) float32 weights of at most ``cap``, with a mean of 1 over the stream.

    A weight is the size of the sample's subgroup to the power of ``-power``. Counts of ages are smoothed over a few
    years (``smoothed_counts``), so that the only 110-year-old weighs as much as the few of about that age. Samples with
    an unknown label weigh 1.

    Args:
        columns: labels of all samples, as from ``concat_labels``.
        config: of the weights; ``by`` is not ``none``.
        frequency: (N,) how often each sample is used, 1 on average; None if all are used equally often.

    Raises:
        UserError: no sample has these labels.
    """
    frequency = np.ones(len(columns["age_lo"])) if frequency is None else frequency
    count = _counts(columns, config.by, frequency)
    is_known = count > 0
    if not is_known.any():
        raise UserError(f"optim.balance.by {config.by}: no training sample has such labels; set it to none")
    weight = torch.ones(len(count), dtype=torch.float64)
    weight[is_known] = capped(count[is_known] ** -config.power, config.cap, torch.from_numpy(frequency)[is_known])
    return weight.float()


def capped(weight: Tensor, cap: float, frequency: Tensor | None = None) -> Tensor:
    """(N,) ``min(scale * weight, cap)`` with the scale that makes their mean, weighted by frequency, 1.

    Args:
        weight: (N,) positive, float64.
        cap: above 1.
        frequency: (N,) positive, float64; None if all are equal.
    """
    frequency = torch.ones_like(weight) if frequency is None else frequency
    cap = min(cap, float(frequency.sum() / frequency.min()))
    largest, order = weight.sort(descending=True)
    mass = frequency[order]
    tail_sum = (largest * mass).flip(0).cumsum(0).flip(0)
    # Entry k is the scale that makes the mean 1 with the k largest weights capped. The first to cap no other holds.
    scale = (mass.sum() - cap * (mass.cumsum(0) - mass)) / tail_sum
    return (scale[(scale * largest <= cap).int().argmax()] * weight).clamp(max=cap)


def _counts(columns: Mapping[str, np.ndarray], by: By, frequency: np.ndarray) -> Tensor:
    """(N,) float64 samples in each one's subgroup, 0 if a label is unknown."""
    nothing = np.zeros(len(columns["age_lo"]), dtype=np.int64)
    label = by.removeprefix("age").removeprefix("_")
    subgroup = label_codes(columns, label) if label else nothing
    age = label_codes(columns, "age") if by.startswith("age") else nothing
    count = torch.zeros(len(subgroup), dtype=torch.float64)
    for code in np.unique(subgroup[subgroup != UNKNOWN]):
        rows = (subgroup == code) & (age != UNKNOWN)
        ages = torch.from_numpy(np.bincount(age[rows], frequency[rows], minlength=MAX_AGE + 1))
        count[rows] = (smoothed_counts(ages) if by.startswith("age") else ages).double()[age[rows]]
    return count
