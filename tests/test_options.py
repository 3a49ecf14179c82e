"""How command lines read their options."""

from dataclasses import fields
from typing import Annotated

import pytest

from mivolo_lite.cli import main
from mivolo_lite.option_values import check_value
from mivolo_lite.ranges import checked_options, checked_type, int_range
from mivolo_lite.training.optim import OptimConfig


@pytest.mark.parametrize(
    "argv, parts",
    [
        (["evaluate", "--checkpoint", "c", "--data", "d", "--out", "s3://bucket/out"], ["--out", "URL"]),
        (["evaluate", "--checkpoint", "$NOT_SET_ANYWHERE/c", "--data", "d", "--out", "o"], ["--checkpoint", "not set"]),
        (["evaluate", "--checkpoint", "c", "--data", "~nobody_here/d", "--out", "o"], ["--data", "no user"]),
        (["evaluate", "--checkpoint", "c", "--data", "d", "--out", "o", "--workers", "-1"], ["workers", "0 to 1024"]),
        (["evaluate", "--checkpoint", "c", "--data", "d", "--out", "o", "--batch", "1e9"], ["batch"]),
        (["evaluate", "--checkpoint", "c", "--data", "d", "--out", "o", "--legal-ages", "[18, 400]"], ["legal_ages"]),
        (["evaluate", "--checkpoint", "c", "--data", "d", "--out", "o", "--cache.gb", "inf"], ["gb"]),
        (["calibrate", "--checkpoint", "c", "--data", "d", "--level", "nan"], ["level", "above 0 and below 1"]),
        (["index", "$NOT_SET_ANYWHERE"], ["folder", "not set"]),
        (["pack", "utkface", "--images", "$NOT_SET_ANYWHERE/x", "--out", "o"], ["--images", "not set"]),
        (["pack", "people", "--count", "3", "--out", "https://host/x"], ["--out", "URL"]),
        (["audit", "x", "--max-blur", ".inf"], ["max_blur"]),
        (["convert", "a\0b", "out"], ["source", "NUL"]),
    ],
)
def test_an_option_that_means_nothing_is_one_line(argv, parts, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    line = capsys.readouterr().err
    assert stopped.value.code == 2 and line.count("\n") == 1
    for part in parts:
        assert part in line, line


def test_paths_are_expanded_as_a_shell_would(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", str(tmp_path))
    main(["pack", "people", "--count", "4", "--out=~/packed", "--split", "train=1", "--workers", "1"])
    main(["index", "$PLACE/packed/train"])
    assert str(tmp_path / "packed" / "train") in capsys.readouterr().out


def test_what_an_error_quotes_cannot_break_its_line_or_the_terminal(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--config", "a\n\x1b[2Jb\u202e.yaml"])
    assert capsys.readouterr().err == "mivolo-lite: --config a \\x1b[2Jb\\u202e.yaml: No such file or directory\n"


def test_a_range_beside_the_type_that_checkers_see_is_what_checks_a_value():
    small = int_range(1, 5)
    assert checked_type(Annotated[int, small]) is small
    assert checked_type(Annotated[int, small] | None) == small | None
    assert checked_type(list[Annotated[int, small]]) == list[small]
    assert (
        check_value(Annotated[int, small] | None, "5") == 5
        and check_value(Annotated[int, small] | None, "null") is None
    )
    with pytest.raises(ValueError, match="from 1 to 5"):
        check_value(Annotated[int, small], "6")


def test_checked_options_have_the_same_names_and_defaults():
    options, made = OptimConfig(), checked_options(OptimConfig)()
    assert [option.name for option in fields(made)] == [option.name for option in fields(options)]
    assert made.lr == options.lr and made.balance.cap == options.balance.cap
