"""The tables of ``predict``."""

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mivolo_lite.csv_file import written_csv
from mivolo_lite.files import written_text
from mivolo_lite.inference.rows import TRACK_COLUMNS, cells_of, columns_of
from mivolo_lite.inference.work import Result
from mivolo_lite.shards.rejects import REJECTED_FILE, line_of

PREDICTIONS, TRACKS, ANNOTATED, REPORT_FILE = "predictions", "tracks", "annotated", "report.html"
RESULT_FILES = [
    *(f"{stem}.{ending}" for stem in (PREDICTIONS, TRACKS) for ending in ("csv", "jsonl")), REJECTED_FILE, REPORT_FILE,
]  # fmt: skip
"""Files that ``predict`` may write, in addition to the folder ``ANNOTATED``."""


def write_results(results: Iterable[Result], out: Path, tasks: Sequence[str]) -> dict[str, int]:
    """Write results into ``predictions.csv``, ``predictions.jsonl``, ``rejected.jsonl`` and, for videos, ``tracks``.

    Args:
        results: in the order of their items.
        out: folder of the results.
        tasks: the names of those whose answers are columns.

    Returns:
        the numbers of ``rows`` and of ``rejected`` items.

    Raises:
        UserError: they cannot be written; then none of them is.
    """
    rejected = 0
    with ExitStack() as files:
        rejects = files.enter_context(written_text(out / REJECTED_FILE))
        predictions, tracks = _Table(files, out / PREDICTIONS, columns_of(tasks)), None
        for result in results:
            predictions.write(result.rows)
            if result.tracks:
                tracks = tracks or _Table(files, out / TRACKS, TRACK_COLUMNS)
                tracks.write(result.tracks)
            rejected += len(result.rejected)
            rejects.writelines(map(line_of, result.rejected))
    return {"rows": predictions.rows, "rejected": rejected}


class _Table:
    """Rows as ``STEM.jsonl`` and ``STEM.csv``, which appear when ``files`` are closed."""

    def __init__(self, files: ExitStack, stem: Path, columns: Sequence[str]) -> None:
        self.rows = 0
        self.lines = files.enter_context(written_text(stem.with_suffix(".jsonl")))
        self.cells, self.columns = files.enter_context(written_csv(stem.with_suffix(".csv"))), columns
        self.cells.writerow(columns)

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        self.lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        for cells in map(cells_of, rows):
            self.cells.writerow(cells.get(column) for column in self.columns)
        self.rows += len(rows)
