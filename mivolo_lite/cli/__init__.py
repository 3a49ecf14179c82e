"""The command lines, one module a command.

torch, timm, OpenCV and matplotlib take seconds to import, and ``--help`` needs none of them: a command imports what
needs them after it has parsed its options.
"""

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``mivolo-lite``: Ctrl-C is one line, with exit code 130, also while the rest is imported.

    Args:
        argv: a command and its options; by default those that this process was started with.
    """
    try:
        from mivolo_lite.cli.entry import run

        run(argv)
    except KeyboardInterrupt as interrupted:
        from signal import SIGINT

        from mivolo_lite.output import complain, printable

        complain(f"mivolo-lite: {printable(str(interrupted) or 'interrupted')}")
        raise SystemExit(128 + SIGINT) from None
