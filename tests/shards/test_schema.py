"""An index that does not fit its shards, or itself: one line, wherever it is loaded."""

import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mivolo_lite.errors import UserError
from mivolo_lite.labels import IDENTITY
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.storage import ShardFiles
from tests.shards.tiny_shards import make_shards

NESTED = "[" * 100_000 + "]" * 100_000


def put(path, value):
    """A change of what ``dataset.json`` holds at a path of names, or its removal where the value is ``...``."""

    def change(info, columns):
        *parents, last = path
        for name in parents:
            info = info[name]
        if value is ...:
            del info[last]
        else:
            info[last] = value

    return change


def column(name, make):
    """A change of a column: what ``make`` gives for the one there is, or its removal where it gives None."""

    def change(info, columns):
        columns[name] = make(columns[name])
        if columns[name] is None:
            del columns[name]

    return change


def first(value):
    """A column with another first value."""

    def make(old):
        new = old.copy()
        new[0] = value
        return new

    return make


CHANGES = {
    **{f"no {name}": put([name], ...) for name in ("digest", "samples", "groups", "labels", "shards", "crop_policy")},
    **{
        f"{name} of another type": put([name], value)
        for name, value in {
            "digest": 3,
            "samples": "7",
            "groups": "xy",
            "labels": [],
            "shards": {},
            "crop_policy": "none",
            "words": ["x"],
            "index": [],
        }.items()
    },
    "true samples": put(["samples"], True),
    "other samples": put(["samples"], 8),
    "endless samples": put(["samples"], 10**400),
    "a path as digest": put(["digest"], "../" * 21 + "x"),
    "a group twice": put(["groups"], ["x", "x"]),
    "a group too few": put(["groups"], ["x"]),
    "groups of numbers": put(["groups"], [1, 2]),
    "no shards": put(["shards"], []),
    "shards of numbers": put(["shards"], [1]),
    "shards without size": put(["shards", 0, "bytes"], ...),
    "a negative shard": put(["shards", 0, "bytes"], -1),
    "shards of fractions": put(["shards", 0, "samples"], 4.0),
    "a shard elsewhere": put(["shards", 0, "file"], "/etc/passwd"),
    "a shard above": put(["shards", 0, "file"], "../../x.tar"),
    "a shard with a long name": put(["shards", 0, "file"], "x" * 5000 + ".tar"),
    "a shard with NUL in its name": put(["shards", 0, "file"], "x\0.tar"),
    "no ages": put(["labels", "age"], None),
    "ages without their span": put(["labels", "age", "min"], ...),
    "people as words": put(["labels", IDENTITY], {"people": "many"}),
    **{
        f"no column {name}": column(name, lambda old: None)
        for name in ("shard", "age_hi", "keys", "labels_size", "face_crc")
    },
    "a column too short": column("gender", lambda old: old[:-1]),
    "a column of two dimensions": column("gender", lambda old: old[:, None]),
    "ages of another type": column("age_lo", lambda old: old.astype(np.float64)),
    "half precision": column("age_lo", lambda old: old.astype(np.float16)),
    "a shard that is not there": column("shard", first(99)),
    "a shard far away": column("shard", first(2**31 - 1)),
    "a negative shard number": column("shard", first(-1)),
    "shards out of order": column("shard", lambda old: old[::-1].copy()),
    "a negative offset": column("face_offset", first(-1)),
    "an offset behind the end": column("face_offset", first(2**62)),
    "a negative size": column("face_size", first(-1)),
    "a size over the end": column("body_size", first(2**30)),
    "an age of 400": column("age_hi", first(400)),
    "half an age": column("age_hi", first(np.nan)),
    "a third gender code": column("gender", first(2)),
    "a group without name": column("group", first(7)),
    "keys that go back": column("key_end", first(2**62)),
    "negative keys": column("key_end", first(-5)),
    "more keys": column("keys", lambda old: np.append(old, old)),
    "a word without name": lambda info, columns: (
        info["words"].update(mood=["good"]),
        columns.update({"extra.mood": np.full(7, 1, np.float32)}),
    ),
    "people without number": lambda info, columns: columns.update({"extra.identity": np.full(7, 3, np.float32)}),
    "words as columns of integers": lambda info, columns: columns.update({"extra.mood": np.full(7, 1, np.int64)}),
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    make_shards(folder, [4, 3])
    return folder


def rewrite(source, folder, change):
    """An index with a change, whose two files belong together."""
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    info, columns = json.loads((source / "dataset.json").read_text()), load_file(source / "index.safetensors")
    digest = info["digest"]
    change(info, columns)
    save_file(columns, folder / "index.safetensors", {"digest": str(info.get("digest", digest))})
    content = (folder / "index.safetensors").read_bytes()
    if isinstance(info.get("index"), dict):
        info["index"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "dataset.json").write_text(json.dumps(info))


@pytest.mark.parametrize("name", CHANGES)
def test_an_index_that_does_not_fit_is_one_line(shards, tmp_path, name):
    rewrite(shards, tmp_path, CHANGES[name])
    with pytest.raises(UserError, match="run `mivolo-lite index") as error:
        ShardIndex.load(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
    assert len(str(error.value)) < 400 or "long" in name


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "1", "{", NESTED, f'{{"schema_version": {NESTED}}}', '"\\ud800"'],
    ids=range(8),
)
def test_what_is_no_dataset_json_is_one_line(shards, tmp_path, text):
    rewrite(shards, tmp_path, lambda info, columns: None)
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(UserError, match="dataset.json: .*run `mivolo-lite index") as error:
        ShardIndex.load(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_what_an_older_version_wrote_is_loaded(shards, tmp_path):
    def older(info, columns):
        for name in ("index", "words"):
            del info[name]
        del info["labels"][IDENTITY]
        for name in [name for name in columns if name.startswith(("extra.", "labels_")) or "crc" in name]:
            del columns[name]

    rewrite(shards, tmp_path, older)
    index = ShardIndex.load(tmp_path)
    assert len(index) == 7 and index.key(6) == "sample00006"


def test_any_flipped_bit_of_an_index_is_noticed(shards, tmp_path):
    rewrite(shards, tmp_path, lambda info, columns: None)
    path = tmp_path / "index.safetensors"
    whole = path.read_bytes()
    for place in range(0, len(whole), 41):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(UserError, match="damaged index.*run `mivolo-lite index"):
            ShardIndex.load(tmp_path)


def test_an_index_that_cannot_be_opened_is_one_line(shards, tmp_path):
    rewrite(shards, tmp_path, lambda info, columns: None)
    (tmp_path / "part-0000.tar").unlink()
    (tmp_path / "part-0000.tar").mkdir()
    with pytest.raises(UserError, match="part-0000.tar: missing or changed"):
        ShardFiles(ShardIndex.load(tmp_path)).read("face", 0)


@pytest.mark.parametrize(
    "path, value",
    [
        (("group",), {"a": "many"}),
        (("group",), None),
        (("age", "ranges"), 1.5),
        (("age", "by_decade"), {"20-29": [1]}),
        (("age", "by_decade"), {"the twenties": 1}),
        (("gender",), {"M": 1, "F": 1, "X": {}}),
    ],
)
def test_counts_of_labels_are_counts(shards, tmp_path, path, value):
    def other(info, columns):
        *outer, last = path
        labels = info["labels"]
        for name in outer:
            labels = labels[name]
        labels[last] = value

    rewrite(shards, tmp_path, other)
    with pytest.raises(UserError, match="damaged index.*labels"):
        ShardIndex.load(tmp_path)
