"""Several data sets read as one: the same images and labels as each alone, whoever reads them and from wherever."""

from dataclasses import replace

import numpy as np
import pytest

from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.errors import UserError
from mivolo_lite.labels import NO_CODE
from mivolo_lite.loading.config import DataConfig, DataSetConfig
from mivolo_lite.loading.readers import IndexReader, StreamReader
from mivolo_lite.loading.transforms import AugmentConfig
from mivolo_lite.shards.cache import CacheConfig
from mivolo_lite.shards.concat import ConcatIndex, concat_labels
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.scan import index_shards
from mivolo_lite.shards.storage import open_shards
from tests.loading.test_loading import INPUTS, rows
from tests.open_files import open_files_under
from tests.shards.servers import RangeServer, serving
from tests.shards.tiny_shards import damage, make_shards, sample, write_shard

CLASSES = {"group": ["x", "y", "z"], "number": ()}
LABEL_COLUMNS = ("age_lo", "age_hi", "gender", "group")
PLAIN = AugmentConfig(flip=0, crop_scale=1, randaugment_ops=0, erase=0)


def other_sample(number):
    """Of the second set: the same keys again, other images, other words for the groups, and no number."""
    one = sample(number + 500)
    labels = replace(one.labels, group=["z", "y"][number % 2], extra={})
    return replace(one, key=f"sample{number:05d}", labels=labels)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    make_shards(folder / "a", [30, 18])
    for name, numbers in {"b": range(24), "c": range(40, 60)}.items():
        (folder / name).mkdir()
        write_shard(folder / name / "part-0000.tar", [other_sample(number) for number in numbers])
        index_shards(folder / name)
    return folder


def config(train, **options):
    options = {"image_size": 16, "workers": 0, "block_samples": 8, "window_blocks": 3} | options
    return DataConfig(train=train, **options)


def both(folders):
    return [{"path": f"{folders}/a", "weight": 3}, f"{folders}/b"]


def read(config, world_size=1, samples_seen=0, global_batch=12, steps=10, classes=None):
    reader, plan = IndexReader(config, 5, classes), BatchPlan.resolve(global_batch, None, world_size)
    return [list(reader.batches(INPUTS, plan, rank, samples_seen, steps)) for rank in range(world_size)]


