"""Accuracy on ages known as ranges: which age group of the data set an estimate falls into."""

from typing import Any

import numpy as np

from mivolo_lite.evaluation.intervals import LIMIT, Identity, as_pair, select, share_interval
from mivolo_lite.evaluation.metrics import age_errors

_FAIRFACE = ((0, 2), (3, 9), (10, 19), (20, 29), (30, 39), (40, 49), (50, 59), (60, 69), (70, 100))
_ADIENCE = ((0, 2), (4, 6), (8, 12), (15, 20), (25, 32), (38, 43), (48, 53), (60, 100))
MIVOLO_STARTS = {_FAIRFACE: (0, 3, 10, 20, 30, 40, 50, 60, 70), _ADIENCE: (0, 4, 7, 14, 24, 36, 46, 57)}
"""The first year of each group in MiVOLO's evaluation, which rounds estimates."""


def class_accuracy(age: np.ndarray, lo: np.ndarray, hi: np.ndarray, identity: Identity = None) -> dict | None:
    """Accuracy over age groups, the metric of FairFace (9 groups) and Adience (8).

    The groups are the ranges that occur; samples with an exact age are left out. Ranges are in completed years, so
    ``3-9`` contains 9.9. Every estimate belongs to a group: in a gap between two (Adience has no group for 3 and 7) to
    the nearer one, or the older if both are equally near; below the first to the first, and above the last to the last.

    MiVOLO rounds the estimate to whole years instead, and has a first year for each group of FairFace and of Adience
    (``MIVOLO_STARTS``). If the ranges are of one of these, its two figures are added under ``mivolo``, for comparison
    with its paper.

    Args:
        age: (N,) estimates, NaN where there is none.
        lo, hi: (N,) true ranges, NaN where unknown.
        identity: who is in each image.

    Returns:
        ``n``, ``accuracy``, ``one_off`` (share within one group), ``distance`` (mean distance in years to the labelled
        range, as in the MAE: 9.9 is 0.9 from ``3-9``, though correct), a 95 % ``accuracy_interval`` and
        ``one_off_interval``, ``classes`` and the same ``by`` class, without figures for fewer than ``LIMIT``. None for
        fewer than two ranges, or if some overlap.
    """
    ranged = ~np.isnan(age) & (lo < hi)
    age, lo, hi, identity = age[ranged], lo[ranged], hi[ranged], select(identity, ranged)
    classes, true = np.unique(np.stack([lo, hi], axis=1), axis=0, return_inverse=True)
    if len(classes) < 2 or (classes[1:, 0] <= classes[:-1, 1]).any():
        return None
    borders = (classes[:-1, 1] + 1 + classes[1:, 0]) / 2
    away = np.abs(np.searchsorted(borders, age, side="right") - true)
    distance = np.abs(age_errors(age, lo, hi))
    names = [f"{lowest:g}-{highest:g}" for lowest, highest in classes]
    masks = {name: true == index for index, name in enumerate(names)}
    by = {name: _row(away[use], distance[use], select(identity, use), LIMIT) for name, use in masks.items()}
    mivolo = _mivolo_row(age, lo, hi, identity)
    return _row(away, distance, identity) | {"classes": names, "by": by} | ({"mivolo": mivolo} if mivolo else {})


def _mivolo_row(age: np.ndarray, lo: np.ndarray, hi: np.ndarray, identity: Identity) -> dict | None:
    ranges = list(zip(lo.tolist(), hi.tolist(), strict=True))
    groups = next((groups for groups in MIVOLO_STARTS if set(ranges) <= set(groups)), None)
    if groups is None:
        return None
    true = np.array([groups.index(pair) for pair in ranges])
    away = np.abs(np.searchsorted(MIVOLO_STARTS[groups], np.round(age), side="right") - 1 - true)
    row = _row(away, np.zeros(len(away)), identity)
    return {name: value for name, value in row.items() if name != "distance"}


def _row(away: np.ndarray, distance: np.ndarray, identity: Identity, limit: int = 1) -> dict:
    row: dict[str, Any] = {"n": len(away)}
    if len(away) < limit:
        return row | dict.fromkeys(("accuracy", "one_off", "accuracy_interval", "one_off_interval", "distance"))
    for name, hits in (("accuracy", away == 0), ("one_off", away <= 1)):
        row |= {name: float(hits.mean()), f"{name}_interval": as_pair(share_interval(hits, identity=identity))}
    return row | {"distance": float(distance.mean())}
