"""Laws of packing, on pictures named as UTKFace names them."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mivolo_lite.data.pack import pack, parse_split
from mivolo_lite.data.sources.utkface import UTKFaceSource
from mivolo_lite.errors import UserError
from tests.data.tiny_shards import noise_jpeg

SPLIT = {"train": 0.8, "val": 0.2}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "UTKFace"
    (folder / "deeper" / "still").mkdir(parents=True)
    for number in range(60):
        where = folder / ["", "deeper", "deeper/still"][number % 3]
        ending = ".jpg.chip.jpg" if number % 2 else ".jpg"
        (where / f"{number}_{number % 2}_{number % 5}_2017{number:013d}{ending}").write_bytes(noise_jpeg(number))
    return folder


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


def test_every_picture_byte_for_byte_in_one_split(images, tmp_path):
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


def test_the_same_bytes_with_any_number_of_workers(images, tmp_path):
    for workers in (1, 3):
        pack(UTKFaceSource(images), tmp_path / f"out{workers}", SPLIT, samples_per_shard=10, workers=workers)
    assert digests(tmp_path / "out1") == digests(tmp_path / "out3")


def test_adding_pictures_moves_none_and_duplicates_stay_together(images, tmp_path):
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
        ("20_1_1_20170109142408075.jpg", b"", "JPEG"),
        ("20_1_1_20170109142408075.jpg", b"GIF89a" + b"\0" * 50, "JPEG"),
    ],
)
def test_unusable_pictures_are_listed_with_their_reason(images, tmp_path, name, data, reason):
    (images / name).write_bytes(data)
    with pytest.raises(UserError, match="--max-reject-rate"):
        pack(UTKFaceSource(images), tmp_path / "out", SPLIT)
    assert not (tmp_path / "out").exists() and {path.name for path in tmp_path.iterdir()} == {"UTKFace"}
    packed = pack(UTKFaceSource(images), tmp_path / "out", SPLIT, max_reject_rate=0.1)
    (line,) = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["picture"] == name and reason in record["reason"] and packed.rejected == [record]
    assert sum(map(len, packed.splits.values())) == 60


def test_a_killed_run_leaves_no_half_data_set(images, tmp_path):
    for number in range(2000):
        (images / f"1_0_0_2020{number:013d}.jpg").write_bytes(noise_jpeg(number))
    words = ["pack", "utkface", "--images", str(images), "--out", str(tmp_path / "out"), "--workers", "1"]
    code = f"from mivolo_lite.cli import main; main({words})"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stderr=subprocess.DEVNULL)
    while not (tmp_path / "out.partial").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    pack(UTKFaceSource(images), tmp_path / "out", SPLIT)
    assert not (tmp_path / "out.partial").exists()


def test_an_existing_folder_is_not_overwritten(images, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="already exists"):
        pack(UTKFaceSource(images), tmp_path / "out", SPLIT)


@pytest.mark.parametrize(
    "text", ["train", "train=x", "=1", "train=0.5,val=0.4", "train=1.5,val=-0.5", "train=0.5,train=0.5"]
)
def test_impossible_splits_are_told(images, tmp_path, text):
    with pytest.raises(UserError, match="--split"):
        pack(UTKFaceSource(images), tmp_path / "out", parse_split(text))
    assert not (tmp_path / "out").exists()


def test_a_folder_without_pictures_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, message in (("empty", "no .jpg"), ("nowhere", "no such folder")):
        with pytest.raises(UserError, match=message):
            pack(UTKFaceSource(tmp_path / name), tmp_path / "out", SPLIT)
    assert not (tmp_path / "out.partial").exists()
