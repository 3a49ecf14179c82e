"""``mivolo-lite compare``."""

from collections.abc import Sequence

from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.evaluation.compare import compare, comparison_table


def run(argv: Sequence[str]) -> None:
    """``compare A B ...``: evaluations of the same images against the first, and whether that is more than noise."""
    parser = parser_of("compare", run)
    parser.add_argument("folders", type=str, nargs="+", help="folders that `evaluate` wrote")
    print(comparison_table(compare(parse(parser, argv)["folders"])))
