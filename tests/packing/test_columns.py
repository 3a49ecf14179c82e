"""Columns are found by their usual names, or by those that options give."""

import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.packing.sources.cells import FACE_COLUMNS, IMAGE, GenderCodes
from mivolo_lite.packing.sources.columns import describe, find_columns, read_labels
from mivolo_lite.packing.sources.table import Table


def table(header: str, *rows: str) -> Table:
    names = header.split(",")
    return Table.of("--csv x", ((n, dict(zip(names, row.split(","), strict=True))) for n, row in enumerate(rows, 2)))


def found(header: str, **chosen: str) -> dict[str, str]:
    return find_columns(table(header, ",".join("x" * len(header.split(",")))), chosen)


@pytest.mark.parametrize(
    "header, expected",
    [
        ("path,age,gender", {"img_name": "path", "age": "age", "gender": "gender"}),
        ("file,real_age,Male", {"img_name": "file", "age": "real_age", "gender": "Male"}),
        ("IMAGE,Age,Sex,Race", {"img_name": "IMAGE", "age": "Age", "gender": "Sex", "group": "Race"}),
        ("File Name,apparent_age_avg,apparent_age_std",
         {"img_name": "File Name", "age": "apparent_age_avg", "age_std": "apparent_age_std"}),
        ("img_name,image,age,real_age", {"img_name": "img_name", "age": "age"}),
        ("filename,person_id,partition", {"img_name": "filename", "identity": "person_id", "split": "partition"}),
    ],
)  # fmt: skip
def test_usual_names(header, expected):
    assert found(header) == expected


def test_options_come_first():
    assert found("a,age,b", img_name="a", age="b") == {"img_name": "a", "age": "b"}
    boxes = found("path,l,t,r,b", boxes="l, t,r,b")
    assert [boxes[column] for column in FACE_COLUMNS] == ["l", "t", "r", "b"]


@pytest.mark.parametrize(
    "header, chosen, message",
    [
        ("a,age", {}, "no column names the images; .* holds 'a,age'; call yours path"),
        ("a,age", {IMAGE: "", "age": ""}, "no column names the images; .* holds 'a,age'; name yours with --path"),
        ("path,age", {"age": "years"}, "--age years: no column of x, which has path,age"),
        ("path,age", {"boxes": "a,b"}, "--boxes a,b: give 4 columns"),
        ("path,age", {"boxes": "a,b,c,d"}, "--boxes a: no column"),
    ],
)
def test_what_is_not_there_is_one_line(header, chosen, message):
    with pytest.raises(UserError, match=message):
        found(header, **chosen)


def test_the_meaning_is_told():
    rows = table("path,age,sex", "a,31,male", "b,25-32,male", "c,,F", "d,old,x").renamed(
        {"img_name": "path", "gender": "sex"}
    )
    text = list(describe(rows, {"img_name": "path", "gender": "sex"}, GenderCodes("")))
    assert text == [
        "--csv x: 4 rows; path is the image, sex is gender",
        "gender: male -> M (2), F -> F (1), x -> ? (1)",
        "age: 1 numbers, 1 ranges (25-32 -> 25 to 32), 1 unknown, 1 unreadable (old -> ?)",
    ]


def test_columns_that_may_be_ages_under_another_name_are_told(tmp_path):
    (tmp_path / "x.csv").write_text("path,born,sex,face_x0\na,2001-02-03,M,1\n")
    for chosen, mend in (({"age": ""}, "name it with --age"), ({}, "rename it")):
        *_, lines = read_labels(tmp_path / "x.csv", "auto", "", chosen)
        assert lines[-1] == f"no column is age; if it is one of born, {mend}"


def test_a_decimal_comma_is_said_to_be_a_word():
    rows = Table.of("x", [(2, {"img_name": "a", "age": "3,5", "score": "0,73", "note": "a,b"})])
    assert list(describe(rows, {"img_name": "img_name"}, GenderCodes("")))[1:] == [
        "age: 1 unreadable (3,5 -> ?)",
        "score: 0,73 is no number here but a word; write 0.73",
    ]
