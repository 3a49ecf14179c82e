"""Labels as the columns of an index."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mivolo_lite.data.labels import GENDERS, IDENTITY, NO_CODE
from mivolo_lite.data.sample import Labels

EXTRA = "extra."
"""Prefix of the columns of what else the samples' JSON says."""

_LARGEST = 1e30


def label_columns(labels: Sequence[Labels]) -> dict[str, np.ndarray]:
    """``age_lo``, ``age_hi`` and ``gender`` as ``ShardIndex`` has them."""
    ages = np.array([label.age or (np.nan, np.nan) for label in labels], dtype=np.float32)
    genders = [NO_CODE if label.gender is None else GENDERS.index(label.gender) for label in labels]
    return {"age_lo": ages[:, 0].copy(), "age_hi": ages[:, 1].copy(), "gender": np.array(genders, dtype=np.uint8)}


def extra_columns(labels: Sequence[Labels]) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """What else the samples' JSON says, where it is a number or one of a few words.

    Returns:
        ``extra.<name>``: (N,) float32, a number, or the place of a word in its list; NaN where unknown.
        The words of names that have them, sorted. A name with more words than a task could have classes is left out,
        but for the people of ``IDENTITY``: the column numbers them, however many they are (float32 counts to 16
        million), and nobody lists them.
    """
    columns, words = {}, {}
    for name in sorted({name for label in labels for name in label.extra}):
        values = [said(label.extra.get(name)) for label in labels]
        known = [value for value in values if value is not None]
        if known and name == IDENTITY:
            people = [None if value is None else str(value) for value in values]
            columns[EXTRA + name] = _places(people, sorted({person for person in people if person is not None}))
        elif known and all(isinstance(value, str) for value in known) and len(set(known)) < NO_CODE:
            words[name] = sorted(set(known))
            columns[EXTRA + name] = _places(values, words[name])
        elif known and all(isinstance(value, int | float) and abs(value) < _LARGEST for value in known):
            columns[EXTRA + name] = np.array(values, dtype=np.float32)
    return columns, words


def said(value: Any) -> Any:
    """A label, or None for a number that is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _places(values: Sequence[Any], choices: Sequence[Any]) -> np.ndarray:
    """(N,) float32: where each value stands among the choices, NaN where it does not."""
    places = {choice: place for place, choice in enumerate(choices)}
    return np.array([places.get(value, np.nan) for value in values], dtype=np.float32)
