"""The harness sees what breaks the law; the mutations follow from their seed."""

import os
import pickle
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest

from mivolo_lite.cli import main
from tests.forked import COMMAND_MODULES
from tests.fuzz import mutations
from tests.fuzz.cases import KINDS
from tests.fuzz.harness import run_cases


def crash(argv):
    raise KeyError("a fault")


def stop_without_a_line(argv):
    sys.exit(2)


def print_a_traceback(argv):
    print("Traceback (most recent call last)")


def hang(argv):
    time.sleep(30)


def die(argv):
    os._exit(0)


def write_elsewhere(argv):
    Path("s.txt").write_text("s")


def change_an_input(argv):
    next(Path().rglob("*.csv")).write_text("changed")


def take_memory(argv):
    bytearray(2 << 30)


def run_code(argv):
    with suppress(FileNotFoundError):
        os.system(f"test -e {mutations.CANARY}")


def unpickle(argv):
    pickle.loads(b"cposix\ngetpid\n(tR.")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command, fault",
    [
        (crash, "traceback: KeyError"),
        (stop_without_a_line, "without its line"),
        (print_a_traceback, "traceback printed"),
        (hang, "hangs"),
        (die, "dies"),
        (write_elsewhere, "writes elsewhere"),
        (change_an_input, "writes elsewhere"),
        (take_memory, "memory"),
        (run_code, "runs code"),
        (unpickle, "runs code"),
    ],
)
def test_what_breaks_the_law_is_seen(tmp_path, command, fault):
    (tmp_path / "images").mkdir()
    seconds = 2 if command is hang else 60
    (outcome,) = run_cases([("csvs", 1)], tmp_path, command=command, seconds=seconds)
    assert fault in outcome.fault, outcome


@pytest.mark.slow
def test_a_good_command_breaks_no_law(tmp_path):
    (tmp_path / "images").mkdir()
    (outcome,) = run_cases([("csvs", 1)], tmp_path, command=main)
    assert outcome.fault == "" and outcome.code == 2


@pytest.mark.parametrize("how", [mutations.damage, mutations.jpeg, mutations.tar, mutations.lines])
def test_a_seed_gives_the_same_damage(how):
    data = mutations.member(b"a.json", b"\xff\xd8\xff\xc0" + b'{"age": 3}' * 50)
    damaged = [how(data, Random(seed), data) for seed in range(30)]
    assert damaged == [how(data, Random(seed), data) for seed in range(30)]
    assert sum(each != data for each in damaged) > 20


def test_every_module_that_is_imported_beforehand_is_there():
    """The fork server says nothing where an import fails, and each case then takes seconds."""
    assert all(find_spec(name) for name in COMMAND_MODULES)


def test_every_kind_has_a_maker_with_a_description():
    assert all(make.__doc__ for make in KINDS.values())
