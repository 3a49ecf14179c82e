"""Labels of tasks in addition to age and gender, as numbers, from the samples' JSON.

A task with classes reads a label as the index of its class, given by name or as that index; a task without reads a
number. An embedding reads ``identity``, as the number that the index gave the person. Unknown is NaN, as in an index.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from mivolo_lite.errors import UserError
from mivolo_lite.labels import AGE_STD, IDENTITY, NO_CODE, NUMBERS
from mivolo_lite.shards.columns import EXTRA, number_of
from mivolo_lite.shards.concat import ConcatIndex
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample import Labels

Classes = Mapping[str, Sequence[str] | None]
"""The classes of every task by its name; empty if the label is a number, None if it is the identity.
``group`` is the sample's own group."""


def task_columns(index: ShardIndex, classes: Classes) -> dict[str, np.ndarray]:
    """(N,) float32 labels of every task. Raises UserError where a label is not what its task expects."""
    columns = {}
    for name, choices in classes.items():
        try:
            columns[name] = task_column(index, name, choices)
        except ValueError as error:
            raise UserError(f"{index.folder}: task {name}: {error}") from None
    return columns


def task_column(index: ShardIndex, name: str, choices: Sequence[str] | None) -> np.ndarray:
    """(N,) float32 labels of one task. Raises ValueError where a label is not what the task expects."""
    if choices is None:
        return identities(index)
    column, words = index.columns.get(EXTRA + name), index.info.get("words", {}).get(name)
    if name == "group":
        codes = index.columns["group"]
        column, words = np.where(codes == NO_CODE, np.nan, codes), index.groups
    labels = np.full(len(index), np.nan, dtype=np.float32)
    if column is None:
        return labels
    is_known = ~np.isnan(column)
    values, inverse = np.unique(column[is_known], return_inverse=True)
    label_values = [_label_value(words[int(value)] if words else value, choices) for value in values.tolist()]
    labels[is_known] = np.array(label_values, dtype=np.float32)[inverse]
    return labels


def identities(index: ShardIndex) -> np.ndarray:
    """(N,) float32: the number of the person in each sample, from 0 on without a gap; NaN where unknown."""
    column = index.columns.get(EXTRA + IDENTITY)
    return np.full(len(index), np.nan, dtype=np.float32) if column is None else column


def age_stds(index: ShardIndex | ConcatIndex) -> np.ndarray | None:
    """(N,) float32 standard deviations of the ages in years, NaN where unknown; None where no sample has one."""
    indexes = index.indexes if isinstance(index, ConcatIndex) else [index]
    columns = [
        None if AGE_STD in data_set.info.get("words", {}) else data_set.columns.get(EXTRA + AGE_STD)
        for data_set in indexes
    ]
    if all(column is None for column in columns):
        return None
    if len(columns) == 1:
        return columns[0]
    unknown = (np.full(len(data_set), np.nan, dtype=np.float32) for data_set in indexes)
    return np.concatenate([nans if column is None else column for column, nans in zip(columns, unknown, strict=True)])


def training_columns(indexes: Sequence[ShardIndex], classes: Classes) -> dict[str, np.ndarray]:
    """``task_columns`` of several data sets, one set after the other; a set may lack any of the labels.

    Identities are numbered through the sets: no person counts as being in two of them.

    Raises:
        UserError: a label is not what its task expects, or not one sample of any set has a label of some task.
    """
    columns = [task_columns(index, classes) for index in indexes]
    before = list(accumulate((index.num_identities for index in indexes), initial=0))
    concatenated = {
        name: np.concatenate(
            [
                set_columns[name] + (people if choices is None else 0)
                for set_columns, people in zip(columns, before, strict=False)
            ]
        )
        for name, choices in classes.items()
    }
    for name, column in concatenated.items():
        if np.isnan(column).all():
            label = IDENTITY if classes[name] is None else name
            folders = ", ".join(str(index.folder) for index in indexes)
            raise UserError(
                f"{folders}: no sample's JSON has a {label!r}, or some say it in numbers and some in words; leave the "
                "task out, or fix the labels and index again"
            )
    return concatenated


def label_number(labels: Labels, name: str, choices: Sequence[str]) -> float:
    """One sample's label. Raises ValueError where it is not what its task expects."""
    value = labels.group if name == "group" else labels.extra.get(name)
    return _label_value(number_of(value) if name in NUMBERS else value, choices)


def _label_value(value: Any, choices: Sequence[str]) -> float:
    if value is None:
        return math.nan
    name = f"{value:g}" if isinstance(value, float) else str(value)  # before its place: a class may be named 1
    if name in choices:
        return float(choices.index(name))
    numeric = value if isinstance(value, int | float) else math.nan
    if numeric in range(len(choices)) if choices else math.isfinite(numeric):
        return float(numeric)
    expected = f"one of its classes {', '.join(choices)}, nor the place of one" if choices else "a number"
    raise ValueError(f"{value!r:.50} is not {expected}")
