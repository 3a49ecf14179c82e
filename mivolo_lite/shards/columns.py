"""Labels as the columns of an index."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from mivolo_lite.labels import GENDERS, IDENTITY, NO_CODE, NUMBERS
from mivolo_lite.shards.sample import Labels

EXTRA = "extra."
"""Prefix of the columns of other fields of the samples' JSON."""

MOST_COLUMNS = 1000
"""Most extra columns of an index. Without a limit, JSON with different names in each sample makes one for each."""

_LARGEST = 1e30


def label_columns(labels: Sequence[Labels]) -> dict[str, np.ndarray]:
    """``age_lo``, ``age_hi`` and ``gender`` as ``ShardIndex`` has them."""
    ages = np.array([label.age or (np.nan, np.nan) for label in labels], dtype=np.float32)
    genders = [NO_CODE if label.gender is None else GENDERS.index(label.gender) for label in labels]
    return {"age_lo": ages[:, 0].copy(), "age_hi": ages[:, 1].copy(), "gender": np.array(genders, dtype=np.uint8)}


def extra_columns(labels: Sequence[Labels]) -> tuple[dict[str, np.ndarray], dict[str, list[str]], list[str]]:
    """Columns of the other fields of the samples' JSON that hold a number or one of a few words.

    Returns:
        ``extra.<name>``: (N,) float32, a number, or the index of a word in its list; NaN where unknown.
        The words of names that have them, sorted. Names with more words than a task can have classes are left out,
        except ``IDENTITY``: its column numbers the people without a list of words, up to the 16 million that float32
        can count. Of more than ``MOST_COLUMNS`` names, the most frequent are kept.
        The names that are left out because some samples have a number and some a word.
    """
    columns, words = {}, {}
    by_name = _values_by_name(labels)
    values_of = {name: values for name, values in by_name.items() if _is_label(name, values.values())}
    mixed = sorted(name for name in by_name.keys() - values_of.keys() if _is_mixed(by_name[name].values()))
    by_count = sorted(values_of, key=lambda name: (-len(values_of[name]), name))
    for name in sorted(by_count[:MOST_COLUMNS]):
        values = values_of[name]
        if name == IDENTITY:
            values = {sample: str(value) for sample, value in values.items()}
        if any(isinstance(value, str) for value in values.values()):
            choices = sorted(set(values.values()))
            codes = {choice: code for code, choice in enumerate(choices)}
            values = {sample: codes[value] for sample, value in values.items()}
            if name != IDENTITY:
                words[name] = choices
        column = columns[EXTRA + name] = np.full(len(labels), np.nan, dtype=np.float32)
        column[list(values)] = list(values.values())
    return columns, words, mixed


def _values_by_name(labels: Sequence[Labels]) -> dict[str, dict[int, Any]]:
    """{name: {sample: value}}: in one pass, since each sample of ten thousand may have names of its own."""
    by_name: dict[str, dict[int, Any]] = {}
    for sample, label in enumerate(labels):
        for name, value in label.extra.items():
            value = number_of(value) if name in NUMBERS else value
            if finite_or_none(value) is not None:
                by_name.setdefault(name, {})[sample] = value
    return by_name


def number_of(value: Any) -> Any:
    """Text as a number if it is one, None for empty text, and any other value unchanged."""
    if not isinstance(value, str) or "_" in value:  # Python reads 4_6 as 46
        return value
    try:
        return float(value) if value.strip() else None
    except ValueError:
        return value


def _is_label(name: str, values: Collection[Any]) -> bool:
    """Whether the values are numbers, or few enough words; the number of identities has no limit."""
    if name == IDENTITY:
        return True
    if all(isinstance(value, str) for value in values):
        return len(set(values)) < NO_CODE
    return all(isinstance(value, int | float) and abs(value) < _LARGEST for value in values)


def _is_mixed(values: Collection[Any]) -> bool:
    """Whether some values are numbers and some words."""
    has_words = any(isinstance(value, str) for value in values)
    return has_words and any(isinstance(value, int | float) for value in values)


def finite_or_none(value: Any) -> Any:
    """The label, or None for NaN and infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
