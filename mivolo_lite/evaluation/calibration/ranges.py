"""Ages known as ranges, year by year."""

import numpy as np

from mivolo_lite.labels import OLDEST

WIDEST = 50
"""Years of a range that says something of the age: "70+" has 31, "18+" has 83."""


def is_wide(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """(N,) bool: ranges that say too little of the age, so that they count as unknown ages; NaN is none."""
    return np.minimum(hi, OLDEST) - lo > WIDEST


def years_of(lo: np.ndarray, hi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The years that each person may be old, all as likely.

    Args:
        lo, hi: (N,) ends of what is known, equal for exact ages; no NaN.

    Returns:
        (M,) row of the person, (M,) age in years, and (M,) share of this age: those of a person add up to 1.
    """
    count = np.floor(np.minimum(hi, np.maximum(lo, OLDEST)) - lo).astype(np.int64) + 1
    row = np.repeat(np.arange(len(lo)), count)
    place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    return row, lo[row] + place, 1 / count[row]
