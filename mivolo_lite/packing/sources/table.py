"""Tables of labels: CSV of any separator, JSON lines or Parquet, read row by row into compact columns."""

import csv as csv_format
import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from mivolo_lite.csv_file import text_of
from mivolo_lite.errors import UserError, one_line
from mivolo_lite.files import encoding_of

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
_JSON_ENDINGS, _PARQUET_HEAD = (".jsonl", ".ndjson", ".json"), b"PAR1"
_WORKBOOK_HEADS = b"PK\3\4", b"\xd0\xcf\x11\xe0"
"""The first bytes of .xlsx and .ods, which are ZIP archives, and of .xls."""
_MARK_LINE = "sep="
"""Prefix of a first line for Excel, before the separator of the cells."""
_SHOWN = 100  # characters of a cell in messages
_ROWS = 4096  # rows of a Parquet file read at once


class Line(NamedTuple):
    """A line of a table: its number, and its cells by column."""

    number: int
    cells: dict[str, str]


class Column:
    """Cells in one block of memory: a million take their text and 8 MB, instead of 80 MB of objects.

    Worker processes share the memory with the process that read it.
    """

    def __init__(self, empty: int = 0):
        self.text, self.ends = bytearray(), array("Q", [0]) * empty

    def append(self, cell: str) -> None:
        """Add a cell."""
        self.text += cell.encode("utf-8", "surrogatepass")
        self.ends.append(len(self.text))

    def __getitem__(self, row: int) -> str:
        start = self.ends[row - 1] if row else 0
        return self.text[start : self.ends[row]].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self.ends)))


class Table:
    """The rows of a file of labels.

    Attributes:
        location: the file's name in messages.
        columns: the cells of every column, by its name.
        numbers: first line number of each row.
    """

    def __init__(self, location: str, columns: dict[str, Column], numbers: array):
        self.location, self.columns, self.numbers = location, columns, numbers

    @classmethod
    def of(cls, location: str, rows: Iterable[tuple[int, Mapping[str, str]]], names: Iterable[str] = ()) -> "Table":
        """The table of (line number, cells): these columns and all others in any row; missing cells are empty."""
        columns, numbers = {name: Column() for name in names}, array("Q")
        for number, cells in rows:
            for name in [name for name in cells if name not in columns]:
                columns[name] = Column(len(numbers))
            for name, column in columns.items():
                column.append(cells.get(name, ""))
            numbers.append(number)
        return cls(location, columns, numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Line]:
        return map(self.line, range(len(self)))

    def __repr__(self) -> str:  # it identifies the worker shards of a data set
        return f"Table({list(self.columns)}, {self._digest})"

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for column in self.columns.values():
            digest.update(column.text)
            digest.update(column.ends)
        return digest.hexdigest()

    def require(self, names: set[str], data_set: str) -> None:
        """Raise UserError if a column of a published data set is missing."""
        if missing := names - self.columns.keys():
            raise UserError(f"{self.location}: column {min(missing)} is missing; is it {data_set}'s?")

    def line(self, row: int) -> Line:
        """A row, counted from 0."""
        return Line(self.numbers[row], {name: column[row] for name, column in self.columns.items()})

    def with_column(self, name: str, cells: Iterable[str]) -> "Table":
        """The table with a replaced column."""
        column = Column()
        for cell in cells:
            column.append(cell)
        return Table(self.location, self.columns | {name: column}, self.numbers)

    def renamed(self, names: Mapping[str, str]) -> "Table":
        """The table with renamed columns, ``{new: old}``; a column that has a new name already is dropped."""
        columns = {new: self.columns[old] for new, old in names.items()}
        rest = {name: column for name, column in self.columns.items() if name not in names.values()}
        return Table(self.location, rest | columns, self.numbers)


def read_table(path: Path, delimiter: str = "auto", option: str = "--csv") -> Table:
    """Read a file of labels, without empty rows and blanks around cells.

    Args:
        path: a CSV in UTF-8 or UTF-16 with a header line, before which Excel's ``sep=;`` may stand; JSON lines or a
            JSON list of objects; or Parquet.
        delimiter: separator of a CSV: a name or character of ``DELIMITERS``; ``auto`` is the most frequent one in the
            first line.
        option: the option that names the file.

    Raises:
        UserError: the file is missing, a workbook or no text; a column occurs twice; a row has too few or too many
            cells; or a quote is not closed.
    """
    location = f"{option} {path}"
    try:
        with open(path, "rb") as file:
            head = file.read(len(_PARQUET_HEAD))
        if head == _PARQUET_HEAD:
            return Table.of(location, _parquet_rows(path, location))
        if head in _WORKBOOK_HEADS:
            raise UserError(f"{location}: is a workbook of Excel or LibreOffice; save its sheet as CSV")
        with open(path, newline="", encoding=encoding_of(head)) as file:
            is_json = path.suffix.lower() in _JSON_ENDINGS
            return Table.of(location, _json_rows(file, location)) if is_json else _read_csv(file, delimiter, location)
    except OSError as error:
        raise UserError(f"{location}: {error.strerror}; give a file of CSV, JSON lines or Parquet") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{location}: not a CSV in UTF-8 ({error}); save it as one") from None


