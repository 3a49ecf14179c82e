"""Laws of packing in parts: any number of them, in any order, give the bytes of one command."""

import os
import random
import subprocess
import sys
from multiprocessing import get_context

import pytest

from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.annotations import AnnotationSource
from mivolo_lite.packing.sources.csv import CsvSource
from mivolo_lite.packing.sources.utkface import UTKFaceSource
from mivolo_lite.packing.worker_shards import WorkerShard, pack_worker_shard
from tests.packing.test_pack import SPLIT, GroupImages, digests


@pytest.mark.parametrize("count", [1, 2, 7, pytest.param(50, marks=pytest.mark.slow)])
def test_parts_in_any_order_give_the_bytes_of_one_command(images, tmp_path, count):
    (images / "61_1_2017.jpg").write_bytes(b"")  # one is rejected
    options = {"samples_per_shard": 7, "max_reject_rate": 0.1}
    pack(UTKFaceSource(images), tmp_path / "whole", SPLIT, **options)
    parts = [WorkerShard(number, count) for number in range(1, count + 1)]
    random.shuffle(parts)
    for part in parts[:-1]:
        assert pack_worker_shard(UTKFaceSource(images), tmp_path / "out", SPLIT, part, **options) is None
        assert not (tmp_path / "out").exists()
    packed = pack_worker_shard(UTKFaceSource(images), tmp_path / "out", SPLIT, parts[-1], **options)
    assert len(packed.rejected) == 1 and len(packed.splits["train"]) + len(packed.splits["val"]) == 60
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert not (tmp_path / "out.parts").exists()


@pytest.mark.slow
def test_names_are_kept_apart_over_all_parts(tmp_path):
    pack(GroupImages(), tmp_path / "whole", SPLIT)
    for number in (2, 1, 3):
        pack_worker_shard(GroupImages(), tmp_path / "out", SPLIT, WorkerShard(number, 3))
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


@pytest.mark.slow
def test_parts_packed_at_the_same_time_are_merged_once(images, tmp_path):
    source, out = UTKFaceSource(images), tmp_path / "out"
    processes = [
        get_context("fork").Process(target=pack_worker_shard, args=(source, out, SPLIT, WorkerShard(number, 4)))
        for number in range(1, 5)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert out.exists() and not (tmp_path / "out.parts").exists()


def test_a_part_that_is_there_is_not_read_again(images, tmp_path, monkeypatch):
    pack_worker_shard(UTKFaceSource(images), tmp_path / "out", SPLIT, WorkerShard(1, 2))
    monkeypatch.setattr("mivolo_lite.packing.worker_shards.read_photos", None)
    assert pack_worker_shard(UTKFaceSource(images), tmp_path / "out", SPLIT, WorkerShard(1, 2)) is None


@pytest.mark.parametrize("changed", ["labels", "options"])
def test_parts_of_other_labels_or_options_are_not_merged(images, tmp_path, changed):
    def source(age, megapixels):
        table = ["img_name,age,gender,face_x0,face_y0,face_x1,face_y1,person_x0,person_y0,person_x1,person_y1"]
        names = sorted(path.name for path in images.glob("*.jpg"))
        lines = [f"{name},{age},F,0,0,20,20,-1,-1,-1,-1" for name in names]
        (tmp_path / "labels.csv").write_text("\n".join(table + lines))
        return AnnotationSource(images, tmp_path / "labels.csv", max_megapixels=megapixels)

    pack_worker_shard(source(20, 100), tmp_path / "out", SPLIT, WorkerShard(1, 2), max_reject_rate=1)
    other = source(50, 100) if changed == "labels" else source(20, 50)
    with pytest.raises(UserError, match="00001-of-00002: read from other images or labels"):
        pack_worker_shard(other, tmp_path / "out", SPLIT, WorkerShard(2, 2), max_reject_rate=1)


def test_the_files_may_lie_elsewhere_on_another_machine(images, tmp_path):
    lines = ["path,age", *(f"{path.name},31" for path in images.glob("*.jpg"))]
    for number, folder in enumerate(("a", "b"), 1):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "labels.csv").write_text("\n".join(lines))
        source = CsvSource(images, tmp_path / folder / "labels.csv")
        packed = pack_worker_shard(source, tmp_path / "out", SPLIT, WorkerShard(number, 2))
    assert sum(map(len, packed.splits.values())) == len(lines) - 1


