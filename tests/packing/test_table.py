"""Tables are read strictly: a row that cannot be meant is one line with its place, and nothing is swallowed."""

import json
import pickle
import sys
import tracemalloc

import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.packing.sources.table import Table, read_table


@pytest.fixture
def read(tmp_path):
    """Reads the text, or the bytes, of a file."""

    def read(content: str | bytes, name: str = "labels.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path, **options)

    return read


def rows(count: int, **changed: str) -> str:
    """A CSV of numbered rows, some of them changed: ``line7="..."``."""
    lines = ["name,age,note", *(f"{number}.jpg,{number},good" for number in range(count))]
    for line, text in changed.items():
        lines[int(line.removeprefix("line")) - 1] = text
    return "\n".join(lines) + "\n"


def test_rows_and_their_lines(read):
    lines = list(read('\ufeffname, age ,note,x\r\n a.jpg ,3,"x, y",\r\n\r\n,,,\r\nb.jpg,4,"two\r\nlines",1,,\r\n'))
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
        (rows(4).encode("utf-16")[:-1], "not a CSV in UTF-8"),
        (rows(4).encode("utf-16-le"), "line 1: holds a NUL byte"),
        ("name,age,note\né,1,".encode("latin-1"), "not a CSV in UTF-8"),
        (b"PK\3\4\x14\0\6\0", "is a workbook of Excel or LibreOffice; save its sheet as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "is a workbook"),
        ("name,age,age,note\n", "column age is there twice"),
        ("name,age,note,x,x\n", "column x is there twice"),
    ],
)
def test_what_cannot_be_meant_is_one_line(read, content, message):
    with pytest.raises(UserError, match=f"--csv .*labels.csv: {message}") as error:
        read(content)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_tables_of_excel(read, encoding):
    (line,) = read("name\tnote\r\nä.jpg\té\r\n".encode(encoding))
    assert line.cells == {"name": "ä.jpg", "note": "é"}


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_what_excel_writes_before_the_names_is_passed_over(read, mark):
    (line,) = read(f"sep={mark}\r\n{mark.join(('name', 'age', 'x'))}\r\n{mark.join(('a.jpg', '7', 'sep='))}\r\n")
    assert line.cells == {"name": "a.jpg", "age": "7", "x": "sep="} and line.number == 3


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_what_parts_the_cells_is_seen_in_the_first_line(read, mark):
    text = mark.join(("name", "age", "x")) + "\n" + mark.join(("a.jpg", "(25 to 32)", '"a,b;c|d"')) + "\n"
    (line,) = read(text)
    assert line.cells == {"name": "a.jpg", "age": "(25 to 32)", "x": "a,b;c|d"}


def test_what_parts_the_cells_may_be_told(read):
    (line,) = read("a;b,c;d\n1;2,3;4\n", delimiter="comma")
    assert line.cells == {"a;b": "1;2", "c;d": "3;4"}
    with pytest.raises(UserError, match="--delimiter 'x': give one of auto, comma"):
        read("a,b\n", delimiter="x")


def test_one_column_is_a_table_too(read):
    assert [line.cells for line in read("name\na.jpg\n")] == [{"name": "a.jpg"}]


RECORDS = [
    {"path": "a.jpg", "age": 31, "box": [1, 2, 3.5, 4], "who": None},
    {"path": "b.jpg", "age": [25, 32], "smiles": True},
]
CELLS = [
    {"path": "a.jpg", "age": "31", "box": "1;2;3.5;4", "who": "", "smiles": ""},
    {"path": "b.jpg", "age": "25;32", "box": "", "who": "", "smiles": "True"},
]


@pytest.mark.parametrize(
    "name, text",
    [("a.jsonl", "\n".join(map(json.dumps, RECORDS)) + "\n\n"), ("a.json", json.dumps(RECORDS))],
)
def test_json_lines_and_lists(read, name, text):
    lines = list(read(text, name))
    assert [line.cells for line in lines] == CELLS and [line.number for line in lines] == [1, 2]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', "line 2: is not JSON"),
        ("a.jsonl", '{"a": 1}\n3\n', "line 2: give JSON objects"),
        ("a.json", "[1, 2]", "give JSON objects"),
        ("a.json", '{"path": {"0": "0.jpg"}, "age": {"0": 31}}', "line 1: holds whole columns; .*orient='records'"),
        ("a.json", '[{"a": 1}', "is not JSON"),
        ("a.json", "[" * 5000, "is not JSON"),
    ],
)
def test_other_json_is_one_line(read, name, text, message):
    with pytest.raises(UserError, match=message):
        read(text, name)


def test_parquet(tmp_path, monkeypatch):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = arrow.table({"path": ["a.jpg", "b.jpg"], "age": [31, None], "box": [[1, 2], None], "data": [b"x", b"y"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    lines = list(read_table(tmp_path / "a.parquet"))
    assert lines[0].cells == {"path": "a.jpg", "age": "31", "box": "1;2", "data": ""}
    assert lines[1].cells["age"] == "" and lines[1].number == 2
    damaged = (tmp_path / "a.parquet").read_bytes()[:60]
    (tmp_path / "b.parquet").write_bytes(damaged)
    with pytest.raises(UserError, match="damaged Parquet"):
        read_table(tmp_path / "b.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="needs pyarrow: pip install"):
        read_table(tmp_path / "a.parquet")


@pytest.mark.slow
def test_a_table_takes_little_more_than_its_text(read):
    text = "name,age,note\n" + "".join(f"folder/{number:09d}.jpg,{number % 90},good\n" for number in range(20_000))
    tracemalloc.start()
    table = read(text)
    size, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table) == 20_000 and size < 3 * len(text)
    assert table.line(19_999).cells == {"name": "folder/000019999.jpg", "age": str(19_999 % 90), "note": "good"}
    assert peak < 4 * len(text)


def test_tables_are_told_apart_and_travel(read):
    table, other = read("a,b\n1,23\n"), read("a,b\n12,3\n")
    assert repr(table) != repr(other) and repr(pickle.loads(pickle.dumps(table))) == repr(table)


def test_columns_have_new_names(read):
    table = read("real_age,age,x\n30,old,1\n").renamed({"age": "real_age"})
    assert isinstance(table, Table) and table.line(0).cells == {"x": "1", "age": "30"}
