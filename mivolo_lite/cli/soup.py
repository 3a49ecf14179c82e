"""``mivolo-lite soup``."""

from collections.abc import Sequence

from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.convert.soup import soup


def run(argv: Sequence[str]) -> None:
    """``soup RUN/best RUN/best [...] --out DIR``: one model whose weights are the mean of several fine-tuned ones."""
    parser = parser_of("soup", run)
    parser.add_argument("checkpoints", type=str, nargs="+", help="two or more that started from the same weights")
    parser.add_argument("--out", type=str, required=True, help="the folder to write; must not exist")
    options = parse(parser, argv)
    out = soup(**options)
    print(f"written to {out}; next: mivolo-lite evaluate --checkpoint {out} --data DIR --out DIR")
