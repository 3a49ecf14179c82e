"""Labels of tasks: from the samples' JSON through the index, or the stream, into masked numbers of a batch."""

import json
import math
from itertools import islice

import cv2
import numpy as np
import pytest
import torch

from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.errors import UserError
from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.config import DataConfig
from mivolo_lite.loading.dataset import ShardDataset
from mivolo_lite.loading.readers import READERS, IndexReader, StreamReader
from mivolo_lite.loading.task_labels import label_number, task_columns
from mivolo_lite.loading.transforms import AugmentConfig
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample import Labels, Sample
from mivolo_lite.shards.sample_ref import SampleRef
from mivolo_lite.shards.scan import index_shards
from tests.shards.tiny_shards import noise_jpeg, write_shard

EXTRAS = [
    {"mood": "sad", "smile": 0, "pitch": -1.5, "box": [1, 2], "odd": "a"},
    {"mood": "happy", "smile": True, "odd": 3},
    {"mood": None, "smile": 1, "pitch": 10**400},
    {"pitch": 2},
]
CLASSES = {"mood": ["happy", "sad", "cross"], "smile": ["no", "yes"], "group": ["y", "x"]}


@pytest.fixture
def index(tmp_path):
    samples = [
        Sample(f"s{number}", noise_jpeg(number), None, Labels((30, 30), "F", ["x", "y", None, "x"][number], extra))
        for number, extra in enumerate(EXTRAS)
    ]
    write_shard(tmp_path / "part.tar", samples)
    return index_shards(tmp_path)


def same(found, wanted):
    np.testing.assert_array_equal(found, np.array(wanted, dtype=np.float32))


def test_an_index_keeps_words_and_numbers(index):
    for kept in (index, ShardIndex.load(index.folder)):
        assert kept.info["words"] == {"mood": ["happy", "sad"]}
        extra = {name: column for name, column in kept.columns.items() if name.startswith("extra.")}
        assert set(extra) == {"extra.mood", "extra.smile"}  # a number beyond reason, a list and a mixture are no labels
        same(extra["extra.mood"], [1, 0, math.nan, math.nan])
        same(extra["extra.smile"], [0, 1, 1, math.nan])


def test_tasks_number_labels_by_their_own_classes(index):
    columns = task_columns(index, CLASSES | {"absent": ["a", "b"], "smile": ()})
    same(columns["mood"], [1, 0, math.nan, math.nan])
    same(columns["group"], [1, 0, math.nan, 1])
    same(columns["smile"], [0, 1, 1, math.nan])
    assert np.isnan(columns["absent"]).all()


def test_a_class_named_by_a_number_is_not_a_place(tmp_path):
    samples = [Sample(f"s{n}", noise_jpeg(n), None, Labels(extra={"skin": float(n), "bmi": n})) for n in range(1, 7)]
    samples[0].labels.extra["bmi"] = math.nan
    write_shard(tmp_path / "part.tar", samples)
    columns = task_columns(index_shards(tmp_path), {"skin": list("123456"), "bmi": ()})
    same(columns["skin"], range(6))
    same(columns["bmi"], [math.nan, 2, 3, 4, 5, 6])
    assert label_number(samples[2].labels, "skin", list("123456")) == 2


@pytest.mark.parametrize("nobody", [None, math.nan])
def test_people_without_a_name_are_nobody(tmp_path, nobody):
    names = ["a", nobody, nobody]
    write_shard(
        tmp_path / "part.tar",
        [Sample(f"s{n}", noise_jpeg(n), None, Labels(extra={"identity": name})) for n, name in enumerate(names)],
    )
    index = index_shards(tmp_path)
    same(index.columns["extra.identity"], [0, math.nan, math.nan])
    assert index.info["labels"]["identity"] == {"known": 1, "people": 1}


@pytest.mark.parametrize(
    "classes, message",
    [
        ({"mood": ["happy", "cross"]}, "task mood: 'sad' is not one of its classes happy, cross"),
        ({"smile": ["no"]}, "task smile: 1.0 is not one of"),
        ({"mood": ()}, "task mood: 'happy' is not a number"),
        ({"hat": ["no", "yes"]}, "no sample's JSON has a 'hat'"),
    ],
)
def test_labels_that_cannot_be_learnt_are_told_before_training(index, classes, message):
    with pytest.raises(UserError, match=message):
        IndexReader(DataConfig(train=str(index.folder)), 0, classes)


