"""Folders of results in which nothing old is left, and writes that fail."""

import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.files import result_folder, write_text, written_aside


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(UserError, match=f"{path}: cannot be written: No space left on device"):
        with written_aside(path) as partial:
            partial.write_text("half of the n")
            raise OSError(28, "No space left on device")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_results_of_an_earlier_command_go_and_the_users_files_stay(tmp_path):
    (tmp_path / "report.html").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    result_folder(tmp_path, ("report.html", "metrics.json"))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written: Not a directory"):
        result_folder(tmp_path / "file" / "out", ())
    with pytest.raises(UserError, match="file: cannot be written: a file of that name is there; choose another"):
        result_folder(tmp_path / "file", ())
