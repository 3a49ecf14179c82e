"""Commands that make one checkpoint of several."""

from collections.abc import Callable
from pathlib import Path

from jsonargparse import ArgumentParser

from mivolo_lite.cli.options import parser_of


def combining_parser(command: str, run: Callable, which: str) -> ArgumentParser:
    """The parser of checkpoints and ``--out``.

    Args:
        command, run: its name and its function, for the help.
        which: checkpoints may be given, for the help.
    """
    parser = parser_of(command, run)
    parser.add_argument("checkpoints", type=str, nargs="+", help=which)
    parser.add_argument("--out", type=str, required=True, help="folder to create")
    return parser


def tell_next_step(out: Path) -> None:
    """Print where the one is, and how it is evaluated."""
    print(f"written to {out}; next: mivolo-lite evaluate --checkpoint {out} --data DIR --out DIR")
