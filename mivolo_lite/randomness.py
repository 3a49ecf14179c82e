"""Random numbers as pure functions of integers, the same on every machine and in every version.

Generators have a state that ranks and workers would have to share; a hash of (seed, epoch, sample) has none.
"""

from typing import Any

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hash_of(*values: Any) -> np.ndarray:
    """uint64 hash of integers, or of arrays of them element by element (SplitMix64, Steele et al., OOPSLA 2014)."""
    state = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for value in values:
            state = _mix(state ^ np.asarray(value).astype(np.uint64))
    return state


def uniform_of(*values: Any) -> np.ndarray:
    """float64 in [0, 1) from integers, or from arrays of them element by element."""
    return (hash_of(*values) >> np.uint64(11)) * 2.0**-53


def permutation_of(items: np.ndarray, *key: Any) -> np.ndarray:
    """``items`` in a random order that depends only on them and on ``key``.

    numpy's generators may change between versions; a hash and a stable sort do not.
    """
    return items[np.argsort(hash_of(*key, items), kind="stable")]


def seed_of(*values: Any) -> int:
    """A seed for torch from integers: 63 bits."""
    return int(hash_of(*values)) >> 1


def _mix(state: np.ndarray) -> np.ndarray:
    state = state + _GOLDEN
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
