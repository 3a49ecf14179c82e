"""Commands that make one checkpoint of several."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mivolo_lite.cli.options import parse, parser_of


def combine(
    argv: Sequence[str], command: str, run: Callable, make: Callable[[Sequence[str], str], Path], which: str
) -> None:
    """Parse the checkpoints and ``--out``, make the one, and print what to do next.

    Args:
        argv: the command's words.
        command, run: its name and its function, for the help.
        make: writes it.
        which: checkpoints may be given, for the help.
    """
    parser = parser_of(command, run)
    parser.add_argument("checkpoints", type=str, nargs="+", help=which)
    parser.add_argument("--out", type=str, required=True, help="the folder to write; must not exist")
    options = parse(parser, argv)
    out = make(options["checkpoints"], options["out"])
    print(f"written to {out}; next: mivolo-lite evaluate --checkpoint {out} --data DIR --out DIR")
