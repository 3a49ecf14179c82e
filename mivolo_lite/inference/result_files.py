"""The files of ``predict``, which grow result by result and so hold what was estimated by then, whatever ends it."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mivolo_lite.errors import in_one_line
from mivolo_lite.files import explain_write_errors
from mivolo_lite.inference.rows import TRACK_COLUMNS, cells_of, columns_of
from mivolo_lite.inference.work import Result
from mivolo_lite.shards.rejects import REJECTED_FILE
from mivolo_lite.wording import count_of

PREDICTIONS, TRACKS, ANNOTATED = "predictions", "tracks", "annotated"
RESULT_FILES = [*(f"{stem}.{ending}" for stem in (PREDICTIONS, TRACKS) for ending in ("csv", "jsonl")), REJECTED_FILE]
"""Those that ``predict`` may write, beside the folder ``ANNOTATED``."""


class Incomplete(Exception):
    """Ctrl-C or an error ended ``predict``, and what was estimated by then is written.

    Attributes:
        counts: what ``predict`` would have returned.
        reason: to be raised once they are reported; it names them.
    """

    def __init__(self, counts: dict[str, int], reason: BaseException):
        super().__init__(str(reason))
        self.counts, self.reason = counts, reason


def write_results(results: Iterable[tuple[int, Result]], out: Path, tasks: Sequence[str], total: int) -> dict[str, int]:
    """Write results as they come.

    Args:
        results: by the numbers of their items, in the items' order.
        out: folder of the results.
        tasks: the names of those whose answers are columns.
        total: number of items.

    Returns:
        the numbers of ``rows`` and of ``rejected`` items, and of ``tracks`` where there are videos.

    Raises:
        Incomplete: after Ctrl-C, or an error of one line such as a full disk, where some results are written.
    """
    files = ResultFiles(out, tasks)
    try:
        for number, result in results:
            files.add(number, result)
    except BaseException as error:
        reason = _in_one_line(error)
        if reason is None or not files.items:
            files.discard()
            raise
        files.finish()
        rows, done = count_of(files.counts["rows"], "row"), len(files.items)
        reason.args = (f"{reason}; the results are of {done} of {count_of(total, 'item')}, in {rows}",)
        raise Incomplete(files.counts, reason) from None
    files.finish()
    return files.counts


def _in_one_line(error: BaseException) -> BaseException | None:
    if isinstance(error, KeyboardInterrupt):
        return KeyboardInterrupt("interrupted")
    return in_one_line(error) if isinstance(error, Exception) else None


class ResultFiles:
    """``predictions.jsonl``, ``predictions.csv``, ``rejected.jsonl`` and, of videos, ``tracks``.

    Args:
        out, tasks: of ``write_results``.

    Attributes:
        items: the numbers of the items of which results are written.
        counts: what ``write_results`` returns.
    """

    def __init__(self, out: Path, tasks: Sequence[str]) -> None:
        self.out, self.columns = out, {PREDICTIONS: columns_of(tasks), TRACKS: TRACK_COLUMNS}
        self.files: dict[str, _GrowingFile] = {}
        self.items: set[int] = set()
        self.counts = {"rows": 0, "rejected": 0}

    def add(self, number: int, result: Result) -> None:
        """Write a result of an item, whole or not at all. Raises UserError where that fails."""
        with explain_write_errors(self.out):
            self._write_rows(PREDICTIONS, result.rows)
            if result.tracks:
                self._write_rows(TRACKS, result.tracks)
            rejected = self._file(REJECTED_FILE)
            for reject in result.rejected:
                rejected.write(json.dumps(reject) + "\n")
        for file in self.files.values():
            file.keep()
        self.items.add(number)
        self.counts["rows"] += len(result.rows)
        self.counts["rejected"] += len(result.rejected)
        if result.tracks:
            self.counts[TRACKS] = self.counts.get(TRACKS, 0) + len(result.tracks)

    def finish(self) -> None:
        """Give the files their names. Raises UserError where that fails."""
        with explain_write_errors(self.out):
            for file in self.files.values():
                file.finish()

    def discard(self) -> None:
        """Remove the files."""
        for file in self.files.values():
            file.discard()

    def _write_rows(self, stem: str, rows: Iterable[dict[str, Any]]) -> None:
        lines, table = self._file(f"{stem}.jsonl"), self._file(f"{stem}.csv")
        writer = csv.DictWriter(table, self.columns[stem], extrasaction="ignore")
        if not table.kept:
            writer.writeheader()
        for row in rows:
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            writer.writerow(cells_of(row))

    def _file(self, name: str) -> "_GrowingFile":
        if name not in self.files:
            self.files[name] = _GrowingFile(self.out / name)
        return self.files[name]


class _GrowingFile:
    """A file that takes the place of ``path`` when it is finished, with what was in it at the last ``keep``."""

    def __init__(self, path: Path) -> None:
        self.path, self.partial = path, path.with_name(f"{path.name}.partial")
        self.file = open(self.partial, "wb", buffering=0)  # a buffer that a full disk does not take would stay in it
        self.kept: int | None = None

    def write(self, text: str) -> None:
        # A file's name may be no Unicode; in JSON the backslash is an escape, which gives the name back.
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        while data:
            data = data[self.file.write(data) :]

    def keep(self) -> None:
        self.kept = self.file.tell()

    def finish(self) -> None:
        if self.kept is None:
            return self.discard()
        self.file.truncate(self.kept)
        self.file.close()
        self.partial.replace(self.path)

    def discard(self) -> None:
        self.file.close()
        self.partial.unlink(missing_ok=True)
