"""CSV files of labels, read strictly: an invalid row is an error that names its line."""

import csv as csv_format
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from mivolo_lite.errors import UserError

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_SHOWN = 100  # characters of a file that a message shows


class Line(NamedTuple):
    """A line of a CSV: its number, and its cells by column."""

    number: int
    cells: dict[str, str]


def read_csv(path: Path, columns: Sequence[str]) -> list[Line]:
    """The rows of a CSV whose first line names the columns, without blanks around the cells; empty rows are left out.

    Args:
        path: the file, in UTF-8, its cells parted by commas.
        columns: names that the first line must hold.

    Raises:
        UserError: no such file, no text, a column missing or there twice, a row with too few or too many cells, or a
            quote that is opened and not closed.
    """
    location = f"--csv {path}"
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = _rows(file, location)
            names = _names(next(rows, (1, []))[1], columns, location)
            return [Line(line, _cells(names, row, f"{location}: line {line}")) for line, row in rows if any(row)]
    except OSError as error:
        raise UserError(f"{location}: {error.strerror}; give the file with the labels") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{location}: not a CSV in UTF-8 ({error}); save it as one") from None


def _rows(file: TextIO, location: str) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, cells) of each row."""
    # Strict, since a quote that is never closed would otherwise take in all that follows.
    reader = csv_format.reader(_lines(file, location), strict=True)
    columns, line = 0, 1
    try:
        for row in reader:
            columns = columns or len(row)
            _check_quotes(row, columns, f"{location}: line {line}")
            yield line, [cell.strip() for cell in row]
            line = reader.line_num + 1
    except csv_format.Error as error:
        raise UserError(f"{location}: line {line}: {_reason(error)}") from None


def _lines(file: TextIO, location: str) -> Iterator[str]:
    for line_number, line in enumerate(file, 1):
        if "\0" in line:
            raise UserError(f"{location}: line {line_number}: holds a NUL byte; save it as a CSV in UTF-8")
        yield line


def _check_quotes(row: list[str], columns: int, location: str) -> None:
    """Raise UserError where a quoted cell holds a line that is a row: two stray quotes took in what lies between."""
    for cell in row:
        for line in cell.splitlines()[1:]:
            if 1 < columns <= line.count(",") + 1:
                raise UserError(f"{location}: a quote that is opened here takes in the row {line[:_SHOWN]!r}; close it")


def _reason(error: csv_format.Error) -> str:
    if "end of data" in str(error) or "field larger" in str(error):
        return "a quote is opened and never closed"
    return f"{error}; is there a stray quote?"


def _names(header: list[str], columns: Sequence[str], location: str) -> list[str]:
    """The columns' names. Raises UserError where one is missing or there twice."""
    header_text = ",".join(header)
    for column in columns:
        if column not in header:
            raise UserError(
                f"{location}: column {column} is missing; the first line must name the columns, and holds "
                f"{header_text[:_SHOWN]!r}{_hint(header, columns)}"
            )
    twice = [name for name, times in Counter(header).items() if name and times > 1]
    if twice:
        raise UserError(f"{location}: column {twice[0]} is there twice; leave one of the two out, or rename it")
    return header


def _hint(header: list[str], columns: Sequence[str]) -> str:
    separator = next((name for mark, name in _SEPARATORS.items() if len(header) == 1 and mark in header[0]), None)
    if separator:
        return f": its cells are parted by {separator}; part them by commas"
    if {name.lower() for name in header}.issuperset(columns):
        return f": write {', '.join(columns)} in small letters"
    return ""


def _cells(names: list[str], row: list[str], location: str) -> dict[str, str]:
    """A row's cells by column. Raises UserError where there are too few, or too many that say something."""
    if len(row) < len(names) or any(row[len(names) :]):
        raise UserError(
            f"{location}: {len(row)} cells, but the first line names {len(names)} columns: {','.join(row)[:_SHOWN]!r}"
        )
    return dict(zip(names, row, strict=False))
