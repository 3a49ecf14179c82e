"""Laws of packing, on images named as UTKFace names them."""

import errno
import hashlib
import json
import os
import signal
import sys
import tarfile
from itertools import groupby
from multiprocessing import get_context

import cv2
import numpy as np
import pytest

from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.source import Source, SourceImage
from mivolo_lite.packing.sources.utkface import UTKFaceSource
from mivolo_lite.packing.splitting import parse_split
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample import Labels, Sample
from tests.shards.tiny_shards import noise_jpeg

SPLIT = {"train": 0.8, "val": 0.2}


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def faces(packed):
    """The stored bytes of every face by split."""
    found = {}
    for name, index in packed.splits.items():
        columns = index.columns
        for number in range(len(index)):
            data = index.shard_path(int(columns["shard"][number])).read_bytes()
            offset = int(columns["face_offset"][number])
            found.setdefault(name, []).append(data[offset : offset + int(columns["face_size"][number])])
    return found


def test_every_image_byte_for_byte_in_one_split(images, tmp_path):
    packed = pack(UTKFaceSource(images), tmp_path / "out", SPLIT, samples_per_shard=10)
    stored = faces(packed)
    assert sorted(sum(stored.values(), [])) == sorted(noise_jpeg(number) for number in range(60))
    assert (tmp_path / "out" / "train" / "train-000000.tar").exists()
    assert all(shard["samples"] <= 10 for shard in packed.splits["train"].info["shards"])
    index = packed.splits["train"]
    for number in range(len(index)):
        age = int(index.key(number).split("_20170")[0].split("_")[-3])
        assert index.columns["age_lo"][number] == age
        assert index.columns["gender"][number] == age % 2
        assert index.groups[index.columns["group"][number]] == ("White", "Black", "Asian", "Indian", "Others")[age % 5]


@pytest.mark.slow
def test_the_same_bytes_with_any_number_of_workers(images, tmp_path):
    for workers in (1, 3):
        pack(UTKFaceSource(images), tmp_path / f"out{workers}", SPLIT, samples_per_shard=10, workers=workers)
    assert digests(tmp_path / "out1") == digests(tmp_path / "out3")


@pytest.mark.slow
def test_adding_images_moves_none_and_duplicates_stay_together(images, tmp_path):
    before = faces(pack(UTKFaceSource(images), tmp_path / "before", SPLIT))
    for number in range(60, 120):
        (images / f"{number - 60}_0_0_2018{number:013d}.jpg").write_bytes(noise_jpeg(number))
    for number in range(60):
        (images / f"{number}_0_0_2019{number:013d}.jpg").write_bytes(noise_jpeg(number))
    after = faces(pack(UTKFaceSource(images), tmp_path / "after", SPLIT))
    assert set(before["train"]) <= set(after["train"]) and set(before["val"]) <= set(after["val"])
    assert not set(after["train"]) & set(after["val"])
    assert sum(map(len, after.values())) == 180


@pytest.mark.parametrize(
    "name, data, reason",
    [
        ("61_1_20170109142408075.jpg", noise_jpeg(1), "file name"),
        ("121_1_1_20170109142408075.jpg", noise_jpeg(1), "121"),
        ("20_1_1_20170109142408075.jpg", noise_jpeg(1)[:300], "JPEG"),
        ("20_1_1_20170109142408075.jpg", noise_jpeg(1)[:-30], "JPEG"),
        ("20_1_1_20170109142408075.jpg", b"", "it is empty"),
        ("20_1_1_20170109142408075.jpg", b"GIF89a" + b"\0" * 50, "it is a GIF, damaged"),
    ],
)
def test_unusable_images_are_listed_with_their_reason(images, tmp_path, name, data, reason):
    (images / name).write_bytes(data)
    with pytest.raises(UserError, match="--max_reject_rate .* raise the limit, and rejected.jsonl lists them all"):
        pack(UTKFaceSource(images), tmp_path / "out", SPLIT)
    assert not (tmp_path / "out").exists() and {path.name for path in tmp_path.iterdir()} == {"UTKFace"}
    packed = pack(UTKFaceSource(images), tmp_path / "out", SPLIT, max_reject_rate=0.1)
    (line,) = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["image"] == name and reason in record["reason"] and packed.rejected == [record]
    assert sum(map(len, packed.splits.values())) == 60


