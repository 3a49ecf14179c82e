"""CSV files without text that a spreadsheet runs as a formula, and their unchanged text when they are read again."""

import csv
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from mivolo_lite.files import written_text

_FORMULA = re.compile(r"'*\s*[-=+@＝＋－＠].*[(!|]", re.DOTALL)
"""Text that a spreadsheet would act on. Only a function, a reference to another file or DDE can do harm, and these need
one of the last three characters: names such as ``-x7.jpg`` stay what they are for everybody who reads the file."""


class CsvWriter:
    """A ``csv.writer`` that puts an apostrophe before formulas, with which spreadsheets mark text.

    Args:
        file: opened with ``newline=""``.
    """

    def __init__(self, file: TextIO) -> None:
        self._writer = csv.writer(file)

    def writerow(self, cells: Iterable[Any]) -> None:
        """Write a row of text and numbers; None is an empty cell."""
        self._writer.writerow([f"'{cell}" if _is_formula(cell) else cell for cell in cells])


@contextmanager
def written_csv(path: Path) -> Iterator[CsvWriter]:
    """The writer of a file that atomically replaces ``path``. Raises UserError as ``written_aside``."""
    with written_text(path) as file:
        yield CsvWriter(file)


def text_of(cell: str) -> str:
    """The original text of a cell that ``CsvWriter`` wrote."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _is_formula(cell: Any) -> bool:
    return isinstance(cell, str) and _FORMULA.match(cell) is not None
