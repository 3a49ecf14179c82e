"""CSVs are read strictly: a row that cannot be meant is one line with its place, and nothing is swallowed."""

import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.packing.sources.table import read_csv

COLUMNS = ("name", "age", "note")


@pytest.fixture
def read(tmp_path):
    """Reads the text, or the bytes, of a CSV."""

    def read(content: str | bytes):
        path = tmp_path / "labels.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_csv(path, COLUMNS)

    return read


def rows(count: int, **changed: str) -> str:
    """A CSV of numbered rows, some of them changed: ``line7="..."``."""
    lines = ["name,age,note", *(f"{number}.jpg,{number},good" for number in range(count))]
    for line, text in changed.items():
        lines[int(line.removeprefix("line")) - 1] = text
    return "\n".join(lines) + "\n"


def test_rows_and_their_lines(read):
    lines = read('\ufeffname, age ,note,x\r\n a.jpg ,3,"x, y",\r\n\r\n,,,\r\nb.jpg,4,"two\r\nlines",1,,\r\n')
    assert [line.number for line in lines] == [2, 5]
    assert lines[0].cells == {"name": "a.jpg", "age": "3", "note": "x, y", "x": ""}
    assert lines[1].cells["note"] == "two\r\nlines"


@pytest.mark.parametrize(
    "content, message",
    [
        (rows(40, line7='"5.jpg,5,good'), "line 7: a quote is opened and never closed"),
        (rows(40, line7='5.jpg,5,"said'), "line 7: a quote is opened and never closed"),
        (rows(9000, line7='5.jpg,5,"said'), "line 7: a quote is opened and never closed"),
        (rows(40, line7='5.jpg,5,"said', line20='18.jpg,18,"said'), "line 7: .* is there a stray quote"),
        (rows(40, line7='5.jpg,5,"said', line20='18.jpg,18,said"'), "line 7: a quote .* takes in the row '6.jpg,6,"),
        (rows(40, line7='5.jpg,5,"said', line8='6.jpg,6,said"'), "line 7: a quote .* takes in the row '6.jpg,6,"),
        (rows(40, line7='"5".jpg,5,good'), "line 7: .*stray quote"),
        (rows(4, line3="1.jpg,1"), "line 3: 2 cells, but the first line names 3 columns: '1.jpg,1'"),
        (rows(4, line3="1.jpg"), "line 3: 1 cells"),
        (rows(4, line3="1.jpg,1,good,more"), "line 3: 4 cells, but the first line names 3 columns"),
        (rows(4, line3="1.jpg,1,go\0od"), "line 3: holds a NUL byte"),
        (rows(4).encode("utf-16"), "not a CSV in UTF-8"),
        (rows(4).encode("utf-16-le"), "line 1: holds a NUL byte"),
        ("name,age,note\né,1,".encode("latin-1"), "not a CSV in UTF-8"),
        ("", "column name is missing; the first line must name the columns, and holds ''"),
        ("a.jpg,3,x\n", "column name is missing; .* holds 'a.jpg,3,x'"),
        ("name;age;note\n", "column name is missing; .* holds 'name;age;note': .* semicolons; part them by commas"),
        ("name\tage\tnote\n", ".* its cells are parted by tabs"),
        ("Name,AGE,note\n", "column name is missing; .*: write name, age, note in small letters"),
        ("name,age,age,note\n", "column age is there twice"),
        ("name,age,note,x,x\n", "column x is there twice"),
    ],
)
def test_what_cannot_be_meant_is_one_line(read, content, message):
    with pytest.raises(UserError, match=f"--csv .*labels.csv: {message}") as error:
        read(content)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
