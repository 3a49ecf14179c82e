"""The width of a label, from a sample's JSON to the batch."""

import numpy as np
import pytest
import torch

from mivolo_lite.loading.dataset import ShardDataset
from mivolo_lite.loading.task_labels import age_stds
from mivolo_lite.shards.concat import ConcatIndex
from mivolo_lite.shards.sample import Labels, Sample
from mivolo_lite.shards.sample_ref import SampleRef
from mivolo_lite.shards.scan import index_shards
from tests.shards.tiny_shards import make_shards, noise_jpeg, write_shard


@pytest.fixture
def index(tmp_path):
    stds = [3.5, None, 0.0, -2]
    samples = [
        Sample(f"s{n}", noise_jpeg(n), None, Labels((20 + n, 20 + n), extra={} if std is None else {"age_std": std}))
        for n, std in enumerate(stds)
    ]
    (tmp_path / "a").mkdir()
    write_shard(tmp_path / "a" / "0.tar", samples)
    return index_shards(tmp_path / "a")


def batch_of(index, samples):
    return ShardDataset(index, ("face",), 16).read([SampleRef(0, sample) for sample in samples])


def test_a_batch_has_the_widths(index):
    age = batch_of(index, range(4)).age
    assert age.std.dtype == torch.float32 and age.std.tolist() == [3.5, 0, 0.5, 0]


def test_without_widths_there_is_no_tensor(tmp_path):
    plain = make_shards(tmp_path / "b", [3])
    assert age_stds(plain) is None and batch_of(plain, range(3)).age.std is None


def test_sets_with_and_without_widths(index, tmp_path):
    plain = make_shards(tmp_path / "b", [3])
    both = ConcatIndex([plain, index])
    np.testing.assert_array_equal(age_stds(both), np.array([np.nan] * 3 + [3.5, np.nan, 0, -2], dtype=np.float32))
    assert batch_of(both, [0, 3]).age.std.tolist() == [0, 3.5]
    repeated = batch_of(both, [3]).repeat(2)
    assert repeated.age.std.tolist() == [3.5, 3.5]


def test_words_are_no_widths(tmp_path):
    (tmp_path / "w").mkdir()
    sample = Sample("s", noise_jpeg(0), None, Labels((20, 20), extra={"age_std": "wide"}))
    write_shard(tmp_path / "w" / "0.tar", [sample])
    assert age_stds(index_shards(tmp_path / "w")) is None
