"""Indexing shards, ours and other people's."""

import gzip
import io
import json
import os
import tarfile

import numpy as np
import pytest
import webdataset as wds

from mivolo_lite.data.index import ShardIndex, index_shards
from mivolo_lite.errors import UserError
from tests.data.tiny_shards import make_shards, noise_jpeg, sample


def write_tar(path, members, format=tarfile.GNU_FORMAT):
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def bytes_of(index, name, number):
    columns = index.columns
    with open(index.shard_path(int(columns["shard"][number])), "rb") as file:
        return os.pread(file.fileno(), int(columns[f"{name}_size"][number]), int(columns[f"{name}_offset"][number]))


def test_offsets_labels_and_keys_are_those_of_the_samples(tmp_path):
    make_shards(tmp_path, [7, 5])
    index = ShardIndex.load(tmp_path)
    assert len(index) == 12 and index.shard_sizes.tolist() == [7, 5]
    for number in range(12):
        expected = sample(number)
        assert index.key(number) == expected.key
        assert bytes_of(index, "face", number) == (expected.face or b"")
        assert bytes_of(index, "body", number) == (expected.body or b"")
        assert np.isnan(index.columns["age_lo"][number]) == (expected.labels.age is None)
    assert json.loads((tmp_path / "dataset.json").read_text())["samples"] == 12


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_other_peoples_shards_with_long_names_and_cls(tmp_path, format):
    long = "a-folder/" + "n" * 90 if format == tarfile.USTAR_FORMAT else "a-folder/" + "n" * 150
    members = {}
    for number in range(3):
        members |= {f"{long}{number}.jpg": noise_jpeg(number), f"{long}{number}.cls": str(20 + number).encode()}
    members |= {"plain.JPG": noise_jpeg(3), "plain.json": b'{"age": [30, 39], "gender": "Female"}'}
    write_tar(tmp_path / "foreign.tar", members, format)
    index = index_shards(tmp_path)
    assert [index.key(number) for number in range(4)] == [f"{long}{number}" for number in range(3)] + ["plain"]
    assert [bytes_of(index, "face", number) for number in range(4)] == [noise_jpeg(number) for number in range(4)]
    assert index.columns["age_lo"].tolist() == [20, 21, 22, 30] and index.columns["age_hi"][3] == 39
    assert index.columns["gender"][3] == 1


def test_a_stock_webdataset_reads_our_shards(tmp_path):
    make_shards(tmp_path, [6])
    found = list(wds.WebDataset(str(tmp_path / "part-0000.tar"), shardshuffle=False).decode("pil"))
    assert [one["__key__"] for one in found] == [sample(number).key for number in range(6)]
    assert found[0]["face.jpg"].size == (24, 24) and found[1]["body.jpg"].size == (40, 40)
    assert found[0]["json"]["number"] == 0


def test_compressed_shards_are_refused_by_name_and_by_content(tmp_path):
    make_shards(tmp_path / "good", [2])
    data = gzip.compress((tmp_path / "good" / "part-0000.tar").read_bytes())
    for name in ("x.tar.gz", "x.tgz", "sneaky.tar"):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name}.*compressed"):
            index_shards(folder)


@pytest.mark.parametrize("cut", [100, 2000, 5000])
def test_a_truncated_shard_is_named(tmp_path, cut):
    make_shards(tmp_path, [5])
    path = tmp_path / "part-0000.tar"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match="part-0000.tar"):
        index_shards(tmp_path)


def test_a_shard_that_changed_is_noticed(tmp_path):
    make_shards(tmp_path, [3])
    with open(tmp_path / "part-0000.tar", "ab") as file:
        file.write(b"\0" * 512)
    with pytest.raises(UserError, match="changed since it was indexed"):
        ShardIndex.load(tmp_path)


def test_bad_labels_are_rejected_with_their_reason_up_to_the_limit(tmp_path):
    members = {}
    for number, record in enumerate([{"age": 400}, {"age": "old"}, {"gender": "q"}, {"age": 30}]):
        members |= {f"{number}.jpg": noise_jpeg(number), f"{number}.json": json.dumps(record).encode()}
    members |= {"4.json": b'{"age": 3}', "5.jpg": noise_jpeg(5), "5.json": b"[", "6.jpg": noise_jpeg(6)}
    write_tar(tmp_path / "s.tar", members)
    with pytest.raises(UserError, match="6 of 7 rejected"):
        index_shards(tmp_path)
    assert len(index_shards(tmp_path, max_reject_rate=0.9)) == 1
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert len(reasons) == 6 and "400" in reasons[0] and "old" in reasons[1] and "q" in reasons[2]


def test_keys_shared_by_two_tars_are_told_apart(tmp_path):
    for name in ("a.tar", "b.tar"):
        write_tar(tmp_path / name, {"0001.jpg": noise_jpeg(1), "0001.cls": b"5"})
    index = index_shards(tmp_path)
    assert [index.key(number) for number in range(2)] == ["a/0001", "b/0001"]


def test_the_digest_names_the_content(tmp_path):
    first = make_shards(tmp_path / "a", [4]).digest
    assert make_shards(tmp_path / "b", [4]).digest == first
    assert make_shards(tmp_path / "c", [5]).digest != first


def test_empty_and_missing_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="no .tar shards"):
        index_shards(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        index_shards(tmp_path / "nowhere")
    with pytest.raises(UserError, match="mivolo-lite index"):
        ShardIndex.load(tmp_path)
