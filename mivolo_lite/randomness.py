"""Random numbers as a pure function of where they are needed, the same on every machine and in every version.

Generators carry a state that ranks and workers would have to share; a hash of (seed, epoch, sample) carries none.
"""

from typing import Any

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hash_of(*parts: Any) -> np.ndarray:
    """uint64 hash of integers, or of arrays of them element by element (SplitMix64, Steele et al., OOPSLA 2014)."""
    state = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = _mix(state ^ np.asarray(part).astype(np.uint64))
    return state


def permutation_of(numbers: np.ndarray, *parts: Any) -> np.ndarray:
    """``numbers`` in a random order that depends on them and on ``parts`` alone.

    numpy's own generators may change their streams between versions; a hash and a stable sort do not.
    """
    return numbers[np.argsort(hash_of(*parts, numbers), kind="stable")]


def seed_of(*parts: Any) -> int:
    """A seed for torch from integers: 63 bits."""
    return int(hash_of(*parts)) >> 1


def _mix(state: np.ndarray) -> np.ndarray:
    state = state + _GOLDEN
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
