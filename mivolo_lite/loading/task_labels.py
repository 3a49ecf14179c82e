"""Labels of tasks in addition to age and gender, as numbers: what a run asks of the samples' JSON.

A task with classes reads a label as its place among them, be it their name or that place itself; a task without reads
the number that the label is. An embedding reads ``identity``, as the number that the index gave the person. Unknown is
NaN, as in an index.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np

from mivolo_lite.errors import UserError
from mivolo_lite.labels import IDENTITY, NO_CODE
from mivolo_lite.shards.columns import EXTRA
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample import Labels

Classes = Mapping[str, Sequence[str] | None]
"""The classes of every task by its name; empty where the label is a number, None where it is who is in the image.
``group`` is the sample's own group."""


def task_columns(index: ShardIndex, classes: Classes) -> dict[str, np.ndarray]:
    """(N,) float32 labels of every task. Raises UserError where a label is not what its task expects."""
    return {
        name: identities(index) if choices is None else _column(index, name, choices)
        for name, choices in classes.items()
    }


def identities(index: ShardIndex) -> np.ndarray:
    """(N,) float32: the number of the person in each sample, from 0 on without a gap; NaN where unknown."""
    column = index.columns.get(EXTRA + IDENTITY)
    return np.full(len(index), np.nan, dtype=np.float32) if column is None else column


def count_people(index: ShardIndex) -> int:
    """How many people the samples are told to be of; an index from before they were counted has none."""
    return index.info["labels"].get(IDENTITY, {"people": 0})["people"]


def training_columns(indexes: Sequence[ShardIndex], classes: Classes) -> dict[str, np.ndarray]:
    """``task_columns`` of several data sets, one set after the other; a set may lack any of the labels.

    People are numbered through the sets: nobody is taken to be in two of them.

    Raises:
        UserError: a label is not what its task expects, or not one sample of any set has a label of some task.
    """
    columns = [task_columns(index, classes) for index in indexes]
    before = list(accumulate(map(count_people, indexes), initial=0))
    concatenated = {
        name: np.concatenate(
            [of_set[name] + (people if choices is None else 0) for of_set, people in zip(columns, before, strict=False)]
        )
        for name, choices in classes.items()
    }
    for name, column in concatenated.items():
        if np.isnan(column).all():
            label, where = (
                IDENTITY if classes[name] is None else name,
                ", ".join(str(index.folder) for index in indexes),
            )
            raise UserError(
                f"{where}: no sample's JSON has a {label!r}, or some say it in numbers and some in words; leave the "
                "task out, or mend the labels and index again"
            )
    return concatenated


def label_number(labels: Labels, name: str, choices: Sequence[str]) -> float:
    """One sample's label. Raises ValueError where it is not what its task expects."""
    return _number(labels.group if name == "group" else labels.extra.get(name), choices)


def _column(index: ShardIndex, name: str, choices: Sequence[str]) -> np.ndarray:
    column, words = index.columns.get(EXTRA + name), index.info.get("words", {}).get(name)
    if name == "group":
        codes = index.columns["group"]
        column, words = np.where(codes == NO_CODE, np.nan, codes), index.groups
    found = np.full(len(index), np.nan, dtype=np.float32)
    if column is None:
        return found
    known = ~np.isnan(column)
    values, place = np.unique(column[known], return_inverse=True)
    try:
        numbers = [_number(words[int(value)] if words else value, choices) for value in values.tolist()]
    except ValueError as error:
        raise UserError(f"{index.folder}: task {name}: {error}") from None
    found[known] = np.array(numbers, dtype=np.float32)[place]
    return found


def _number(value, choices: Sequence[str]) -> float:
    if value is None:
        return math.nan
    name = f"{value:g}" if isinstance(value, float) else str(value)  # before its place: a class may be named 1
    if name in choices:
        return float(list(choices).index(name))
    number = value if isinstance(value, int | float) else math.nan
    if choices and number in range(len(choices)) or not choices and math.isfinite(number):
        return float(number)
    expected = f"one of its classes {', '.join(choices)}, nor the place of one" if choices else "a number"
    raise ValueError(f"{value!r:.50} is not {expected}")