def by_step(ranks):
    return [rows(step) for step in zip(*ranks, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("world_size, workers, seen", [(1, 2, 0), (2, 0, 0), (3, 2, 0), (4, 0, 48), (1, 0, 72)])
def test_a_steps_samples_do_not_depend_on_ranks_workers_or_where_it_was_resumed(folders, world_size, workers, seen):
    undisturbed = by_step(read(config(both(folders))))
    found = read(config(both(folders), workers=workers), world_size, seen, steps=10 - seen // 12)
    assert by_step(found) == undisturbed[seen // 12 :]


def test_samples_are_those_of_their_sets(folders):
    """Images, labels and tasks, whose groups have other codes in each set."""
    table = {}
    (batches,) = read(config(both(folders), augment=PLAIN), steps=12, classes=CLASSES)
    for batch in batches:
        for place, number in enumerate(batch.sample.tolist()):
            tasks = {name: label.value[place].item() for name, label in batch.tasks.items() if label.known[place]}
            table[number] = (*rows([batch])[number][0], tasks)
    assert sorted(table) == list(range(48 + 24))  # 144 samples in shares of 3 and 1 are 2 passes and 1 and a half
    for path, first, make in ((f"{folders}/a", 0, sample), (f"{folders}/b", 48, other_sample)):
        (alone,) = read(config(path, augment=PLAIN), steps=8)
        alone = rows(alone)
        for number in alone:
            *content, tasks = table[first + number]
            assert tuple(content) == alone[number][0]
            labels = make(number).labels
            assert tasks.pop("group") == CLASSES["group"].index(labels.group)
            assert tasks == labels.extra


def test_a_list_of_one_is_that_data_set(folders):
    alone, listed = (IndexReader(config(train), 5) for train in (f"{folders}/a", [DataSetConfig(f"{folders}/a", 7)]))
    assert listed.digest == alone.digest and listed.passes(100) == {}
    assert by_step(read(config([f"{folders}/a"]))) == by_step(read(config(f"{folders}/a")))


def test_each_set_has_passes_of_its_own(folders):
    reader = IndexReader(config(both(folders)), 5)
    assert reader.samples == 72
    assert reader.passes(96) == {f"{folders}/a": 72 / 48, f"{folders}/b": 24 / 24}


def test_ages_count_as_often_as_they_are_drawn(folders):
    reader = IndexReader(config(both(folders)), 5)
    own = [part.age_counts(0, 100) for part in reader.indexes]
    np.testing.assert_array_equal(reader.age_counts(0, 100), np.rint(1.5 * own[0] + own[1]))


def test_the_digest_names_the_sets_and_their_shares(folders):
    a, b = f"{folders}/a", f"{folders}/b"
    lists = [[a, b], [b, a], [{"path": a, "weight": 2}, b], [{"path": a, "weight": 4}, {"path": b, "weight": 2}]]
    digests = [IndexReader(config(train), 5).digest for train in lists]
    assert digests[2] == digests[3] and len(set(digests)) == 3
    for folder in (a, b):
        assert all(IndexReader(config(folder), 5).digest in digest for digest in digests)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_set_at_a_url_beside_one_in_a_folder(folders, tmp_path, workers):
    with serving(RangeServer(folders / "b")) as server:
        options = {"cache": CacheConfig(folder=str(tmp_path), readahead_blocks=2), "workers": workers}
        far = [both(folders)[0], server.url]
        assert by_step(read(config(far, **options), 2)) == by_step(read(config(both(folders)), 2))
        asked = {name for name, *_ in server.asked}
    assert asked == {"dataset.json", "index.safetensors", "part-0000.tar"}


def test_its_data_sets_share_the_open_files(folders, monkeypatch):
    monkeypatch.setattr("mivolo_lite.shards.open_files.MOST_OPEN", 3)
    concatenated = open_shards(ConcatIndex([ShardIndex.load(folders / name) for name in "abc"]), 4)
    for number in range(len(concatenated.index)):
        concatenated.read("face", number)
    assert open_files_under(folders) == 3


def test_groups_of_several_indexes_are_told_apart_by_their_names(tmp_path):
    groups_and_codes = [(["b", "c"], [0, 1, NO_CODE]), ([], [NO_CODE]), (["a", "c"], [1, 0])]
    indexes = [
        ShardIndex(tmp_path, {"groups": groups}, {name: np.uint8(codes) for name in LABEL_COLUMNS})
        for groups, codes in groups_and_codes
    ]
    columns, groups = concat_labels(indexes)
    assert [None if code == NO_CODE else groups[code] for code in columns["group"]] == ["b", "c", None, None, "c", "a"]
    assert columns["gender"].tolist() == columns["age_lo"].tolist() == [0, 1, NO_CODE, NO_CODE, 1, 0]


def test_a_broken_image_is_named_with_its_folder(folders, tmp_path):
    damage(make_shards(tmp_path / "d", [6]), 0, "face")
    (batches,) = read(config([f"{folders}/a", f"{tmp_path}/d"]), steps=1)
    (broken,) = [text for batch in batches for text in batch.broken]
    assert broken.startswith(f"{tmp_path}/d/sample00000.face: ")


@pytest.mark.parametrize(
    "train, message",
    [
        (["{0}/a", "{0}/a/"], "data.train: .*/a and .*/a are the same data set"),
        (["{0}/a", "{0}/nowhere"], "nowhere: no such folder"),
        ([{"path": "{0}/a", "weight": 1.0000000001}, "{0}/b"], "weights .* fewer digits"),
    ],
)
def test_a_list_that_cannot_be_meant_is_one_line(folders, train, message):
    filled = [
        entry.format(folders) if isinstance(entry, str) else entry | {"path": entry["path"].format(folders)}
        for entry in train
    ]
    with pytest.raises(UserError, match=message) as error:
        IndexReader(config(filled), 5)
    assert "\n" not in str(error.value)


def test_a_label_that_no_set_has_is_named_with_all_of_them(folders):
    with pytest.raises(UserError, match="/a, .*/b: no sample's JSON has a 'mood'"):
        IndexReader(config(both(folders)), 5, {"mood": ("good", "bad")})
    with pytest.raises(UserError, match="/b: task group: 'z' is not one of its classes"):
        IndexReader(config(both(folders)), 5, {"group": ("x", "y")})


def test_a_stream_takes_no_list(folders):
    with pytest.raises(UserError, match="data.train: reader: stream"):
        StreamReader(config(both(folders), reader="stream", stream_samples=10), 5)
