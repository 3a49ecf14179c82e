"""The tables of predictions: alike in both layouts, and written whole or not at all."""

import csv
import errno
import json
import os

import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.inference import result_files
from mivolo_lite.inference.result_files import write_results
from mivolo_lite.inference.work import Result

RESULTS = [
    Result([{"source": "é.png", "age": 1.5, "flags": []}, {"source": "é.png", "age": 30.0, "flags": []}]),
    Result(rejected=[{"image": "no.png", "reason": "no photo"}]),
    Result([{"source": "v.mp4", "frame": 0, "age": 7.0, "flags": []}]),
    Result([{"source": "v.mp4", "frame": 1, "age": 8.0, "flags": []}], [{"source": "v.mp4", "track": 1, "flags": []}]),
    Result([{"source": "\udce9.png", "flags": ["nobody found"]}]),
]


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_both_layouts_have_the_same_rows(tmp_path):
    assert write_results(RESULTS, tmp_path, []) == {"rows": 5, "rejected": 1}
    for stem, count in (("predictions", 5), ("tracks", 1)):
        lines = [json.loads(line) for line in (tmp_path / f"{stem}.jsonl").read_text("utf-8").splitlines()]
        cells = table(tmp_path / f"{stem}.csv")
        assert len(lines) == len(cells) == count
        assert [line["source"] for line in lines][:4] == [row["source"] for row in cells][:4]
    assert json.loads((tmp_path / "rejected.jsonl").read_text()) == {"image": "no.png", "reason": "no photo"}


def test_tasks_called_as_other_columns_leave_these_as_they_are(tmp_path):
    tasks = {"source": {"value": "scan", "probability": 0.9}, "flags": {"value": "yes", "probability": 0.8}}
    result = Result([{"source": "a.png", "age": 1.5, "tasks": tasks, "inputs": ["face"], "flags": ["blurred"]}])
    write_results([result], tmp_path, list(tasks))
    (row,) = table(tmp_path / "predictions.csv")
    assert (row["source"], row["flags"], row["inputs"]) == ("a.png", "blurred", "face")
    assert (row["task_source"], row["task_source_probability"], row["task_flags"]) == ("scan", "0.9", "yes")


def test_there_are_tracks_of_videos_alone(tmp_path):
    write_results(RESULTS[:2], tmp_path, [])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"predictions.jsonl", "predictions.csv", "rejected.jsonl"}


def test_a_full_disk_leaves_no_table(tmp_path, monkeypatch):
    def cells_of(row):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(result_files, "cells_of", cells_of)
    with pytest.raises(UserError, match="No space left on device"):
        write_results(RESULTS, tmp_path, [])
    assert list(tmp_path.iterdir()) == []
