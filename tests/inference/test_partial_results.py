"""The partial results of predict: what was estimated counts once, whatever ended it and whatever came or went since."""

import os
import subprocess
import sys

import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.inference.partial_results import PartialResults
from mivolo_lite.inference.predict import predict
from mivolo_lite.inference.predictor import Predictor
from mivolo_lite.inference.result_files import RESULT_FILES
from mivolo_lite.inference.resuming import Processes
from mivolo_lite.inference.sources import Item
from mivolo_lite.inference.work import PredictOptions, Result
from tests.inference.scenes import tiny_estimator

SETTINGS = {"model": "a", "tta": "flip"}


@pytest.fixture
def items(tmp_path):
    for name in ("a.jpg", "b.mp4", "c.jpg"):
        (tmp_path / name).write_text(name)
    return [Item("video" if name == "b.mp4" else "image", str(tmp_path / name)) for name in ("a.jpg", "b.mp4", "c.jpg")]


def result(text):
    """``b1`` is the first part of a video, ``c`` is rejected."""
    rejected = [{"image": text, "reason": "é"}] if text == "c" else []
    return Result([{"source": text}], rejected=rejected, more=text == "b1")


def written(tmp_path, items, *results, settings=SETTINGS, rank=0, **options):
    partial_results = PartialResults(tmp_path / "out", items, **options)
    note = partial_results.begin(settings)
    done = {*partial_results.done()}
    partial_results.write(((number, result(text)) for number, text in results), rank)
    return partial_results, note, done


def texts(partial_results):
    return [found.rows[0]["source"] for _, found in partial_results.results()]


def test_results_come_in_the_order_of_the_items_whoever_wrote_them(tmp_path, items):
    partial_results, note, done = written(tmp_path, items, (0, "a"), (2, "c"))
    partial_results.write(iter([(1, result("b1")), (1, result("b2"))]), rank=1)
    assert not note and not done
    assert texts(partial_results) == ["a", "b1", "b2", "c"] and list(partial_results.results())[-1] == (2, result("c"))
    assert partial_results.done() == {0: False, 1: False, 2: True}
    partial_results.remove()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_video_is_done_with_its_last_result_and_anything_else_with_its_only_one(tmp_path, items):
    written(tmp_path, items, (0, "a"), (1, "b1"))
    partial_results, note, done = written(tmp_path, items, (1, "b1"), (1, "b2"))
    assert done == {0} and not note and {*partial_results.done()} == {0, 1}
    assert texts(partial_results) == ["a", "b1", "b2"]


def test_a_line_that_was_cut_off_is_left_out(tmp_path, items):
    partial_results, *_ = written(tmp_path, items, (0, "a"), (1, "b"), (2, "c"))
    (path,) = partial_results.folder.glob("*.jsonl")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        lines = whole[:length].count(b"\n")
        assert texts(partial_results) == ["a", "b", "c"][:lines] and [*partial_results.done()] == [*range(lines)]


def test_photos_may_come_and_go_but_one_that_changed_is_done_again(tmp_path, items):
    written(tmp_path, items, (0, "a"), (1, "b"), (2, "c"))
    os.utime(items[2].address, (1, 1))
    more = [items[1], Item("image", str(tmp_path / "new.jpg")), items[2]]
    partial_results, _, done = written(tmp_path, more, (1, "new"), (2, "c, changed"))
    assert done == {0} and texts(partial_results) == ["b", "new", "c, changed"]


def test_a_photo_that_is_given_twice_has_two_results(tmp_path, items):
    partial_results, *_ = written(tmp_path, [items[0]] * 2, (0, "a"), (1, "again"))
    assert texts(partial_results) == ["a", "again"]


def test_numbered_files_of_another_place_are_written_again(tmp_path, items):
    written(tmp_path, items, (0, "a"), (1, "b"), (2, "c"), numbered=True)
    assert written(tmp_path, items, numbered=True)[2] == {0, 1, 2}
    assert written(tmp_path, items[1:], numbered=True)[2] == set()


@pytest.mark.parametrize(
    "settings, said", [({"model": "b"}, "model"), ({"model": "b", "tta": "none"}, "model and tta")]
)
def test_other_settings_begin_anew_and_are_named(settings, said, tmp_path, items):
    written(tmp_path, items, (0, "a"), (1, "b"))
    _, note, done = written(tmp_path, items, settings=SETTINGS | settings)
    assert not done and note == f"begins anew: the unfinished run there had another {said}"


def test_settings_that_are_damaged_begin_anew(tmp_path, items):
    partial_results, *_ = written(tmp_path, items, (0, "a"), (1, "b"))
    (partial_results.folder / "run.json").write_text("[1")
    _, note, done = written(tmp_path, items)
    assert not done and note == "begins anew: nothing says how the unfinished run there began"


def test_what_an_earlier_version_left_begins_anew(tmp_path, items):
    partial_results, *_ = written(tmp_path, items, (0, "a"))
    (partial_results.folder / "run.json").rename(partial_results.folder / "settings.json")
    (line,) = partial_results.folder.glob("*.jsonl")
    line.write_text('["a", null, [], [], []]\n')
    _, note, done = written(tmp_path, items)
    assert not done and note.startswith("begins anew")


def test_two_commands_do_not_share_a_folder(tmp_path, items):
    out = tmp_path / "out"
    folder = PartialResults(out, items).folder
    folder.mkdir(parents=True)
    tables = [out / name for name in RESULT_FILES]
    for table in tables:
        table.write_text("of the other command, which is just writing them")
    predictor = Predictor(tiny_estimator(), None)
    code = (
        "import sys; from mivolo_lite.system import try_lock; file = open(sys.argv[1], 'wb'); print(try_lock(file));"
        "sys.stdout.flush(); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(folder / "lock")], **pipes) as other:
        assert other.stdout.readline() == b"True\n"
        with pytest.raises(UserError, match="out: another command is writing it; wait for that one, or stop it"):
            predict(predictor, items, out, PredictOptions(), SETTINGS, Processes())
        assert all(table.exists() for table in tables)
    assert not PartialResults(out, items, RESULT_FILES).begin(SETTINGS)
    assert not any(table.exists() for table in tables)


def test_an_estimator_is_known_by_its_weights_and_its_card():
    one, same = tiny_estimator(), tiny_estimator()
    same.load_state_dict(one.state_dict())
    assert one.fingerprint() == same.fingerprint()
    next(same.parameters()).data.view(-1)[0] += 1e-3
    assert one.fingerprint() != same.fingerprint()
