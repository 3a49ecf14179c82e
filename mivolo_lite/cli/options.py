"""How a command's options are read."""

import re
from argparse import Action
from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from mivolo_lite.errors import UserError, one_line
from mivolo_lite.old_names import current_option
from mivolo_lite.option_help import SECTION, TypesInWords, type_of
from mivolo_lite.option_values import describe
from mivolo_lite.paths import expand_path, expand_pattern, local_path
from mivolo_lite.wording import did_you_mean

_INPUTS = (
    "checkpoint", "checkpoints", "data", "exclude", "folder", "folders", "source", "sources", "boxes", "detector",
    "persons",
)  # fmt: skip
_OUTPUTS = ("out", "fix")
"""Options that are paths; the sources' own have the type Path."""


_WRONG_VALUE = re.compile(r'Parser key "([^"]+)"')
_MISSING, _UNKNOWN = "the following arguments are required: ", "unrecognized arguments: "
"""How errors of jsonargparse begin."""


def parser_of(command: str, function: Callable) -> ArgumentParser:
    """A parser of a command's options; ``function`` says in its docstring what the command does."""
    return ArgumentParser(
        prog=f"mivolo-lite {command}", description=function.__doc__, exit_on_error=False, formatter_class=TypesInWords
    )


def parse(parser: ArgumentParser, argv: Sequence[str]) -> dict:
    """The options by name, paths expanded. Dashes and underscores in their names are the same."""
    command = parser.prog.removeprefix("mivolo-lite ")
    words = [_underscored(word) if word.startswith("--") else word for word in argv]
    try:
        options = vars(parser.parse_args(words))
    except (ArgumentError, ValueError) as error:  # ValueError: of text that is no Unicode
        raise UserError(f"{command}: {_explained(one_line(error), parser, words)}") from None
    actions = _actions(parser)
    return {name: _read(name, value, f"{command}: {_written(actions[name])}") for name, value in options.items()}


def _actions(parser: ArgumentParser) -> dict[str, Action]:
    return {action.dest: action for action in parser._actions}


def _written(action: Action) -> str:
    """An option as users write it; of a positional argument, its name."""
    return action.option_strings[0] if action.option_strings else action.dest


def _explained(error: str, parser: ArgumentParser, words: Sequence[str]) -> str:
    """What jsonargparse says of a command line, in the words of the command line."""
    actions = _actions(parser)
    if (match := _WRONG_VALUE.match(error)) and match[1] in actions:
        action = actions[match[1]]
        shown = " ".join([_written(action), *_values(words, _written(action))])
        kind = type_of(action)
        return f"{shown}: give {describe(kind) if kind else SECTION}"
    if error.startswith(_MISSING):
        missing = error.removeprefix(_MISSING).split(", ")
        return f"{', '.join(_written(actions[name]) for name in missing)}: missing; see {parser.prog} --help"
    if error.startswith(_UNKNOWN):
        unknown = error.removeprefix(_UNKNOWN)
        first = next((word.partition("=")[0] for word in unknown.split() if word.startswith("--")), "")
        return f"{unknown}: not understood{did_you_mean(first, parser._option_string_actions)}"
    return error.removeprefix("argument ")


def _values(words: Sequence[str], option: str) -> Iterator[str]:
    """What a command line gives an option."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == option:
            yield value if equals else after


def parse_known(parser: ArgumentParser, argv: Sequence[str], known: Sequence[str]) -> tuple[dict, list[str]]:
    """The options that are ``known`` by name, as ``parse`` gives them, and the words that are left, such as train's."""
    matched: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name = _underscored(word).removeprefix("--").partition("=")[0] if word.startswith("--") else ""
        mine = name in known or word in ("-h", "--help")
        (matched if mine else rest).append(word)
        if name and "=" not in word and (value := next(words, None)) is not None:
            (matched if mine else rest).append(value)
    return parse(parser, matched), rest


def _read(name: str, value: Any, option: str) -> Any:
    """An option's value, with ``~`` and ``$VARIABLES`` of a path replaced. Raises UserError for what is no number."""
    if isinstance(value, list):
        values = [_read(name, item, option) for item in value]
        return [path for pattern in values for path in expand_pattern(pattern)] if name in _INPUTS else values
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
