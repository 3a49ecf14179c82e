"""Commands that make one checkpoint of several."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mivolo_lite.cli.options import parse, parser_of


def checkpoints_and_out(argv: Sequence[str], command: str, run: Callable, which: str) -> tuple[list[str], str]:
    """The checkpoints of a command line, and its ``--out``.

    Args:
        argv: the command's words.
        command, run: its name and its function, for the help.
        which: checkpoints may be given, for the help.
    """
    parser = parser_of(command, run)
    parser.add_argument("checkpoints", type=str, nargs="+", help=which)
    parser.add_argument("--out", type=str, required=True, help="the folder to write; must not exist")
    options = parse(parser, argv)
    return options["checkpoints"], options["out"]


def tell_next_step(out: Path) -> None:
    """Print where the one is, and how it is evaluated."""
    print(f"written to {out}; next: mivolo-lite evaluate --checkpoint {out} --data DIR --out DIR")
