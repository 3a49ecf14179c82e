"""Staging: a copy that is whole, made once, or an error of one line."""

import errno
import json
import os
import runpy
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.shards import stage as module
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.stage import stage, stage_all
from tests.packing.test_pack import digests


def test_the_copy_is_whole_and_made_once(people, tmp_path, monkeypatch):
    copy = stage(people / "train", tmp_path / "local")
    assert digests(copy) == digests(people / "train")
    assert ShardIndex.load(copy).digest == ShardIndex.load(people / "train").digest
    monkeypatch.setattr(module.shutil, "copytree", None)
    assert stage(people / "train", tmp_path / "local") == copy
    assert [path.name for path in (tmp_path / "local").iterdir()] == [copy.name]


def test_a_list_is_copied_and_keeps_its_weights(people, tmp_path):
    sets = [{"path": str(people / "train"), "weight": 2.0}, {"path": str(people / "val"), "weight": 1.0}]
    copies = json.loads(stage_all(json.dumps(sets), str(tmp_path)))
    assert [each["weight"] for each in copies] == [2.0, 1.0]
    for each, copy in zip(sets, copies, strict=True):
        assert Path(copy["path"]).parent == tmp_path and digests(Path(copy["path"])) == digests(Path(each["path"]))


def test_two_at_the_same_time_make_one_copy(people, tmp_path):
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        (copy,) = {made.result(120) for made in [pool.submit(stage, people / "train", tmp_path) for _ in range(2)]}
    assert list(tmp_path.iterdir()) == [copy]


def test_the_command_prints_the_copy(people, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["stage", str(people / "train"), str(tmp_path)])
    runpy.run_path(module.__file__, run_name="__main__")
    assert [str(path) for path in tmp_path.iterdir()] == [capsys.readouterr().out.strip()]


def test_a_disk_that_fills_up_meanwhile_is_one_line_and_nothing_is_left(people, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copy2", full)
    monkeypatch.setattr(module.shutil.copytree, "__defaults__", (False, None, full, False, False))
    with pytest.raises(UserError, match=r"cannot be copied there: \[Errno 28\] No space left on device$"):
        stage(people / "train", tmp_path / "local")
    assert list((tmp_path / "local").iterdir()) == []


@pytest.mark.parametrize("train", ["[{]", '["a"]', '[{"weight": 2}]'])
def test_a_list_that_cannot_be_meant_is_one_line(train, tmp_path):
    with pytest.raises(UserError, match="write a list of data sets"):
        stage_all(train, str(tmp_path))


@pytest.mark.parametrize("where, message", [("a-file/local", "cannot be copied"), ("full", "0.0 GB free")])
def test_a_place_that_cannot_take_it_is_told(people, tmp_path, monkeypatch, where, message):
    (tmp_path / "a-file").write_text("")
    if where == "full":
        monkeypatch.setattr(module.shutil, "disk_usage", lambda _: module.shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(UserError, match=message):
        stage(people / "train", tmp_path / where)
    assert not list(tmp_path.rglob("*.partial"))
