"""Parses a value of an option as its type, with an error that describes the type."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, reduce
from operator import or_
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser

from mivolo_lite.errors import UserError
from mivolo_lite.ranges import checked_type

_NO = (False, "off", "Off", "OFF", "No", "NO", "false")
_NULL = ("none", "None", "null", "~", "")
_HASHABLE = (str, bool, int, float, NoneType)
_WORDS = {
    bool: "yes or no",
    int: "a whole number",
    float: "a number",
    str: "text",
    NoneType: "null",
    dict: "{option: value}",
}


def check_value(kind: Any, value: Any) -> Any:
    """The plain value of an option, from a file or the command line.

    Args:
        kind: the option's type: a plain one, a range, a Literal, a list or a union of these.
        value: parsed from YAML, or text.

    Raises:
        ValueError: readable, without the option's name.
    """
    kind = checked_type(kind)
    value = _normalise(kind, value)
    if value is None and NoneType not in _members(kind):
        raise ValueError(f"is empty; give {describe(kind)}, or leave it out")
    try:
        parse = _parse if isinstance(value, _HASHABLE) else _parse.__wrapped__
        return _plain(parse(kind, str(kind), type(value).__name__, value))
    except (ArgumentError, ValueError, TypeError, OverflowError, RecursionError):
        quotes = ", so write it in quotes" if kind is str and not isinstance(value, list | dict) else ""
        raise ValueError(f"{value!r:.80} is not {describe(kind)}{quotes}") from None


def check_options(config: Any, kind: str) -> None:
    """Check the options of a dataclass, which may have any values if created in Python.

    Args:
        config: the dataclass.
        kind: the name of what it configures, for messages.

    Raises:
        UserError: a value is not one of the option's type.
    """
    types = get_type_hints(type(config), include_extras=True)
    for option in fields(config):
        value = getattr(config, option.name)
        try:
            if check_value(types[option.name], value) != value:  # for example a number in quotes
                raise ValueError(f"{value!r:.80} is not {describe(checked_type(types[option.name]))}")
        except ValueError as error:
            raise UserError(f"{kind}.{option.name}: {error}") from None


@cache
def _parse(kind: Any, name: str, value_type: str, value: Any) -> Any:
    """The parsed value, cached, since a run checks its options several times. The type distinguishes 1, True and
    1.0."""
    return _parser(kind, name).parse_object({"value": value}).value


@cache
def _parser(kind: Any, name: str) -> ArgumentParser:
    """A parser of one value. The name distinguishes ``int | str`` and ``str | int``, which are equal types."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    return parser


def build(registry: Mapping[str, Any], options: Mapping[str, Any], kind: str, construct: Callable) -> Any:
    """``construct(cls, cls.Config(...))`` of the class that ``options`` name, with the others checked.

    Args:
        registry: classes by their names, each with its ``Config``.
        options: ``name`` and the fields of that ``Config``.
        kind: of the registry's classes, for messages.
        construct: creates the object.

    Raises:
        UserError: the name or an option is unknown, or a value does not have the option's type.
    """
    options = dict(options)
    name = options.pop("name")
    if name not in registry:
        raise UserError(f"{kind} {name!r} is not known; there are {', '.join(registry)}")
    option_types = {option.name: option.type for option in fields(registry[name].Config)}
    if surplus := [str(option) for option in options if option not in option_types]:
        raise UserError(f"{kind} {name} has no option {', '.join(surplus)}")
    for option, value in options.items():
        try:
            options[option] = check_value(option_types[option], value)
        except ValueError as error:
            raise UserError(f"{kind}.{option}: {error}") from None
    return construct(registry[name], registry[name].Config(**options))


def describe(kind: Any) -> str:
    """A readable description of a type's values."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(choice or 'nothing' for choice in get_args(kind))}"
    if get_origin(kind) is list:
        return f"a list in brackets, each {' or '.join(map(describe, get_args(kind)))}"
    if is_dataclass(kind):
        return f"{{{next(iter(fields(kind))).name}: ..., option: value}}"
    members = _members(kind)
    return (
        " or ".join(map(describe, members)) if len(members) > 1 else _WORDS.get(get_origin(kind) or kind, kind.__doc__)
    )


def without_none(kind: Any) -> Any:
    """The type of an optional value without None."""
    return reduce(or_, (member for member in _members(kind) if member is not NoneType))


def _members(kind: Any) -> tuple:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _normalise(kind: Any, value: Any) -> Any:
    """Replace synonyms, such as ``off`` for ``no`` and ``None`` for ``null``."""
    plain = isinstance(value, str | bool)
    if plain and get_origin(kind) is Literal and "no" in get_args(kind) and value in _NO:
        return "no"
    if plain and NoneType in _members(kind) and value in _NULL:
        return None
    return value


def _plain(value: Any) -> Any:
    """Convert jsonargparse's restricted numbers and texts to plain ones, for YAML and JSON."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    kind = next((kind for kind in (bool, int, float, str) if isinstance(value, kind)), None)
    return value if kind is None else kind(value)


def flat_options(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The options of a configuration as plain values by their dotted names, lists as text."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= flat_options(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = str(value) if isinstance(value, list) else value
    return flat
