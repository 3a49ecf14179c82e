"""Folds of a data set that was packed once."""

import pickle

import numpy as np
import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.loading.config import DataConfig, DataSetConfig
from mivolo_lite.loading.readers import IndexReader
from mivolo_lite.loading.task_labels import age_stds
from mivolo_lite.shards.exclude import leave_out
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample import Labels, Sample
from mivolo_lite.shards.scan import index_shards
from mivolo_lite.shards.subset import fold_numbers, select_folds
from tests.shards.tiny_shards import make_shards, noise_jpeg, write_shard


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty samples in two shards, whose folds are their numbers modulo 5."""
    folder = tmp_path_factory.mktemp("folds")
    for shard in range(2):
        samples = [
            Sample(f"s{number}", noise_jpeg(number, 16), None, Labels((number, number), extra={"fold": number % 5}))
            for number in range(20 * shard, 20 * shard + 20)
        ]
        write_shard(folder / f"{shard}.tar", samples)
    index_shards(folder)
    return folder


def test_folds_select_samples_and_name_the_data(folder):
    index = ShardIndex.load(folder)
    assert select_folds(index, None) is index
    fold, others = select_folds(index, [4]), select_folds(index, [0, 1, 2, 3])
    assert [fold.key(number) for number in range(len(fold))] == [f"s{number}" for number in range(4, 40, 5)]
    assert len(others) == 32 and others.shard_sizes.tolist() == [16, 16]
    assert fold.info["labels"]["age"] == {"known": 8, "ranges": 0, "min": 4, "max": 39}
    assert len({index.digest, fold.digest, others.digest}) == 3
    assert select_folds(index, [3, 1, 2, 0]).digest == others.digest
    again = pickle.loads(pickle.dumps(fold))
    assert again.digest == fold.digest and again.key(1) == fold.key(1) and again.folds == (4,)


def test_a_part_of_a_part_knows_the_data_set_and_its_folds(folder):
    index = ShardIndex.load(folder)
    fold = select_folds(index, [4])
    for part, folds in [(index, None), (fold, (4,)), (leave_out(fold, {"s4"}), (4,)), (leave_out(index, {"s4"}), None)]:
        assert part.full_digest == index.digest and part.folds == folds


def test_folds_that_are_not_there_are_one_line(folder, tmp_path):
    with pytest.raises(UserError, match="has no fold 7; there are 0, 1, 2, 3, 4"):
        select_folds(ShardIndex.load(folder), [1, 7])
    with pytest.raises(UserError, match="has no folds; pack it with --folds 5"):
        select_folds(make_shards(tmp_path / "x", [4]), [0])


def test_folds_and_widths_may_be_text(tmp_path):
    for number, fold in enumerate(["1", "10", "2", " 2 ", "", 0]):
        extra = {"fold": fold, "age_std": "2.5", "smile": "1"}
        (tmp_path / "text").mkdir(exist_ok=True)
        write_shard(
            tmp_path / "text" / f"{number}.tar",
            [Sample(f"s{number}", noise_jpeg(number), None, Labels((30, 30), extra=extra))],
        )
    index = index_shards(tmp_path / "text")
    assert fold_numbers(index) == [0, 1, 2, 10] and len(select_folds(index, [2])) == 2
    assert age_stds(index).tolist() == [2.5] * 6 and index.info["words"] == {"smile": ["1"]}


def test_folds_that_are_words_are_one_line(tmp_path):
    write_shard(tmp_path / "0.tar", [Sample("s", noise_jpeg(0), None, Labels((30, 30), extra={"fold": "first"}))])
    index_shards(tmp_path)
    with pytest.raises(UserError, match=r"its folds are words \(first\); number them in the samples' JSON"):
        select_folds(ShardIndex.load(tmp_path), [0])


def test_training_and_validation_name_folds(folder):
    config = DataConfig({"path": str(folder), "folds": [0, 1, 2, 3]}, {"path": str(folder), "folds": [4]})
    reader = IndexReader(config, 0)
    ages = np.concatenate([index.columns["age_lo"] for index in reader.indexes])
    val = config.load(config.val_set).columns["age_lo"]
    assert sorted([*ages, *val]) == list(range(40)) and set(val % 5) == {4}


def test_folds_in_both_are_refused():
    for train, val in (
        ({"path": "a", "folds": [0, 1]}, {"path": "a", "folds": [1]}),
        ("a", {"path": "a", "folds": [1]}),
    ):
        with pytest.raises(ValueError, match="val: a, folds 1 shares samples with data.train, a"):
            DataConfig(train, val)
    assert DataConfig("a", "a").val == "a"
    with pytest.raises(ValueError, match="val: ./a/, folds 1 shares samples with data.train, a"):
        DataConfig("a", {"path": "./a/", "folds": [1]})
    with pytest.raises(ValueError, match="train: a, folds 1, 2 shares samples with a, folds 0, 1; name each fold once"):
        DataConfig([{"path": "a", "folds": [0, 1]}, {"path": "a", "folds": [1, 2]}], "b")
    assert len(DataConfig([{"path": "a", "folds": [0]}, {"path": "a", "folds": [1]}], "b").train_sets) == 2


@pytest.mark.parametrize("folds", [[], 1, ["1"], [-1], [True], "01"])
def test_folds_are_numbers(folds):
    with pytest.raises(ValueError, match="a: folds .*: give a list such as"):
        DataSetConfig.read({"path": "a", "folds": folds})


def test_folds_of_one_folder_have_their_own_passes(folder):
    sets = [{"path": str(folder), "folds": [0]}, {"path": str(folder), "folds": [1, 2], "weight": 2}]
    reader = IndexReader(DataConfig(train=sets), 0)
    assert reader.passes(24) == {f"{folder}, folds 0": 1.0, f"{folder}, folds 1, 2": 1.0}
