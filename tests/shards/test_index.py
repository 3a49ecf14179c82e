"""Indexing shards, ours and other people's."""

import gzip
import io
import json
import os
import pickle
import shutil
import tarfile

import numpy as np
import pytest
import webdataset as wds
from hypothesis import given, settings
from hypothesis import strategies as st

from mivolo_lite.errors import UserError
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.scan import index_shards
from mivolo_lite.shards.storage import ShardFiles
from mivolo_lite.shards.summary import content_of, left_out_of
from tests.shards.tiny_shards import make_shards, noise_jpeg, sample


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


def test_a_folder_of_data_sets_names_one_of_them(tmp_path):
    (tmp_path / "data" / "val").mkdir(parents=True)
    make_shards(tmp_path / "data" / "val", [3])
    with pytest.raises(UserError, match="data: no indexed shards here, but in its folders: .* as in .*/data/val$"):
        ShardIndex.load(tmp_path / "data")
    with pytest.raises(UserError, match="nowhere: no such folder; give one that `mivolo-lite pack`"):
        ShardIndex.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no indexed shards here; pack a data set or run"):
        ShardIndex.load(tmp_path)


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


def test_a_shard_cut_off_anywhere_is_named(tmp_path):
    """Also between two members, and inside a header: tarfile takes both for the end."""
    make_shards(tmp_path, [3])
    path = tmp_path / "part-0000.tar"
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0"))
    for size in {*range(0, end, 256), end - 1, end}:
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="part-0000.tar: damaged or truncated"):
            index_shards(tmp_path)


@pytest.mark.slow
@settings(max_examples=80)
@given(position=st.integers(0, 20_000), garbage=st.binary(min_size=1, max_size=40))
def test_damage_never_costs_a_sample_in_silence(tmp_path_factory, position, garbage):
    """Whatever is written over a tar: it is refused, or every sample is indexed or rejected."""
    folder = tmp_path_factory.mktemp("damaged")
    make_shards(folder, [4])
    path = folder / "part-0000.tar"
    data = bytearray(path.read_bytes())
    position %= len(data) - len(garbage)
    data[position : position + len(garbage)] = garbage
    path.write_bytes(data)
    try:
        index = index_shards(folder, max_reject_rate=1)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert len(index) + index.info["rejected"] >= 4


def test_a_shard_that_changed_is_noticed(tmp_path):
    make_shards(tmp_path, [3])
    with open(tmp_path / "part-0000.tar", "ab") as file:
        file.write(b"\0" * 512)
    with pytest.raises(UserError, match="changed since it was indexed"):
        ShardFiles(ShardIndex.load(tmp_path)).read("face", 0)
    (tmp_path / "part-0000.tar").unlink()
    with pytest.raises(UserError, match="part-0000.tar: missing or changed"):
        ShardIndex.load(tmp_path)


def test_a_shard_that_came_after_the_index_is_named(tmp_path):
    make_shards(tmp_path, [3, 4])
    shutil.copy(tmp_path / "part-0001.tar", tmp_path / "part-0002.tar")
    with pytest.raises(UserError, match="part-0002.tar came after the index, which lacks it; run `mivolo-lite index"):
        ShardIndex.load(tmp_path)
    (tmp_path / "part-0002.tar").unlink()
    assert len(ShardIndex.load(tmp_path)) == 7