@pytest.mark.parametrize("step", ["people_in_several", "index_shards", "write_rejected"])
def test_a_run_killed_at_any_step_leaves_no_half_data_set(images, tmp_path, step):
    process = get_context("fork").Process(target=pack_until_killed_at, args=(step, images, tmp_path / "out"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "out.partial").exists() and not (tmp_path / "out").exists()
    packed = pack(UTKFaceSource(images), tmp_path / "out", SPLIT)
    assert sum(map(len, packed.splits.values())) == 60 and not (tmp_path / "out.partial").exists()


def pack_until_killed_at(step, images, out):
    os.setsid()
    setattr(sys.modules[pack.__module__], step, lambda *_, **__: os.killpg(0, signal.SIGKILL))
    pack(UTKFaceSource(images), out, SPLIT)


def test_a_process_with_threads_of_opencv_can_pack(images, tmp_path):
    process = get_context("fork").Process(target=pack_after_opencv, args=(images, tmp_path / "out"))
    process.start()
    process.join(60)
    exitcode = process.exitcode
    if exitcode is None:
        os.killpg(process.pid, signal.SIGKILL)
    assert exitcode == 0


def pack_after_opencv(images, out):
    os.setsid()
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (0, 0), 3)
    pack(UTKFaceSource(images), out, SPLIT, workers=2)


def test_two_commands_do_not_write_one_folder(images, tmp_path):
    fork, out = get_context("fork"), tmp_path / "out"
    begun, go_on = fork.Event(), fork.Event()
    process = fork.Process(target=pack_and_wait, args=(images, out, begun, go_on))
    process.start()
    assert begun.wait(60)
    with pytest.raises(UserError, match="--out .*out: another command is writing it"):
        pack(UTKFaceSource(images), out, SPLIT)
    assert (tmp_path / "out.partial").exists()
    go_on.set()
    process.join()
    assert process.exitcode == 0 and {path.name for path in tmp_path.iterdir()} == {"UTKFace", "out"}
    assert sum(len(ShardIndex.load(out / name)) for name in SPLIT) == 60


def pack_and_wait(images, out, begun, go_on):
    def wait(*arguments):
        begun.set()
        go_on.wait(60)
        return write(*arguments)

    module = sys.modules[pack.__module__]
    write, module.write_rejected = module.write_rejected, wait
    pack(UTKFaceSource(images), out, SPLIT)


