"""How command lines read their options, and what they answer to mistakes."""

from dataclasses import fields
from typing import Annotated, Literal

import pytest
from jsonargparse import ArgumentParser

from mivolo_lite.cli import main
from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.errors import UserError
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


def a_parser() -> ArgumentParser:
    parser = parser_of("estimate", a_parser)
    parser.add_argument("sources", type=str, nargs="+")
    parser.add_argument("--out", type=str, required=True)
    parser.add_argument("--boxes", type=str | None, default=None, help="a table")
    parser.add_argument("--path", type=str, default="", help="a column")
    parser.add_argument("--batch", type=int_range(1, 10), default=3)
    parser.add_argument("--tta", type=Literal["none", "flip"] | None, default=None)
    parser.add_argument("--half", type=bool | None, default=None)
    parser.add_argument("--folds", type=list[int] | None, default=None)
    return parser


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["a"], "estimate: --out: missing; see mivolo-lite estimate --help"),
        (["--out", "b"], "estimate: sources: missing; see mivolo-lite estimate --help"),
        (["a", "--out", "b", "--batch", "0"], "estimate: --batch 0: give a whole number from 1 to 10"),
        (["a", "--out", "b", "--batch=x"], "estimate: --batch x: give a whole number from 1 to 10"),
        (["a", "--out", "b", "--tta", "flop"], "estimate: --tta flop: give one of none, flip"),
        (["a", "--out", "b", "--half", "2"], "estimate: --half 2: give yes or no"),
        (["a", "--out", "b", "--folds", "4"], "estimate: --folds 4: give a list in brackets, each a whole number"),
        (["a", "--out", "b", "--half"], "estimate: --half: expected one argument"),
        (["a", "--out", "b", "--bach", "4"], "estimate: --bach 4: not understood; did you mean --batch?"),
    ],
)
def test_an_error_names_the_option_as_it_is_written_and_what_it_takes(words, answer):
    with pytest.raises(UserError) as error:
        parse(a_parser(), words)
    assert str(error.value) == answer


def test_the_help_says_types_in_words():
    text = " ".join(a_parser().format_help().split())
    assert "--half {yes,no} (type: yes or no)" in text and "(type: one of none, flip)" in text
    assert "a table --path" in text and "a column --batch" in text  # nothing where there is no default
    assert not any(word in text for word in ("null", "Literal", "type: str", "true"))


@pytest.mark.parametrize(
    "words", [["--out", "b"], ["--in", "nowhere", "--out", "b"], ["--folder=nowhere", "--out", "b"]]
)
def test_pack_calls_its_option_in_as_it_is_written(words, capsys):
    with pytest.raises(SystemExit):
        main(["pack", "shards", *words])
    answer = capsys.readouterr().err
    assert "--in" in answer and "folder:" not in answer and "--folder" not in answer


def test_a_union_is_tried_in_its_own_order():
    assert [check_value(kind, "1") for kind in (int | str, str | int, int | str)] == [1, "1", 1]


def test_a_list_that_is_checked_again_is_another_list():
    first = check_value(list[int], "[1, 2]")
    first.append(3)
    assert check_value(list[int], "[1, 2]") == [1, 2]
