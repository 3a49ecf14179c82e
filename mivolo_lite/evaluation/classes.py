"""Ages known as ranges: which of the data set's age groups an estimate falls into."""

import numpy as np


def class_accuracy(age: np.ndarray, lo: np.ndarray, hi: np.ndarray) -> dict | None:
    """How often the estimate is in the true age group, as FairFace (9 groups) and Adience (8) are judged.

    The groups are the ranges that occur. They are in completed years, so ``3-9`` holds 9.9; an estimate between two
    groups with a gap counts for the nearer one.

    Args:
        age: (N,) estimates, NaN where there is none.
        lo, hi: (N,) true ranges, NaN where unknown; exactly known ages are left out.

    Returns:
        ``n``, ``accuracy``, ``one_off`` (at most one group away) and ``classes``; None where fewer than two ranges
        occur, or some overlap.
    """
    ranged = ~np.isnan(age) & (lo < hi)
    classes = np.unique(np.stack([lo[ranged], hi[ranged]], axis=1), axis=0)
    if len(classes) < 2 or (classes[1:, 0] <= classes[:-1, 1]).any():
        return None
    borders = (classes[:-1, 1] + 1 + classes[1:, 0]) / 2
    away = np.abs(np.searchsorted(borders, age[ranged], side="right") - np.searchsorted(classes[:, 0], lo[ranged]))
    return {
        "n": int(ranged.sum()),
        "accuracy": float((away == 0).mean()),
        "one_off": float((away <= 1).mean()),
        "classes": [f"{first:g}-{last:g}" for first, last in classes],
    }
