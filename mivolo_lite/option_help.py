"""The help of options, with readable types."""

import re
from argparse import Action
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import DefaultHelpFormatter

from mivolo_lite.option_values import describe, without_none

_YES_NO = {"True": "yes", "False": "no"}


class TypesInWords(DefaultHelpFormatter):
    """A help formatter with ``yes or no`` in place of Python's ``bool | null``, and no type for text."""

    def format_help(self) -> str:
        return super().format_help().replace("``", "`")  # docstrings are reStructuredText

    def _get_type_str(self, action: Action) -> str | None:
        kind = type_of(action)
        return None if kind in (None, str, Path) else describe(kind)

    def _metavar_formatter(self, action: Action, default_metavar: str) -> Callable[[int], tuple[str, ...]]:
        if type_of(action) is bool:
            return lambda size: ("{yes,no}",) * size
        return super()._metavar_formatter(action, default_metavar)

    def _expand_help(self, action: Action) -> str:
        text = re.sub(r" \(default: (null)?\)$|, default: (null)?(?=\)$)", "", super()._expand_help(action))
        return re.sub(r"default: (True|False)\)$", lambda found: f"default: {_YES_NO[found[1]]})", text)


SECTION = "options as in '{option: value}'"


def describe_section(action: Action, or_name: bool = False) -> None:
    """Replace jsonargparse's help of a section of options, which is about a configuration file."""
    action.metavar, action.help = "OPTIONS", f"a name, or {SECTION}" if or_name else SECTION


def type_of(action: Action) -> Any:
    """The type of an option's value, without None; None for a switch."""
    kind = getattr(action, "_typehint", None) or action.type
    return without_none(kind) if kind else None
