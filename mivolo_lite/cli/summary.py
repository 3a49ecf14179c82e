"""``mivolo-lite summary``."""

import json
from collections.abc import Sequence

from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.training.run_summary import in_lines, summarise


def run(argv: Sequence[str]) -> None:
    """``summary RUN``: a run's best error and where its weights are, its steps, speed, restarts and goodput."""
    parser = parser_of("summary", run)
    parser.add_argument("folder", type=str, help="folder of a run")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parse(parser, argv)
    summary = summarise(options["folder"])
    print(json.dumps(summary, indent=2) if options["json"] else in_lines(summary))
