"""``mivolo-lite curves``."""

from collections.abc import Sequence
from typing import Literal

from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.experiments.curves import PAGE_FILE, write_curves
from mivolo_lite.reporting.plot_folder import FORMATS


def run(argv: Sequence[str]) -> None:
    """``curves RUN [...] --out DIR``: plot the errors, losses, learning rates and speed of trainings."""
    parser = parser_of("curves", run)
    parser.add_argument("folders", type=str, nargs="+", help="folders of runs, or of `seeds` or `crossval`")
    parser.add_argument("--out", type=str, required=True, help="folder for the page and the plots")
    parser.add_argument("--figures", type=Literal[FORMATS], default="png", help="format of the plots' files")
    options = parse(parser, argv)
    write_curves(**options)
    print(f"written to {options['out']}/{PAGE_FILE}")
