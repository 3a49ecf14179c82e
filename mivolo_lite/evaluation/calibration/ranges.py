"""Ages known as ranges, year by year."""

import numpy as np

from mivolo_lite.labels import OLDEST

WIDEST = 50
"""Most years of an informative range: "70+" has 31, "18+" has 83."""


def is_wide(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """(N,) bool: ranges of more than ``WIDEST`` years, which count as unknown ages; False for NaN."""
    return np.minimum(hi, OLDEST) - lo > WIDEST


def years_of(lo: np.ndarray, hi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The possible ages of each person in whole years, all equally likely.

    Args:
        lo, hi: (N,) ends of the ranges, equal for exact ages; no NaN.

    Returns:
        (M,) row of the person, (M,) age in years, and (M,) weight; a person's weights add up to 1.
    """
    count = np.floor(np.minimum(hi, np.maximum(lo, OLDEST)) - lo).astype(np.int64) + 1
    row = np.repeat(np.arange(len(lo)), count)
    place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    return row, lo[row] + place, 1 / count[row]
