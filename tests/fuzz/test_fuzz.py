"""Damaged and hostile files of every kind: success or one line, in bounds, and nothing else."""

import pytest

from tests.fuzz.cases import KINDS, make_corpus
from tests.fuzz.harness import run_cases

COUNTS = {
    "jpegs": 4, "tars": 8, "labels": 8, "csvs": 6, "configurations": 20, "evaluations": 6,
    "checkpoints": 6, "best": 8, "run folders": 6, "indexes": 8, "published": 6,
}  # fmt: skip
"""Cases of each kind; ``python -m benchmarks.fuzz`` tries 2,000."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus") / "whole")


def test_every_kind_is_tried():
    assert COUNTS.keys() == KINDS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("kind, count", COUNTS.items())
def test_damage_is_one_line_or_no_matter(corpus, kind, count):
    outcomes = list(run_cases([(kind, seed) for seed in range(count)], corpus))
    assert [outcome for outcome in outcomes if outcome.fault] == []
    assert len(outcomes) == count
