"""Types of options that are numbers within bounds, after click's ``IntRange`` and ``FloatRange``.

Every number has both bounds: an infinite or absurdly large one would be noticed hours later, or take all memory.
"""

from functools import cache
from math import isfinite

from jsonargparse.typing import extend_base_type

MANY = 10**9
"""More than anybody counts, of steps, samples or epochs."""


@cache
def int_range(low: int, high: int = MANY) -> type:
    """Whole numbers from ``low`` to ``high``, both included."""
    return _range(int, f"a whole number from {low} to {high}", lambda value: low <= value <= high)


@cache
def float_range(low: float, high: float = MANY, low_open: bool = False, high_open: bool = False) -> type:
    """Finite numbers from ``low`` to ``high``, included unless a side is open."""

    def inside(value: float) -> bool:
        return (
            isfinite(value) and low <= value <= high and not (low_open and value == low or high_open and value == high)
        )

    above = f"above {low:g}" if low_open else f"from {low:g}"
    below = f"below {high:g}" if high_open else f"at most {high:g}"
    return _range(
        float, f"a number {above} and {below}" if low_open or high_open else f"a number {above} to {high:g}", inside
    )


def _range(base: type, words: str, inside) -> type:
    def validate(cls, value) -> None:
        whole = base is float or not isinstance(value, float) or value.is_integer()
        if isinstance(value, bool) or not whole or not inside(base(value)):
            raise ValueError(f"give {words}")

    return extend_base_type(words, base, validate, docstring=words, register_key=(base, words))


Probability = float_range(0, 1)
"""From 0 to 1, both included."""
