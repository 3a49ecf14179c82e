"""The prior of the ages, from the counts of the training data."""

import torch
from torch import Tensor

WIDTH = 3.0
"""Standard deviation in years of the smoothing of age counts, since labels heap at round ages."""


def smoothed_counts(age_counts: Tensor) -> Tensor:
    """(A,) float32: counts of the ages (A,) smoothed by a Gaussian, plus one sample over all ages, so that none is
    0."""
    years = torch.arange(len(age_counts), dtype=torch.float32, device=age_counts.device)
    spread = (-0.5 * ((years[:, None] - years) / WIDTH).square()).softmax(-1)
    return age_counts.float() @ spread + 1 / len(age_counts)