def test_a_failure_at_the_very_end_leaves_nothing(images, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mivolo_lite.packing.pack.write_rejected", fail)
    with pytest.raises(UserError, match="--out .*out: cannot be written: No space left on device; choose"):
        pack(UTKFaceSource(images), tmp_path / "out", SPLIT)
    assert {path.name for path in tmp_path.iterdir()} == {"UTKFace"}


@pytest.mark.parametrize("name", ["out.partial", "out.lock"])
@pytest.mark.parametrize("content", ["", "a user's own\n"])
def test_what_a_user_has_beside_it_is_not_removed(images, tmp_path, name, content):
    mine = tmp_path / name / "notes.txt" if name == "out.partial" else tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text(content)
    with pytest.raises(UserError, match=f"{name}: was not made by .*; move it, or choose another --out"):
        pack(UTKFaceSource(images), tmp_path / "out", SPLIT)
    assert mine.read_text() == content and {path.name for path in tmp_path.iterdir()} == {"UTKFace", name}


def test_an_existing_folder_is_not_overwritten(images, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="already exists"):
        pack(UTKFaceSource(images), tmp_path / "out", SPLIT)


@pytest.mark.parametrize(
    "text",
    [
        "train",
        "train=x",
        "=1",
        "train=0.5,val=0.4",
        "train=1.5,val=-0.5",
        "train=0.5,train=0.5",
        "train=nan,val=1",
        "../train=1",
        "a/b=1",
        "train=1,val=0",
        "train=0.9999999,val=0.0000001",
    ],
)
def test_impossible_splits_are_told(images, tmp_path, text):
    with pytest.raises(UserError, match="--split"):
        pack(UTKFaceSource(images), tmp_path / "out", parse_split(text))
    assert not (tmp_path / "out").exists()


def test_a_folder_without_images_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, message in (("empty", "holds no images"), ("nowhere", "no such folder")):
        with pytest.raises(UserError, match=message):
            pack(UTKFaceSource(tmp_path / name), tmp_path / "out", SPLIT)
    assert not (tmp_path / "out.partial").exists()


class GroupImages(Source):
    """Images of several people, who all have the same name."""

    def items(self):
        return [f"{number:03d}" for number in range(40)]

    def read(self, item):
        people = [
            Sample("someone", noise_jpeg(10 * int(item) + place), None, Labels((place, place), extra={"image": item}))
            for place in range(int(item) % 4 + 1)
        ]
        return SourceImage(item.encode(), people)


@pytest.mark.slow
def test_people_of_one_image_stay_together_and_get_names_of_their_own(tmp_path):
    packed = pack(GroupImages(), tmp_path / "out", {"a": 0.5, "b": 0.5}, samples_per_shard=7, workers=2)
    images = {
        name: [read_json(index, number)["image"] for number in range(len(index))]
        for name, index in packed.splits.items()
    }
    assert not set(images["a"]) & set(images["b"])
    everybody = images["a"] + images["b"]
    together = [item for item, _ in groupby(everybody)]
    assert len(together) == 40 and together != sorted(together)
    assert {item: everybody.count(item) for item in set(everybody)} == {
        f"{number:03d}": number % 4 + 1 for number in range(40)
    }
    keys = {index.key(number) for index in packed.splits.values() for number in range(len(index))}
    assert len(keys) == 100 and {"someone", "someone_2", "someone_100"} <= keys


def read_json(index, number):
    with tarfile.open(index.shard_path(int(index.columns["shard"][number]))) as tar:
        return json.load(tar.extractfile(f"{index.key(number)}.json"))


@pytest.mark.parametrize(
    "words, message",
    [
        ("pack nobody", "no source 'nobody'"),
        ("pack utkface", "images"),
        ("pack utkface --out {tmp}/out", "images"),
        ("pack utkface --images {tmp}/UTKFace", "out"),
        ("pack utkface --images {tmp}/nowhere --out {tmp}/out", "no such folder"),
        ("pack utkface --images {tmp}/UTKFace --out {tmp}", "already exists"),
        ("pack utkface --images {tmp}/UTKFace --out {tmp}/UTKFace/1/out --split train", "--split"),
        ("pack utkface --images {tmp}/UTKFace --out {tmp}/a-file/out", "cannot be written"),
        ("pack utkface --images {tmp}/UTKFace --out {tmp}/out --workers 0", "workers"),
        ("pack utkface --images {tmp}/UTKFace --out {tmp}/out --max-reject-rate 2", "max_reject_rate"),
        ("pack utkface --images {tmp}/UTKFace --out {tmp}/out --speed 2", "speed"),
        ("index", "folder"),
        ("index {tmp}/nowhere", "no such folder"),
        ("index {tmp}/a-file", "no such folder"),
        ("index {tmp}/UTKFace", "no .tar"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line_and_exit_code_2(images, tmp_path, capsys, words, message):
    (tmp_path / "a-file").write_text("")
    with pytest.raises(SystemExit) as stopped:
        main(words.format(tmp=tmp_path).split())
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1 and message in error
    assert {path.name for path in tmp_path.iterdir()} == {"UTKFace", "a-file"}


def test_packing_tells_what_it_made(images, tmp_path, capsys):
    (images / "61_1_2017.jpg").write_bytes(b"")
    main(f"pack utkface --images {images} --out {tmp_path}/out --max-reject-rate 0.1 --split all=1".split())
    summary = capsys.readouterr().out
    assert "all: 60 samples in 1 shard, ages 0 to 59, 30 M, 30 F, 60 faces, 0 bodies" in summary
    assert f"1 image rejected, listed in {tmp_path}/out/rejected.jsonl" in summary
