"""How a command's options are read."""

from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from mivolo_lite.errors import UserError
from mivolo_lite.old_names import current_option
from mivolo_lite.paths import expand_path, local_path

_INPUTS, _OUTPUTS = (
    (
        "checkpoint",
        "checkpoints",
        "data",
        "exclude",
        "folder",
        "folders",
        "source",
        "sources",
        "boxes",
        "detector",
        "persons",
    ),
    ("out", "fix"),
)
"""Options that are paths; the sources' own have the type Path."""


def parser_of(command: str, function: Callable) -> ArgumentParser:
    """A parser of a command's options; ``function`` says in its docstring what the command does."""
    return ArgumentParser(prog=f"mivolo-lite {command}", description=function.__doc__, exit_on_error=False)


def parse(parser: ArgumentParser, argv: Sequence[str]) -> dict:
    """The options by name, paths expanded. Dashes and underscores in their names are the same."""
    command = parser.prog.removeprefix("mivolo-lite ")
    try:
        options = vars(parser.parse_args([_underscored(word) if word.startswith("--") else word for word in argv]))
    except (ArgumentError, ValueError) as error:  # ValueError: of text that is no Unicode
        raise UserError(f"{command}: {' '.join(str(error).split())}") from None
    return {name: _read(name, value, f"{command}: --{name}") for name, value in options.items()}


def parse_known(parser: ArgumentParser, argv: Sequence[str], known: Sequence[str]) -> tuple[dict, list[str]]:
    """The options that are ``known`` by name, as ``parse`` gives them, and the words that are left, such as train's."""
    own: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name = _underscored(word).removeprefix("--").partition("=")[0] if word.startswith("--") else ""
        mine = name in known or word in ("-h", "--help")
        (own if mine else rest).append(word)
        if name and "=" not in word and (value := next(words, None)) is not None:
            (own if mine else rest).append(value)
    return parse(parser, own), rest


def _read(name: str, value: Any, option: str) -> Any:
    """An option's value, with ``~`` and ``$VARIABLES`` of a path replaced. Raises UserError for what is no number."""
    if isinstance(value, list):
        return [_read(name, item, option) for item in value]
    if isinstance(value, float) and not isfinite(value):
        raise UserError(f"{option} {value}: give a finite number")
    if isinstance(value, Path):
        return Path(expand_path(str(value), option))
    if isinstance(value, str) and name in _INPUTS:
        return expand_path(value, option)
    return local_path(value, option) if isinstance(value, str) and name in _OUTPUTS else value


def _underscored(option: str) -> str:
    name, equals, value = option[2:].partition("=")
    return f"--{current_option(name.replace('-', '_'))}{equals}{value}"