def _read_csv(file: TextIO, delimiter: str, location: str) -> Table:
    mark = _mark(delimiter, file.readline())
    file.seek(0)
    rows = _csv_rows(file, mark, location)
    _, names = next(rows, (1, []))
    _check_names(names, location)
    return Table.of(location, _csv_cells(rows, names, mark, location), names)


def _csv_cells(
    rows: Iterable[tuple[int, list[str]]], names: list[str], mark: str, location: str
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, cells) of each row that is not empty."""
    for number, row in rows:
        if any(row):
            _check_cells(names, row, f"{location}: line {number}", mark)
            yield number, dict(zip(names, row, strict=False))


def _mark(delimiter: str, first_line: str) -> str:
    """The separator of the cells. Raises UserError for an unknown name."""
    if delimiter == "auto":
        return max(DELIMITERS.values(), key=first_line.count)  # the first of them if there is none
    mark = DELIMITERS.get(delimiter, delimiter)
    if mark not in DELIMITERS.values():
        raise UserError(f"--delimiter {delimiter!r}: give one of auto, {', '.join(DELIMITERS)}")
    return mark


def _csv_rows(file: TextIO, delimiter: str, location: str) -> Iterator[tuple[int, list[str]]]:
    """(first line number, cells) of each row."""
    # Strict, since an unclosed quote would otherwise swallow the rest of the file.
    reader = csv_format.reader(_lines(file, location), strict=True, delimiter=delimiter)
    columns, line = 0, 1
    try:
        for row in reader:
            if row[:1] != [_MARK_LINE] or line > 1:
                columns = columns or len(row)
                _check_quotes(row, columns, delimiter, f"{location}: line {line}")
                yield line, [text_of(cell).strip() for cell in row]
            line = reader.line_num + 1
    except csv_format.Error as error:
        raise UserError(f"{location}: line {line}: {_reason(error)}") from None


def _lines(file: TextIO, location: str) -> Iterator[str]:
    for line_number, line in enumerate(file, 1):
        if "\0" in line:
            raise UserError(f"{location}: line {line_number}: holds a NUL byte; save it as a CSV in UTF-8")
        yield line


def _check_quotes(row: list[str], columns: int, delimiter: str, location: str) -> None:
    """Raise UserError if a quoted cell contains a complete row, as between two stray quotes."""
    for cell in row:
        for line in cell.splitlines()[1:]:
            if 1 < columns <= line.count(delimiter) + 1:
                raise UserError(f"{location}: a quote that is opened here takes in the row {line[:_SHOWN]!r}; close it")


def _reason(error: csv_format.Error) -> str:
    if "end of data" in str(error) or "field larger" in str(error):
        return "a quote is opened and never closed"
    return f"{error}; is there a stray quote?"


def _check_names(names: list[str], location: str) -> None:
    """Raise UserError if a column occurs twice."""
    twice = [name for name, times in Counter(names).items() if name and times > 1]
    if twice:
        raise UserError(f"{location}: column {twice[0]} is there twice; leave one of the two out, or rename it")


def _check_cells(names: list[str], row: list[str], location: str, mark: str) -> None:
    """Raise UserError if a row has too few cells, or more cells that are not empty."""
    if len(row) < len(names) or any(row[len(names) :]):
        raise UserError(
            f"{location}: {len(row)} cells, but the first line names {len(names)} columns: {mark.join(row)[:_SHOWN]!r}"
        )


def _json_rows(file: TextIO, location: str) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, cells) of each object, one in each line or all in a list."""
    first_character = file.read(1)
    file.seek(0)
    if first_character == "[":
        yield from enumerate(map(_json_cells, _parsed(file.read(), list, location)), 1)
        return
    for number, line in enumerate(file, 1):
        if line.strip():
            record = _parsed(line, dict, f"{location}: line {number}")
            if record and all(isinstance(value, dict) for value in record.values()):
                raise UserError(
                    f"{location}: line {number}: holds whole columns; write an object a row, as pandas does with "
                    "to_json(orient='records', lines=True)"
                )
            yield number, _json_cells(record)


def _parsed(text: str, kind: type[list] | type[dict], location: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{location}: is not JSON: {text.strip()[:_SHOWN]!r}") from None
    if not isinstance(value, kind) or kind is list and not all(isinstance(entry, dict) for entry in value):
        raise UserError(f"{location}: give JSON objects, one a line or in a list, not {text.strip()[:_SHOWN]!r}")
    return value


def _json_cells(record: Mapping[str, Any]) -> dict[str, str]:
    return {name: cell_of(value) for name, value in record.items()}


def cell_of(value: Any) -> str:
    """A value as a CSV cell: a list as ``25;32``, empty for a missing value."""
    if isinstance(value, list | tuple):
        return ";".join(map(cell_of, value))
    return "" if value is None or value != value or isinstance(value, bytes | dict) else str(value).strip()


def _parquet_rows(path: Path, location: str) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f'{location}: Parquet needs pyarrow: pip install "mivolo-lite[parquet]"') from None
    try:
        with ParquetFile(path) as file:
            records = (record for batch in file.iter_batches(_ROWS) for record in batch.to_pylist())
            yield from enumerate(map(_json_cells, records), 1)
    except ArrowException as error:
        raise UserError(f"{location}: damaged Parquet file ({one_line(error)[:_SHOWN]})") from None
