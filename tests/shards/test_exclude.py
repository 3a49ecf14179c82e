"""Samples left out of an index: the same as if they had never been in it, with a digest of its own."""

import pickle

import numpy as np
import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.loading.config import DataConfig
from mivolo_lite.loading.readers import IndexReader, StreamReader
from mivolo_lite.loading.workers import eval_loader
from mivolo_lite.shards.cache import CacheConfig
from mivolo_lite.shards.exclude import count_left_out, leave_out, read_exclusions
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.schema import check_columns, check_info
from mivolo_lite.shards.storage import open_shards
from tests.shards.servers import RangeServer, serving
from tests.shards.test_concat import PLAIN, by_step, read
from tests.shards.tiny_shards import make_shards, sample

OUT = [0, 3, 7, 8, 9, 11]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three shards, of which the list names all samples of the second."""
    folder = tmp_path_factory.mktemp("shards")
    make_shards(folder, [7, 3, 20])
    return folder


@pytest.fixture
def listed(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{sample(number).key}\tblurred\n" for number in OUT) + "of another split\n")
    return path


def test_the_others_are_as_they_were(folder, listed):
    whole = ShardIndex.load(folder)
    index = leave_out(whole, read_exclusions(listed))
    kept = [number for number in range(30) if number not in OUT]
    assert len(index) == 24 and count_left_out(index) == 6 and index.shard_sizes.tolist() == [5, 0, 19]
    assert [index.key(number) for number in range(24)] == [sample(number).key for number in kept]
    shards = open_shards(index, 8)
    for number, own in enumerate(kept):
        if (face := sample(own).face) is not None:
            assert shards.read("face", number) == face
    check_columns(index.columns, check_info(index.info))
    labels = index.info["labels"]
    assert labels["age"]["known"] == sum(sample(number).labels.age is not None for number in kept)
    assert labels["gender"]["F"] == sum(sample(number).labels.gender == "F" for number in kept)


def test_a_list_that_windows_wrote_is_read(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeffa\r\nb\tblurred\r\n".encode())
    assert read_exclusions(tmp_path / "list.txt") == {"a", "b"}


def test_the_digest_names_what_is_left(folder, listed):
    whole = ShardIndex.load(folder)
    index = leave_out(whole, read_exclusions(listed))
    one, other = (leave_out(whole, {sample(number).key}).digest for number in (1, 2))
    assert len({whole.digest, index.digest, one, other}) == 4
    assert leave_out(whole, {sample(1).key, "unknown"}).digest == one
    assert leave_out(whole, {f"{folder}/{sample(1).key}"}).digest == one
    assert leave_out(whole, {"unknown"}) is whole and leave_out(whole, set()) is whole


def test_a_process_is_sent_the_list_and_not_the_columns(folder, listed):
    index = leave_out(ShardIndex.load(folder), read_exclusions(listed))
    sent = pickle.dumps(index)
    assert len(sent) < 1000
    received = pickle.loads(sent)
    assert received.digest == index.digest
    for name, column in index.columns.items():
        np.testing.assert_array_equal(received.columns[name], column)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_training_reads_the_others_alone_wherever_they_are(folder, listed, tmp_path, workers):
    options = {"image_size": 16, "workers": workers, "block_samples": 4, "window_blocks": 3, "augment": PLAIN}
    local = DataConfig(train=str(folder), exclude=str(listed), **options)
    once = by_step(read(local, steps=2))
    assert len({number for batch in once for number in batch}) == 24
    assert by_step(read(local, world_size=2, steps=2)) == once
    with serving(RangeServer(folder)) as server:
        far = DataConfig(server.url, exclude=str(listed), cache=CacheConfig(folder=str(tmp_path / "cache")), **options)
        assert by_step(read(far, steps=2)) == once


def test_evaluation_reads_the_others_alone(folder, listed):
    config = DataConfig(val=str(folder), exclude=str(listed))
    index = config.load(config.val_set)
    batches = list(eval_loader(index, ("face",), 16, 10))
    assert sorted(number for batch in batches for number in batch.sample[batch.valid].tolist()) == list(range(24))


def test_what_cannot_be_left_out_is_one_line(folder, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("\n".join(sample(number).key for number in range(30)))
    with pytest.raises(UserError, match="names all 30 samples"):
        IndexReader(DataConfig(train=str(folder), exclude=str(path)), 1)
    with pytest.raises(UserError, match="data.exclude .*nowhere: No such file"):
        IndexReader(DataConfig(train=str(folder), exclude=str(tmp_path / "nowhere")), 1)
    with pytest.raises(UserError, match="data.exclude: a stream has no index"):
        StreamReader(DataConfig(train="x.tar", reader="stream", stream_samples=5, exclude=str(path)), 1)
