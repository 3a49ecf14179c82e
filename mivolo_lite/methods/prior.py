"""The prior of the ages, from the counts of the training data."""

import torch
from torch import Tensor

WIDTH = 3.0
"""Years over which the counts of the ages are spread: labels heap at round ages, people do not."""


def smoothed_counts(age_counts: Tensor) -> Tensor:
    """(A,) float32: counts of the ages (A,) spread by a Gaussian, and one sample more over all ages, so none is 0."""
    years = torch.arange(len(age_counts), dtype=torch.float32, device=age_counts.device)
    spread = (-0.5 * ((years[:, None] - years) / WIDTH).square()).softmax(-1)
    return age_counts.float() @ spread + 1 / len(age_counts)
