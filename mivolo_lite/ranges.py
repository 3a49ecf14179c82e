"""Types of options that are numbers within bounds, after click's ``IntRange`` and ``FloatRange``.

Every number has both bounds, since an infinite or very large value might fail only after hours, or take all memory.
Options are annotated as in ``Annotated[int, int_range(1, 5)]``: type checkers see ``int``, ``check_value`` the range.
"""

from collections.abc import Callable
from dataclasses import field, fields, is_dataclass, make_dataclass
from functools import cache, reduce
from math import isfinite
from operator import or_
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from jsonargparse.typing import extend_base_type, restricted_string_type

MANY = 10**9
"""Upper bound of steps, samples and epochs."""


@cache
def int_range(low: int, high: int = MANY) -> type:
    """Whole numbers from ``low`` to ``high``, both included."""
    return _range(int, f"a whole number from {low} to {high}", lambda value: low <= value <= high)


@cache
def float_range(low: float, high: float = MANY, low_open: bool = False, high_open: bool = False) -> type:
    """Finite numbers from ``low`` to ``high``, both included by default."""

    def inside(value: float) -> bool:
        return (
            isfinite(value) and low <= value <= high and not (low_open and value == low or high_open and value == high)
        )

    above = f"above {low:g}" if low_open else f"from {low:g}"
    below = f"below {high:g}" if high_open else f"at most {high:g}"
    return _range(
        float, f"a number {above} and {below}" if low_open or high_open else f"a number {above} to {high:g}", inside
    )


def _range(base: type, words: str, inside: Callable[[float], bool]) -> type:
    def validate(cls: Any, value: Any) -> None:
        is_integral = base is float or not isinstance(value, float) or value.is_integer()
        if isinstance(value, bool) or not is_integral or not inside(base(value)):
            raise ValueError(f"give {words}")

    return extend_base_type(words, base, validate, docstring=words, register_key=(base, words))


Minutes = Annotated[str, restricted_string_type("Minutes", r"\d+(\.\d+)?min", docstring="minutes, as in 10min")]
"""Text such as ``10min`` or ``0.5min``."""
Probability = Annotated[float, float_range(0, 1)]
"""From 0 to 1, both included."""


def checked_type(annotation: Any) -> Any:
    """The type that checks an option's value: ``int_range(1, 5)`` of ``Annotated[int, int_range(1, 5)]``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return arguments[1]
    if origin in (Union, UnionType):
        return reduce(or_, map(checked_type, arguments))
    return origin[checked_type(*arguments)] if origin is list else annotation


def checked_options(group: Any) -> type:
    """A copy of a dataclass whose options, and those of dataclasses in it, have the types that check them."""
    options = []
    for option in fields(group):
        kind = checked_options(option.type) if is_dataclass(option.type) else checked_type(option.type)
        factory = kind if is_dataclass(kind) else option.default_factory
        options.append((option.name, kind, field(default=option.default, default_factory=factory)))
    copy = make_dataclass(group.__name__, options)
    copy.__doc__ = group.__doc__
    return copy
