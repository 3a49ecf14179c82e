"""The results of a command so far, in files that remain when it ends for any reason: the same command resumes."""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mivolo_lite.files import explain_write_errors, lock_or_explain, write_json
from mivolo_lite.inference.sources import Item
from mivolo_lite.inference.work import Result
from mivolo_lite.shards.index import INFO_FILE

UNFINISHED = "unfinished"
"""The folder of partial results, inside that of the results."""

_SETTINGS, _LOCK = "run.json", "lock"  # earlier versions, whose lines had no `more`, wrote settings.json


class _Line(NamedTuple):
    """A line of a file: an item's key, the stamp of its file, and one of its results."""

    key: str
    stamp: list[int] | None
    rows: list[dict[str, Any]]
    tracks: list[dict[str, Any]]
    rejected: list[dict[str, str]]
    more: bool


class _Entry(NamedTuple):
    """The position of an item's lines, the stamp of its file, and the state of its results."""

    path: Path
    offset: int
    stamp: list[int] | None
    is_done: bool
    is_rejected: bool


class PartialResults:
    """A file for each process of each start, with a JSON line for each result: the fields of ``_Line`` as a list.

    Items are identified by name, so photos may be added and removed before the command resumes.

    Args:
        out: folder of the results.
        items: all of them.
        tables: names of the final files in it.
        numbered: whether an item's position in the list counts too, as for the names of annotated photos.
    """

    def __init__(self, out: Path, items: Sequence[Item], tables: Sequence[str] = (), numbered: bool = False) -> None:
        self.folder, self.items = out / UNFINISHED, items
        self.tables = [out / name for name in tables]
        self.keys: list[str] = []
        self._lock: BinaryIO | None = None
        seen: Counter[str] = Counter()
        for number, item in enumerate(items):
            name = f"{item.name} {item.samples.start}"
            self.keys.append(f"{name} {number if numbered else seen[name]}")  # the same photo may be listed twice
            seen[name] += 1

    def begin(self, settings: Mapping[str, Any]) -> str:
        """Keep results with the same settings. Otherwise discard them and return a note. Earlier tables are removed.

        Raises:
            UserError: the folder cannot be written, or another command writes there.
        """
        with explain_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.folder / _LOCK, "wb")  # until this process ends or removes the folder
            lock_or_explain(self._lock, self.folder.parent)
            for table in self.tables:  # only after locking: another command may be writing them
                table.unlink(missing_ok=True)
            earlier = self._settings()
            if earlier == settings:
                return ""
            unfinished = self._files()
            for path in unfinished:
                path.unlink()
            write_json(self.folder / _SETTINGS, settings)
        other = [name for name in settings if earlier.get(name, settings[name]) != settings[name]]
        if other:
            return f"begins anew: the unfinished run there had another {' and '.join(other)}"
        return "begins anew: nothing says how the unfinished run there began" if unfinished else ""

    def done(self) -> dict[int, bool]:
        """The numbers of done items whose files have not changed since; True for rejected ones."""
        entries = self._entries()
        found = ((number, item, entries.get(self.keys[number])) for number, item in enumerate(self.items))
        return {
            number: entry.is_rejected
            for number, item, entry in found
            if entry and entry.is_done and entry.stamp == _stamp(item)
        }

    def write(self, results: Iterator[tuple[int, Result]], rank: int) -> None:
        """Write a process's results as they come. Raises UserError if that fails."""
        path = self.folder / f"{time.time_ns():020d}-{rank:05d}.jsonl"
        with explain_write_errors(path):
            file = open(path, "wb", buffering=0)  # a buffer would keep what a full disk rejects
        with file:
            for number, result in results:
                columns = result.rows, result.tracks, result.rejected, result.more
                line = _Line(self.keys[number], _stamp(self.items[number]), *columns)
                data = memoryview(json.dumps(line).encode() + b"\n")
                with explain_write_errors(path):
                    while data:
                        data = data[file.write(data) :]

    def results(self) -> Iterator[tuple[int, Result]]:
        """The results so far, in the order of the items and with their numbers."""
        entries = self._entries()
        with ExitStack() as opened:
            files = {path: opened.enter_context(open(path, "rb")) for path in self._files()}
            for number, key in enumerate(self.keys):
                if key in entries:
                    file = files[entries[key].path]
                    file.seek(entries[key].offset)
                    yield from ((number, result) for result in _results(file, key))

    def remove(self) -> None:
        """Remove the folder, after its results were written elsewhere."""
        if self._lock is not None:
            self._lock.close()
        shutil.rmtree(self.folder)

    def _settings(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder / _SETTINGS).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}

    def _files(self) -> list[Path]:
        """The files, oldest first: if an item is in several, the last one counts."""
        return sorted(self.folder.glob("*.jsonl"))

    def _entries(self) -> dict[str, _Entry]:
        return {key: entry for path in self._files() for key, entry in _entries(path)}


def _stamp(item: Item) -> list[int] | None:
    """The size and modification time of an item's file; None for a URL."""
    try:
        state = os.stat(item.address if item.kind != "shards" else os.path.join(item.address, INFO_FILE))
    except (OSError, ValueError):
        return None
    return [state.st_size, state.st_mtime_ns]


def _entries(path: Path) -> Iterator[tuple[str, _Entry]]:
    """The items of a file, updated by each of its lines. An item is rejected with its last result or not at all."""
    last, start, offset = None, 0, 0
    with open(path, "rb") as file:
        for line, size in _whole_lines(file):
            start = start if line.key == last else offset
            yield line.key, _Entry(path, start, line.stamp, not line.more, bool(line.rejected))
            last, offset = line.key, offset + size


def _results(file: BinaryIO, key: str) -> Iterator[Result]:
    for line, _ in takewhile(lambda found: found[0].key == key, _whole_lines(file)):
        yield Result(line.rows, line.tracks, line.rejected, more=line.more)


def _whole_lines(file: BinaryIO) -> Iterator[tuple[_Line, int]]:
    """The complete lines and their bytes, without one that a killed process or a full disk cut off."""
    for line in takewhile(lambda line: line.endswith(b"\n"), file):
        yield _Line(*json.loads(line)), len(line)
