"""Subgroups of the training data by their labels."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from mivolo_lite.labels import GENDERS, NO_CODE
from mivolo_lite.shards.index import ShardIndex

By = Literal["none", "age", "gender", "group", "age_gender", "age_group"]
"""The labels that define subgroups; ``group`` is a label of the samples."""

UNKNOWN = -1


def frequencies(indexes: Sequence[ShardIndex], weights: Sequence[float]) -> np.ndarray:
    """(N,) how often the samples of several data sets are used, 1 on average: larger weights mean more passes."""
    sizes = np.array([len(index) for index in indexes])
    return np.repeat(np.array(weights) * sizes.sum() / (sum(weights) * sizes), sizes)


def label_codes(columns: Mapping[str, np.ndarray], label: str) -> np.ndarray:
    """(N,) int64 ages in whole years (the middle of a range), or codes of genders or groups; otherwise ``UNKNOWN``."""
    if label == "age":
        middle = (columns["age_lo"] + columns["age_hi"]) / 2
        return np.where(np.isnan(middle), UNKNOWN, np.rint(np.nan_to_num(middle))).astype(np.int64)
    code = columns[label].astype(np.int64)
    return np.where(code == NO_CODE, UNKNOWN, code)


def subgroups_of(
    columns: Mapping[str, np.ndarray], groups: Sequence[str], by: By, fewest: int = 1
) -> tuple[np.ndarray, list[str]]:
    """The subgroup of every sample, with ages in ten-year bins.

    Args:
        columns, groups: as from ``concat_labels``.
        by: the labels that define the subgroups.
        fewest: samples that make a subgroup; those of smaller ones are in none.

    Returns:
        (N,) int64 index of each sample's subgroup in the names, or ``UNKNOWN``; and the names, such as ``20-29
        Asian``.
    """
    labels = by.split("_")
    codes = np.stack([label_codes(columns, label) // (10 if label == "age" else 1) for label in labels], axis=1)
    is_known = (codes != UNKNOWN).all(axis=1)
    combinations, inverse, count = np.unique(codes[is_known], axis=0, return_inverse=True, return_counts=True)
    large = count >= fewest
    subgroup = np.full(len(codes), UNKNOWN)
    subgroup[is_known] = np.where(large, np.cumsum(large) - 1, UNKNOWN)[inverse.reshape(-1)]
    return subgroup, [_name(labels, row, groups) for row in combinations[large].tolist()]


def _name(labels: Sequence[str], codes: Sequence[int], groups: Sequence[str]) -> str:
    names = {
        "age": lambda decade: f"{10 * decade}-{10 * decade + 9}",
        "gender": lambda code: GENDERS[code],
        "group": lambda code: groups[code],
    }
    return " ".join(names[label](code) for label, code in zip(labels, codes, strict=True))
