"""Common parts of messages: counts, lists of names, and suggestions for unknown names."""

import difflib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_LONGEST = 100  # characters of a name


def count_of(number: int, noun: str, plural: str = "") -> str:
    """``1 sample``, ``2 samples``, ``3 bodies``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def images_of(row: Mapping[str, Any]) -> str:
    """``n=825``, or ``825 images of 69 people`` if the row of figures has ``people``."""
    if "people" not in row:
        return f"n={row['n']}"
    return f"{count_of(row['n'], 'image')} of {count_of(row['people'], 'person', 'people')}"


def percent(share: float) -> str:
    """``90%``, ``97.5%``: with as many digits as the share."""
    return f"{100 * share:g}%"


def first_few(names: Sequence[str], limit: int = 3) -> str:
    """The first few names, shortened, and the number of others."""
    listed = ", ".join(name[:_LONGEST] for name in names[:limit])
    return f"{listed} and {len(names) - limit} more" if len(names) > limit else listed


def did_you_mean(word: str, names: Iterable[str], otherwise: str = "", most: int = 1) -> str:
    """The end of an error about an unknown name: the closest names, or ``otherwise`` if none is close."""
    names = list(names)
    group = os.path.commonprefix([word, *names]).rpartition(".")[0]  # which would make all of its options close
    cut = len(group) + 1 if group else 0
    typed = word[cut : cut + _LONGEST]
    close = difflib.get_close_matches(typed, [name[cut:] for name in names], n=most + 2)
    # Swapped letters are the most frequent mistake, but have a low difflib ratio: of close names, those with the same
    # letters come first.
    close.sort(key=lambda name: _letters_apart(typed, name))
    close = [word[:cut] + name for name in close[:most]]
    hint = f"did you mean {', '.join(close)}?" if close else otherwise
    return f"; {hint}" if hint else ""


def _letters_apart(one: str, other: str) -> int:
    """The number of letters that only one of two words has, in any order."""
    counts = Counter(one)
    counts.subtract(other)
    return sum(map(abs, counts.values()))