def test_an_index_that_is_not_whole_is_noticed(tmp_path):
    make_shards(tmp_path / "a", [3])
    make_shards(tmp_path / "b", [4])
    columns, info = tmp_path / "a" / "index.safetensors", tmp_path / "a" / "dataset.json"
    kept = columns.read_bytes(), info.read_bytes()
    for path, damaged, message in (
        (columns, kept[0][: len(kept[0]) // 2], "damaged index"),
        (columns, (tmp_path / "b" / "index.safetensors").read_bytes(), "not written together"),
        (info, kept[1][:100], "damaged index"),
        (info, kept[1].replace(b'"schema_version": 1', b'"schema_version": 99'), "schema version 99"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"{message}.*run `mivolo-lite index"):
            ShardIndex.load(tmp_path / "a")
        columns.write_bytes(kept[0]), info.write_bytes(kept[1])


def test_a_process_is_sent_the_folder_and_not_the_columns(tmp_path):
    index = make_shards(tmp_path, [30])
    sent = pickle.dumps(index)
    assert len(sent) < 1000
    received = pickle.loads(sent).columns
    assert received.keys() == index.columns.keys()
    for name, column in index.columns.items():
        np.testing.assert_array_equal(received[name], column)


def test_several_processes_index_alike(tmp_path):
    make_shards(tmp_path, [5, 4, 6])
    alone = [(tmp_path / name).read_bytes() for name in ("index.safetensors", "dataset.json")]
    index_shards(tmp_path, workers=2)
    assert [(tmp_path / name).read_bytes() for name in ("index.safetensors", "dataset.json")] == alone


def test_statistics_are_those_of_the_labels(tmp_path):
    index = make_shards(tmp_path, [40])
    labels = [sample(number).labels for number in range(40)]
    counted = index.info["labels"]
    assert counted["face"] == sum(number % 3 != 1 for number in range(40))
    assert counted["age"]["known"] == sum(label.age is not None for label in labels)
    assert counted["age"]["ranges"] == sum(label.age == (20, 29) for label in labels)
    assert counted["gender"] == {name: sum(label.gender == name for label in labels) for name in "MF"}
    assert counted["group"] == {"x": 20, "y": 20}
    ages = index.age_counts(10, 30)
    middles = [min(max(round(sum(label.age) / 2), 10), 30) for label in labels if label.age]
    assert ages.tolist() == [middles.count(age) for age in range(10, 31)]


def test_bad_labels_are_rejected_with_their_reason_up_to_the_limit(tmp_path):
    members = {}
    for number, record in enumerate([{"age": 400}, {"age": "old"}, {"gender": "q"}, {"age": 30}]):
        members |= {f"{number}.jpg": noise_jpeg(number), f"{number}.json": json.dumps(record).encode()}
    members |= {"4.json": b'{"age": 3}', "5.jpg": noise_jpeg(5), "5.json": b"[", "6.jpg": noise_jpeg(6)}
    members |= {
        "7.jpg": noise_jpeg(7),
        "7.json": b"[]",
        "8.jpg": noise_jpeg(8),
        "8.json": b'{"age": 1%s}' % (b"0" * 400),
    }
    write_tar(tmp_path / "s.tar", members)
    with pytest.raises(UserError, match="8 of 9 rejected.*the first is s.tar:0: age 400"):
        index_shards(tmp_path)
    assert len(index_shards(tmp_path, max_reject_rate=0.9)) == 1
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    expected = ["400", "old", "q", "no face or body", "not JSON", "no .json", "not an object", "neither a number"]
    for word, reason in zip(expected, reasons, strict=True):
        assert word in reason and len(reason) < 120
    write_tar(tmp_path / "s.tar", {"3.jpg": noise_jpeg(3), "3.json": b"{}"})
    index_shards(tmp_path)
    assert not (tmp_path / "rejected.jsonl").exists()


def test_keys_shared_by_two_tars_are_told_apart(tmp_path):
    for name in ("a.tar", "b.tar"):
        write_tar(tmp_path / name, {"0001.jpg": noise_jpeg(1), "0001.cls": b"5"})
    index = index_shards(tmp_path)
    assert [index.key(number) for number in range(2)] == ["a/0001", "b/0001"]


def test_a_key_that_comes_back_in_a_tar_is_refused(tmp_path):
    members = [("0001.jpg", noise_jpeg(1)), ("0001.cls", b"5"), ("0002.jpg", noise_jpeg(2)), ("0002.cls", b"5")]
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name, data in members + members[:2]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(UserError, match="s.tar:0001: 0001.jpg occurs more than once"):
        index_shards(tmp_path)


def test_indexing_again_keeps_how_the_crops_were_made(tmp_path):
    make_shards(tmp_path, [4])
    index_shards(tmp_path, {"crop_size": 448}, ["b", "a"])
    again = index_shards(tmp_path)
    assert again.info["crop_policy"] == {"crop_size": 448} and again.groups[:2] == ["b", "a"]


def test_a_name_that_is_no_text_is_rejected(tmp_path):
    members = [
        (f"{name}.{end}", data)
        for name in ("M\udcfcller", "b")
        for end, data in (("jpg", noise_jpeg(0)), ("cls", b"30"))
    ]
    write_tar(tmp_path / "part.tar", dict(members))
    index = index_shards(tmp_path, max_reject_rate=0.5)
    assert index.info["rejected"] == 1 and [index.key(0)] == ["b"]
    assert "ller" in (tmp_path / "rejected.jsonl").read_text()


def test_the_digest_names_the_content(tmp_path):
    first = make_shards(tmp_path / "a", [4]).digest
    assert make_shards(tmp_path / "b", [4]).digest == first
    assert make_shards(tmp_path / "c", [5]).digest != first


def test_a_sidecar_file_is_not_a_compressed_shard(tmp_path):
    make_shards(tmp_path, [2])
    (tmp_path / "part-0000.tar.md5").write_text("0")
    assert len(index_shards(tmp_path)) == 2


def test_empty_and_missing_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="no .tar shards"):
        index_shards(tmp_path)
    with pytest.raises(UserError, match="no such folder; give the folder of the tars"):
        index_shards(tmp_path / "nowhere")
    with pytest.raises(UserError, match="mivolo-lite index"):
        ShardIndex.load(tmp_path)


@pytest.mark.parametrize(
    "label, reason",
    [
        (b'{"age": true}', "age True is neither a number"),
        (b'{"age": NaN}', "does not lie in"),
        (b'{"age": "4_6"}', "age '4_6' is neither a number"),
        (b'{"age": 20, "age": 70}', "'age' twice"),
        (b'{"age": 20, "\\ud800": 1}', "lone surrogate"),
        (b'{"age": 20, "a": "\\uDFFF"}', "lone surrogate"),
        (b'{"age": 20, "a": "\xed\xa0\x80"}', "lone surrogate"),
        (b'{"age": %s20%s}' % (b"[" * 100_000, b"]" * 100_000), "not JSON"),
        (b'{"age": 20, "n": %s}' % (b"9" * 5000), "not JSON"),
        (b'{"group": ["x"]}', "group is neither"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_labels_that_cannot_be_meant_are_rejected(tmp_path, label, reason):
    good = {
        "0.jpg": noise_jpeg(0),
        "0.json": b'{"age": 3, "words": "\\ud83d\\ude00", "nested": %s}' % (b"[" * 300 + b"]" * 300),
    }
    write_tar(tmp_path / "s.tar", good | {"1.jpg": noise_jpeg(1), "1.json": label})
    write_tar(tmp_path / "t.tar", {"2.jpg": noise_jpeg(1), "2.json": b"{}"})
    assert len(index_shards(tmp_path, max_reject_rate=0.5, workers=2)) == 2
    (reject,) = map(json.loads, (tmp_path / "rejected.jsonl").read_text().splitlines())
    assert reason in reject["reason"]


def test_fields_of_numbers_and_words_are_told(tmp_path):
    members = {f"{n}.json": json.dumps({"age": 1, "gender": "M", "smile": value, "n": n}).encode()
               for n, value in enumerate((0, 1, "NA"))}  # fmt: skip
    write_tar(tmp_path / "s.tar", members | {f"{n}.jpg": noise_jpeg(n) for n in range(3)})
    index = index_shards(tmp_path)
    (line,) = left_out_of(ShardIndex.load(tmp_path))
    assert "so no task can learn smile; write one or the other" in line and "extra.n" in index.columns


def test_what_databases_write_for_nothing_is_no_group(tmp_path):
    groups = ("NA", "nan", "n/a", "Null", "none")
    members = {f"{n}.json": json.dumps({"group": name}).encode() for n, name in enumerate(groups)}
    write_tar(tmp_path / "s.tar", members | {f"{n}.jpg": noise_jpeg(n) for n in range(len(groups))})
    assert index_shards(tmp_path).info["groups"] == ["none"]


def test_an_empty_name_is_no_group_and_nobody(tmp_path):
    members = {f"{n}.json": json.dumps({"group": name, "identity": name}).encode() for n, name in enumerate(("", "a"))}
    write_tar(tmp_path / "s.tar", members | {f"{n}.jpg": noise_jpeg(n) for n in range(2)})
    info = index_shards(tmp_path).info
    assert info["groups"] == ["a"] and info["labels"]["identity"] == {"known": 1, "people": 1}


def test_what_is_left_out_of_an_index_is_left_out_of_its_digest(tmp_path):
    make_shards(tmp_path / "a", [6])
    whole = index_shards(tmp_path / "a")
    (tmp_path / "a" / "part-0001.tar").write_bytes(b"")
    write_tar(tmp_path / "a" / "part-0001.tar", {"bad.jpg": b"GIF89a", "bad.json": b"{}"})
    names = {"sample00002", "bad", "sample00004", "unknown"}
    index = index_shards(tmp_path / "a", exclude=names)
    assert [index.key(number) for number in range(4)] == [f"sample0000{number}" for number in (0, 1, 3, 5)]
    assert index.info["excluded"] == 3 and index.info["rejected"] == 0
    assert index.info["exclude_unmatched"] == ["unknown"]
    others = [
        index_shards(tmp_path / "a", exclude={"bad", "sample00001", name}).digest for name in ("sample00002", "x")
    ]
    assert len({whole.digest, index.digest, *others}) == 4


def test_a_list_that_names_all_samples_is_one_clear_line(tmp_path):
    make_shards(tmp_path, [3])
    keys = [index_shards(tmp_path).key(sample) for sample in range(3)]
    with pytest.raises(UserError, match="the list to leave out names all 3 samples"):
        index_shards(tmp_path, exclude=keys)


def test_fields_of_labels_under_other_names_are_named(tmp_path):
    members = {"0.jpg": noise_jpeg(0), "0.json": b'{"Age": 20, "labels": {"sex": "F"}}'}
    write_tar(tmp_path / "s.tar", members)
    index = index_shards(tmp_path)
    assert index.info["fields"] == ["Age", "labels", "labels.sex"]
    assert "no JSON has age or gender; it has Age, labels, labels.sex" in next(left_out_of(index))
    write_tar(tmp_path / "s.tar", members | {"1.jpg": noise_jpeg(0), "1.json": b'{"age": 3, "gender": "F"}'})
    index = index_shards(tmp_path)
    assert not list(left_out_of(index)) and "fields" not in index.info
    assert content_of(index) == "2 samples in 1 shard, ages 3 to 3 (1 known), 0 M, 1 F, 2 faces, 0 bodies"


def test_a_worker_process_does_not_hash_the_index_again(tmp_path, monkeypatch):
    index = make_shards(tmp_path, [4])
    hashed = []
    monkeypatch.setattr(
        "mivolo_lite.shards.index._sha256", lambda path: hashed.append(path) or index.info["index"]["sha256"]
    )
    assert len(pickle.loads(pickle.dumps(index))) == 4 and not hashed
    assert len(ShardIndex.load(tmp_path)) == 4 and len(hashed) == 1