@pytest.mark.slow
def test_processes_agree_who_is_linked_by_photos_of_several(images, tmp_path):
    """Sets of names have another order in each process."""
    names = [path.name for path in sorted(images.glob("*.jpg"))[:12]]
    rows = [f"{name},31,{who},{left},0,{left + 20},20" for name in names for who, left in ((name, 0), (name[:3], 20))]
    (tmp_path / "labels.csv").write_text("\n".join(["path,age,identity,face_x0,face_y0,face_x1,face_y1", *rows]))
    command = [sys.executable, "-m", "mivolo_lite", "pack", "csv", "--images", images, "--csv", tmp_path / "labels.csv"]
    for number in (1, 2):
        options = ["--out", tmp_path / "out", "--split", "all=1", "--max_reject_rate", "1", "--shard", f"{number}/2"]
        environment = {**os.environ, "PYTHONHASHSEED": str(number)}
        packed = subprocess.run([*command, *options], env=environment, capture_output=True, text=True)
        assert packed.returncode == 0, packed.stderr
    assert (tmp_path / "out").is_dir()


def test_what_a_killed_merge_left_is_cleared_away(images, tmp_path):
    (tmp_path / "out.parts.merged" / "00001-of-00002").mkdir(parents=True)
    assert pack_worker_shard(UTKFaceSource(images), tmp_path / "out", SPLIT, WorkerShard(1, 1)) is not None
    assert {path.name for path in tmp_path.iterdir()} == {"UTKFace", "out"}


@pytest.mark.parametrize("name", ["out.parts", "out.parts.merged"])
def test_a_users_own_files_are_not_removed(images, tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="notes.txt: is no part of a data set"):
        pack_worker_shard(UTKFaceSource(images), tmp_path / "out", SPLIT, WorkerShard(1, 1))
    assert (tmp_path / name / "notes.txt").read_text() == "mine" and not (tmp_path / "out").exists()


def test_parts_of_other_images_or_options_are_not_merged(images, tmp_path):
    pack_worker_shard(UTKFaceSource(images), tmp_path / "out", SPLIT, WorkerShard(1, 2), seed=1)
    with pytest.raises(UserError, match="00001-of-00002: read from other images or labels, or with other options"):
        pack_worker_shard(UTKFaceSource(images), tmp_path / "out", SPLIT, WorkerShard(2, 2), seed=0)
    assert not (tmp_path / "out").exists()
    # The command with wrong options left nothing behind, which the right one would stumble over.
    assert pack_worker_shard(UTKFaceSource(images), tmp_path / "out", SPLIT, WorkerShard(2, 2), seed=1) is not None


def test_too_many_rejected_are_told_when_merging_and_nothing_is_lost(images, tmp_path, monkeypatch):
    (images / "61_1_2017.jpg").write_bytes(b"")
    pack_worker_shard(UTKFaceSource(images), tmp_path / "out", SPLIT, WorkerShard(1, 2))
    with pytest.raises(UserError, match="--max_reject_rate"):
        pack_worker_shard(UTKFaceSource(images), tmp_path / "out", SPLIT, WorkerShard(2, 2))
    monkeypatch.setattr("mivolo_lite.packing.worker_shards.read_photos", None)
    packed = pack_worker_shard(UTKFaceSource(images), tmp_path / "out", SPLIT, WorkerShard(2, 2), max_reject_rate=0.1)
    assert len(packed.rejected) == 1


@pytest.mark.parametrize("text", ["3", "0/2", "3/2", "-1/2", "1/2/3", "a/b"])
def test_impossible_parts_are_told(images, tmp_path, capsys, text):
    with pytest.raises(SystemExit) as stopped:
        main(f"pack utkface --images {images} --out {tmp_path}/out --shard={text}".split())
    assert stopped.value.code == 2 and "--shard" in capsys.readouterr().err
    assert not (tmp_path / "out.parts").exists()


def test_the_command_says_what_is_still_missing(images, tmp_path, capsys):
    main(f"pack utkface --images {images} --out {tmp_path}/out --shard 1/2".split())
    assert capsys.readouterr().out == f"worker shard 1/2 is read; {tmp_path}/out appears when the last one is\n"
