"""What is read is what was indexed, or the reading stops with a line that says which file and what to do."""

import os
import resource
import shutil

import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.loading.workers import eval_loader
from mivolo_lite.shards.concat import ConcatIndex
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.scan import index_shards
from mivolo_lite.shards.storage import ShardFiles, open_shards
from tests.open_files import open_files_under
from tests.shards.tiny_shards import make_shards, noise_jpeg, of_before_the_crcs, overwrite, sample, write_shard

INPUTS = ("face", "body")


@pytest.fixture
def index(tmp_path):
    """Two shards of one size, whose samples have both images."""
    shards = tmp_path / "shards"
    shards.mkdir()
    for shard, first in enumerate((2, 1001)):
        write_shard(shards / f"part-{shard}.tar", [sample(first + 3 * number) for number in range(6)])
    index = index_shards(shards)
    assert index.info["shards"][0]["bytes"] == index.info["shards"][1]["bytes"]
    return index


def read_all(index, workers=0, inputs=INPUTS):
    return [batch.broken for batch in eval_loader(index, inputs, 16, 6, workers)]


def delete(index):
    index.shard_path(1).unlink()


def truncate(index):
    os.truncate(index.shard_path(1), 5000)


def zero(index):
    index.shard_path(1).write_bytes(bytes(index.shard_path(1).stat().st_size))


def exchange(index):
    shutil.copy(index.shard_path(0), index.shard_path(1))


def flip_a_bit(index):
    data = bytearray(index.shard_path(1).read_bytes())
    data[int(index.columns["face_offset"][9]) + 300] ^= 1
    index.shard_path(1).write_bytes(data)


def replace_an_image(index):
    overwrite(index, 8, "body", noise_jpeg(77)[:1000])


def correct_a_label(index):
    data = index.shard_path(1).read_bytes()
    assert data.count(b'"number": 1010') == 1
    index.shard_path(1).write_bytes(data.replace(b'"number": 1010', b'"number": 1013'))


CHANGES = [delete, truncate, zero, exchange, flip_a_bit, replace_an_image, correct_a_label]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("change", CHANGES)
def test_a_shard_that_changed_after_its_index_was_loaded_stops_the_reading_with_one_line(index, change, workers):
    assert read_all(index, workers) == [()] * 2
    change(index)
    with pytest.raises(UserError, match="part-1.tar: ") as error:
        read_all(index, workers)
    message = str(error.value)
    assert "\n" not in message
    if change is not delete:
        assert (": sample sample010" in message) == (change is not truncate)
        assert f"`mivolo-lite index {index.folder}`" in message


def test_the_message_names_what_differs(index):
    reader = ShardFiles(index)
    correct_a_label(index)
    with pytest.raises(UserError, match="sample sample01010: its labels are not what was indexed"):
        reader.read("face", 9)
    flip_a_bit(index)
    with pytest.raises(UserError, match="sample sample01010: its face is not what was indexed"):
        reader.read("face", 9)


def test_a_bare_age_that_was_changed_is_noticed(tmp_path):
    import webdataset as wds

    with wds.TarWriter(str(tmp_path / "x.tar"), encoder=False) as tar:
        tar.write({"__key__": "a", "jpg": noise_jpeg(1), "cls": b"31"})
    index = index_shards(tmp_path)
    assert read_all(index, inputs=("face",)) == [()]
    overwrite(index, 0, "labels", b"32")
    with pytest.raises(UserError, match="its labels are not what was indexed"):
        read_all(index, inputs=("face",))


def test_a_copy_with_another_time_is_the_same_data_set(index, tmp_path):
    copy = shutil.copytree(index.folder, tmp_path / "copy", copy_function=shutil.copyfile)
    for path in copy.iterdir():
        os.utime(path, (1, 1))
    assert read_all(ShardIndex.load(copy)) == [()] * 2


def test_an_image_that_is_not_asked_for_is_not_read(index):
    overwrite(index, 3, "body", bytes(50))
    assert read_all(index, inputs=("face",)) == [()] * 2


@pytest.mark.parametrize("checks", [False, True])
def test_indexes_of_before_the_crcs_are_read_and_what_they_can_tell_is_checked(index, checks):
    old = of_before_the_crcs(index, checks)
    old.save()
    old = ShardIndex.load(old.folder)
    assert read_all(old) == [()] * 2
    exchange(old)
    if checks:
        with pytest.raises(UserError, match="sample sample01001: its images are not what was indexed"):
            read_all(old)
    else:
        read_all(old)


@pytest.fixture
def few_descriptors():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.slow
def test_more_shards_than_a_process_may_open_are_read(tmp_path, few_descriptors):
    parts = [make_shards(tmp_path / name, [1] * 150) for name in "ab"]
    concatenated = ConcatIndex(parts)
    assert read_all(concatenated, workers=2) == read_all(concatenated) == [()] * 50
    readers = [open_shards(index, 8) for index in (concatenated, *parts)]
    for reader in readers:
        for number in range(len(reader.index)):
            reader.read("face", number)
    assert 0 < open_files_under(tmp_path) <= 64
    del reader, readers
    assert open_files_under(tmp_path) == 0


def test_the_files_used_latest_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr("mivolo_lite.shards.open_files.MOST_OPEN", 2)
    index = make_shards(tmp_path, [1] * 3)
    reader, opened = ShardFiles(index), []
    monkeypatch.setattr(
        index, "shard_path", lambda shard: opened.append(shard) or index.folder / index.shard_name(shard)
    )
    for number in (0, 1, 0, 2, 0, 1):
        reader.read("face", number)
    assert opened == [0, 1, 2, 1]