def test_batches_carry_masks_and_no_label_without_a_image(index):
    dataset = ShardDataset(index, ("face",), 16, tasks=task_columns(index, CLASSES))
    batch = dataset.read([SampleRef(epoch=0, sample=number) for number in range(4)])
    assert batch.tasks["mood"].known.tolist() == [True, True, False, False]
    assert batch.tasks["mood"].value.tolist() == [1, 0, 0, 0] and batch.tasks["mood"].value.dtype == torch.float32
    bodies = ShardDataset(index, ("body",), 16, tasks=task_columns(index, CLASSES))
    assert not bodies.read([SampleRef(epoch=0, sample=0)]).tasks["mood"].known.any()
    there = Batch(**batch.__getstate__())
    assert set(there.tasks) == set(CLASSES)


@pytest.mark.parametrize("workers", [0, 1])
def test_both_readers_say_the_same(index, workers):
    plain = AugmentConfig(randaugment_ops=0, erase=0)
    options = {"image_size": 16, "workers": workers, "augment": plain}
    plan = BatchPlan.resolve(4, None, 1)
    exact = IndexReader(DataConfig(train=str(index.folder), **options), 0, CLASSES)
    address = f"{index.folder}/part.tar"
    loose = StreamReader(DataConfig(train=address, reader="stream", stream_samples=4, **options), 0, CLASSES)
    seen = []
    for reader, batches in ((exact, 1), (loose, 3)):
        found = set()
        for batch in islice(reader.batches(("face",), plan, 0, 0, batches), batches):
            for row in range(len(batch)):
                labels = {name: label.value[row].item() for name, label in batch.tasks.items() if label.known[row]}
                found.add(tuple(labels.items()))
        seen.append(found)
    assert len(seen[0]) == 4 and seen[1] and seen[1] <= seen[0]


@pytest.mark.parametrize("reader", ["index", "stream"])
def test_numbers_with_a_left_and_a_right_change_their_sign_with_the_image(tmp_path, reader):
    """Images that are white on the left, each with a yaw of its own: it is negative where the right is white."""
    half = np.zeros((16, 16, 3), np.uint8)
    half[:, :8] = 255
    jpeg = cv2.imencode(".jpg", half)[1].tobytes()
    labels = [Labels((30, 30), extra={"yaw": 10.0 + n, "pitch": 50.0 + n}) for n in range(40)]
    write_shard(tmp_path / "part.tar", [Sample(f"s{n}", jpeg, None, label) for n, label in enumerate(labels)])
    index_shards(tmp_path)
    config = DataConfig(
        train=f"{tmp_path}/part.tar" if reader == "stream" else str(tmp_path),
        reader=reader, stream_samples=40, image_size=16, workers=0, augment=AugmentConfig(randaugment_ops=0, erase=0),
    )  # fmt: skip
    batches = READERS[reader](config, 0, {"yaw": (), "pitch": ()}, ("yaw",))
    (batch,) = islice(batches.batches(("face",), BatchPlan(40, 40, 1, 1), 0, 0, 1), 1)
    is_flipped = batch.face.pixels[:, 0, 8, 2] < 128
    yaw, pitch = (batch.tasks[name].value for name in ("yaw", "pitch"))
    assert 5 < is_flipped.sum() < 35 and torch.equal(yaw < 0, is_flipped[batch.face.rows.argsort()])
    assert torch.equal(yaw.abs() + 40, pitch)


def test_a_stream_reports_labels_that_cannot_be_meant(index):
    options = {"image_size": 16, "workers": 0, "augment": AugmentConfig(randaugment_ops=0, erase=0)}
    config = DataConfig(train=f"{index.folder}/part.tar", reader="stream", stream_samples=4, **options)
    reader = StreamReader(config, 0, {"mood": ["happy", "cross"]})
    batches = list(islice(reader.batches(("face",), BatchPlan.resolve(4, None, 1), 0, 0, 3), 3))
    told = {line for batch in batches for line in batch.broken}
    assert all("task mood: 'sad'" in line for line in told)
    for batch in batches:
        assert batch.tasks["mood"].value.max() == 0


def test_people_are_told_what_words_there_are(index):
    assert json.loads((index.folder / "dataset.json").read_text())["words"] == {"mood": ["happy", "sad"]}
