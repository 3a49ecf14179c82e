"""``mivolo-lite ensemble``."""

from collections.abc import Sequence

from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.convert.ensemble import ensemble


def run(argv: Sequence[str]) -> None:
    """``ensemble RUN/best RUN/best [...] --out DIR``: one checkpoint that answers with the mean of several models."""
    parser = parser_of("ensemble", run)
    parser.add_argument("checkpoints", type=str, nargs="+", help="two or more of one method and one image size")
    parser.add_argument("--out", type=str, required=True, help="the folder to write; must not exist")
    options = parse(parser, argv)
    out = ensemble(**options)
    print(f"written to {out}; next: mivolo-lite evaluate --checkpoint {out} --data DIR --out DIR")
