"""Cells of a CSV mean an age, a gender, a box, or nothing; nothing else is guessed."""

import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.packing.sources.cells import FACE_COLUMNS, GenderCodes, age_of, box_of
from mivolo_lite.shards.rejects import Rejected


@pytest.mark.parametrize(
    "cell, expected",
    [
        ("31", (31, 31)),
        ("30.5", (30.5, 30.5)),
        ("25;32", (25, 32)),
        ("(25, 32)", (25, 32)),
        ("[25,32]", (25, 32)),
        ("25-32", (25, 32)),
        ("25 to 32", (25, 32)),
        ("70+", (70, 100)),
        ("More than 70", (70, 100)),
        ("60+ years", (60, 100)),
        ("25-32 years", (25, 32)),
        ("31 y", (31, 31)),
        ("<3", (0, 3)),
        ("under 18", (0, 18)),
        (">=70", (70, 100)),
        ("", None),
        ("-1", None),
        ("None", None),
        ("NaN", None),
        ("NA", None),
    ],
)
def test_ages(cell, expected):
    assert age_of(cell) == expected


def test_an_offset_is_added():
    assert age_of("3", 14) == (17, 17) and age_of("0-4", 16) == (16, 20) and age_of("", 14) is None
    with pytest.raises(Rejected, match="age '21' with --age_offset 100 does not lie"):
        age_of("21", 100)


@pytest.mark.parametrize(
    "cell, reason",
    [
        ("old", "is no age: write 31, 25;32 .or 25-32, .25, 32.. or 70+"),
        ("2019-05-01", "age '2019-05-01' is no age but a date: write the age in years"),
        ("1.5.1990", "is no age but a date"),
        ("5/1/90", "is no age but a date"),
        ("25;32;40", "is no age"),
        ("3,5", "age '3,5' may be 3.5 or a range: write 3.5 or 3-5"),
        ("25,32 years", "write 25.32 or 25-32"),
        ("32-25", "ends before it begins"),
        ("400", "does not lie in 0 to 120"),
        ("-5", "does not lie in 0 to 120"),
        ("inf", "is no age"),
        ("4_6", "is no age"),
        ("1990-2000", "does not lie in 0 to 120"),
    ],
)
def test_other_ages_are_rejected(cell, reason):
    with pytest.raises(Rejected, match=reason):
        age_of(cell)


@pytest.mark.parametrize("cell, gender", [("M", "M"), ("f", "F"), ("Male", "M"), ("FEMALE", "F"), ("woman", "F")])
def test_words_are_genders(cell, gender):
    assert GenderCodes("")(cell) == gender


@pytest.mark.parametrize("cell", ["", "-1", "-1.0", "u", "Unknown", "nan"])
def test_genders_that_are_unknown(cell):
    genders = GenderCodes("")
    genders.check(["M", "F", cell], "where")
    assert genders(cell) is None and not genders.knows(cell)


@pytest.mark.parametrize(
    "cells, numbers",
    [(["0", "1"], "0, 1"), (["1", "-1"], "-1, 1"), (["M", "1.0"], "1"), (["1", "2"], "1, 2"), (["0"], "0")],
)
def test_numbers_are_no_genders_unless_it_is_said(cells, numbers):
    with pytest.raises(UserError, match=rf"labels.csv: column gender holds numbers \({numbers}\), .*--gender_codes"):
        GenderCodes("").check(cells, "labels.csv")


def test_words_of_which_none_is_a_gender_are_told_with_the_option():
    with pytest.raises(
        UserError, match=r"column male holds no gender but False, True; .*--gender_codes False=M,True=F"
    ):
        GenderCodes("").check(["True", "False", "NA"], "labels.csv", "male")
    GenderCodes("").check(["M", "Mann"], "labels.csv")  # which is rejected row by row
    GenderCodes("").check(["", "NA"], "labels.csv")


@pytest.mark.parametrize(
    "codes, cells, expected",
    [
        ("0=M,1=F", ["0", "1.0", "-1", ""], ["M", "F", None, None]),
        ("0=female,1=male", ["0", "1", "M"], ["F", "M", "M"]),
        ("1=M,-1=F", ["1", "-1", "-1.0", "u"], ["M", "F", "F", None]),
        ("homme=M,Femme=F", ["Homme", "femme"], ["M", "F"]),
    ],
)
def test_codes_that_are_said(codes, cells, expected):
    genders = GenderCodes(codes)
    genders.check(cells, "labels.csv")
    assert [genders(cell) for cell in cells] == expected


def test_numbers_beside_the_codes_are_refused():
    with pytest.raises(UserError, match=r"holds numbers \(2\)"):
        GenderCodes("0=M,1=F").check(["0", "1", "2"], "labels.csv")


@pytest.mark.parametrize("codes", ["0=M", "0=M,1=M", "M", "0=x,1=F", "=,", "1=M,1=F"])
def test_codes_must_name_both_genders(codes):
    with pytest.raises(UserError, match="--gender_codes .*: name both genders, as in 0=M,1=F"):
        GenderCodes(codes)


def test_boxes():
    def box(*edges):
        return box_of(dict(zip(FACE_COLUMNS, edges, strict=True)), FACE_COLUMNS)

    assert box("1", "2", "30.5", "4e1") == (1, 2, 30.5, 40) and box("", "-1", "-1.0", "") is None
    assert box("0", "0", "1", "1") == (0, 0, 1, 1)
    for edges, reason in (
        (("1", "2", "x", "4"), "face_x0 to face_y1: 1,2,x,4 is not a box"),
        (("1", "2", "", "4"), "is not a box"),
        (("1", "2", "inf", "4"), "is not a box"),
        (("0.1", "0.1", "0.9", "0.9"), "0.1,0.1,0.9,0.9 are shares of the image; give pixels"),
    ):
        with pytest.raises(Rejected, match=reason):
            box(*edges)
