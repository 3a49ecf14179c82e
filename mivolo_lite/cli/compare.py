"""``mivolo-lite compare``."""

from collections.abc import Sequence
from typing import Literal

from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.reporting.plot_folder import FORMATS


def run(argv: Sequence[str]) -> None:
    """``compare A B ...``: compare evaluations of the same images with the first, tested against noise."""
    parser = parser_of("compare", run)
    parser.add_argument("folders", type=str, nargs="+", help="folders that `evaluate` wrote")
    parser.add_argument(
        "--out", type=str | None, default=None, help="also write a page, JSON, CSV, LaTeX and curves to this folder"
    )
    parser.add_argument("--figures", type=Literal[FORMATS], default="png", help="format of the curves' files")
    options = parse(parser, argv)
    from mivolo_lite.evaluation.compare import compare, comparison_table

    if options["out"] is None:
        print(comparison_table(compare(options["folders"])))
        return
    from mivolo_lite.evaluation.comparison_files import write_comparison

    print(comparison_table(write_comparison(options["folders"], options["out"], options["figures"])))
    print(f"\nwritten to {options['out']}")
