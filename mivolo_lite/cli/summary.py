"""``mivolo-lite summary``."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.errors import UserError
from mivolo_lite.output import complain
from mivolo_lite.training.run_summary import in_lines, runs_in, summarise


def run(argv: Sequence[str]) -> None:
    """``summary RUN``: print a run's best error, steps, speed, restarts and goodput."""
    parser = parser_of("summary", run)
    parser.add_argument("folder", type=str, help="folder of a run, or of `seeds` or `crossval`")
    parser.add_argument("--json", action="store_true", help="print JSON; for several runs, a list")
    options = parse(parser, argv)
    runs = runs_in(Path(options["folder"]))
    summaries = [summarise(runs[0])] if len(runs) == 1 else list(_of_several(runs))
    if options["json"]:
        print(json.dumps(summaries[0] if len(runs) == 1 else summaries, indent=2))
    else:
        print("\n\n".join(map(in_lines, summaries)))


def _of_several(runs: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The summaries of the runs that have begun; the others are named."""
    for folder in runs:
        try:
            yield summarise(folder)
        except UserError as error:
            complain(f"note: {error}")
