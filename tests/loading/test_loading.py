"""Laws of the loaders: what comes out does not depend on how it was read."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.errors import UserError
from mivolo_lite.images.jpeg import decode
from mivolo_lite.images.letterbox import letterbox
from mivolo_lite.loading.config import DataConfig
from mivolo_lite.loading.dataset import ShardDataset, TrainingChanges
from mivolo_lite.loading.readers import IndexReader
from mivolo_lite.loading.transforms import AugmentConfig
from mivolo_lite.loading.workers import eval_loader
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample import Labels, Sample
from mivolo_lite.shards.sample_ref import SampleRef
from mivolo_lite.shards.scan import index_shards
from tests.open_files import open_files_under
from tests.shards.tiny_shards import damage, make_shards, noise_jpeg, sample, write_shard

SIZES = [37, 11, 50, 23, 8]
INPUTS = ("face", "body")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    make_shards(folder, SIZES)
    return folder


def config(folder, **options):
    return DataConfig(train=str(folder), image_size=16, workers=0, block_samples=8, window_blocks=3, **options)


def rows(batches):
    """Every sample of the batches by number: images, masks and labels."""
    table = {}
    for batch in batches:
        face, body = (
            dict(zip(images.rows.tolist(), images.pixels, strict=True)) for images in (batch.face, batch.body)
        )
        for place, number in enumerate(batch.sample.tolist()):
            age = (batch.age.lo[place].item(), batch.age.hi[place].item(), batch.age.known[place].item())
            table.setdefault(number, []).append(
                (
                    face[place].numpy().tobytes() if place in face else b"",
                    body[place].numpy().tobytes() if place in body else b"",
                    place in face,
                    place in body,
                    age,
                    batch.gender[place].item(),
                    batch.gender_known[place].item(),
                )
            )
    return table


def epoch(folder, world_size=1, workers=0, samples_seen=0, global_batch=12, steps=11, **options):
    reader = IndexReader(replace(config(folder, **options), workers=workers), seed=5)
    plan = BatchPlan.resolve(global_batch, None, world_size)
    ranks = [reader.batches(INPUTS, plan, rank, samples_seen, steps) for rank in range(world_size)]
    return rows(batch for of_all_ranks in zip(*ranks, strict=True) for batch in of_all_ranks)


@pytest.fixture(scope="module")
def reference(folder):
    return epoch(folder)


@pytest.mark.slow
@pytest.mark.parametrize("world_size, workers", [(1, 1), (1, 2), (2, 0), (3, 2), (4, 0)])
def test_images_and_labels_do_not_depend_on_ranks_or_workers(folder, reference, world_size, workers):
    assert epoch(folder, world_size, workers) == reference


@pytest.mark.parametrize("workers", [1, 3])
def test_a_batch_stays_as_it_is_while_workers_write_the_next_ones(folder, workers):
    reader = IndexReader(replace(config(folder), workers=workers), seed=5)
    batches = list(reader.batches(INPUTS, BatchPlan.resolve(4, None, 1), 0, 0, 40))
    assert rows(batches) == epoch(folder, global_batch=4, steps=40)
    assert len({batch.face.pixels.data_ptr() for batch in batches if len(batch.face.rows)}) > 35
    assert all(batch.face.pixels.is_contiguous(memory_format=torch.channels_last) for batch in batches)


def test_augmentation_does_not_depend_on_the_batch_or_on_where_the_run_was_resumed(folder, reference):
    resumed = epoch(folder, samples_seen=48, global_batch=6, steps=4)
    assert len(resumed) == 24 and all(resumed[number] == reference[number][:1] for number in resumed)


def test_nor_do_other_lights_cameras_and_things_in_the_way(folder):
    augment = AugmentConfig(rotate=20, photometric=1, occlude=1, degrade=1)
    whole = epoch(folder, augment=augment)
    assert epoch(folder, world_size=3, workers=1, augment=augment) == whole
    resumed = epoch(folder, samples_seen=48, global_batch=6, steps=4, augment=augment)
    assert len(resumed) == 24 and all(resumed[number] == whole[number][:1] for number in resumed)


def test_the_next_epoch_is_augmented_otherwise(folder):
    twice = epoch(folder, steps=22)
    changed = [first != second for first, second in (copies[:2] for copies in twice.values() if len(copies) > 1)]
    assert np.mean(changed) > 0.9


def test_hidden_inputs_never_leave_a_sample_without_any(folder, reference):
    hidden = epoch(folder, drop_face=0.9, drop_body=0.9)
    assert hidden == epoch(folder, world_size=3, drop_face=0.9, drop_body=0.9)
    before = [sum(copies[0][2:4]) for copies in reference.values()]
    after = [sum(copies[0][2:4]) for copies in hidden.values()]
    assert min(after) == 1 and sum(after) < sum(before)
    for copies in hidden.values():
        face, body, has_face, has_body = copies[0][:4]
        assert has_face == any(face) and has_body == any(body)


def test_inputs_are_hidden_as_often_as_was_asked(tmp_path):
    """Both are there; of 2000 draws, a half hides the face, and a quarter of the rest the body."""
    index = ShardIndex(tmp_path, {}, {"face_size": np.ones(2000), "body_size": np.ones(2000)})
    changes = TrainingChanges(AugmentConfig(), {"face": 0.5, "body": 0.25}, seed=1)
    present = ShardDataset(index, INPUTS, 16, changes)._present(np.zeros(2000, np.int64), np.arange(2000))
    assert (present["face"] | present["body"]).all()
    assert present["face"].mean() == pytest.approx(0.5, abs=0.05)
    assert present["body"].mean() == pytest.approx(1 - 0.5 * 0.25, abs=0.03)


@pytest.mark.parametrize("switch", [None, "photometric", "occlude", "degrade", "rotate"])
def test_face_and_body_of_a_person_are_changed_alike(tmp_path, switch):
    augment = AugmentConfig(**({switch: 1} if switch else {}))
    image = noise_jpeg(1)
    write_shard(tmp_path / "s.tar", [Sample(f"{number}", image, image, Labels()) for number in range(20)])
    index_shards(tmp_path)
    table = epoch(tmp_path, steps=1, global_batch=20, augment=augment)
    assert all(face == body for face, body, *_ in (copies[0] for copies in table.values()))
    assert len({copies[0][0] for copies in table.values()}) == 20


def test_evaluation_gives_every_sample_as_it_was_packed(folder):
    index = ShardIndex.load(folder)
    for world_size in (1, 2, 3):
        seen = {}
        for rank in range(world_size):
            for batch in eval_loader(index, INPUTS, 16, 10, rank=rank, world_size=world_size):
                pixels, places = batch.face
                assert len(batch) == 10 and pixels.dtype == torch.uint8 and pixels.shape == (len(places), 3, 16, 16)
                numbers = zip(places.tolist(), batch.sample[places].tolist(), pixels, strict=True)
                seen |= {number: image for place, number, image in numbers if batch.valid[place]}
        assert sorted(seen) == [number for number in range(sum(SIZES)) if number % 3 != 1]
    expected = letterbox(decode(noise_jpeg(0)), 16)
    np.testing.assert_array_equal(seen[0].permute(1, 2, 0).numpy(), expected)


def test_labels_are_exact_ranged_or_masked(folder):
    table = rows(eval_loader(ShardIndex.load(folder), INPUTS, 16, 10))
    for number in range(sum(SIZES)):
        labels = sample(number).labels
        *_, has_face, has_body, age, gender, gender_known = table[number][0]
        assert (has_face, has_body) == (number % 3 != 1, number % 3 != 0)
        assert age == ((*labels.age, True) if labels.age else (0.0, 0.0, False))
        assert gender_known == (labels.gender is not None)
        assert gender == {"M": 0, "F": 1, None: 0}[labels.gender]


def test_a_broken_image_is_absent_told_and_teaches_nothing(folder, tmp_path):
    index = damage(make_shards(tmp_path / "broken", [6]), 0, "face")
    (whole,) = eval_loader(ShardIndex.load(make_shards(tmp_path / "whole", [6]).folder), ("face",), 16, 6)
    (batch,) = eval_loader(index, ("face",), 16, 6)
    assert len(batch.broken) == 1 and "sample00000.face" in batch.broken[0] and "JPEG" in batch.broken[0]
    assert 0 not in batch.face.rows and not batch.age.known[0] and not batch.gender_known[0]
    assert 2 in batch.face.rows and torch.equal(batch.face.pixels, whole.face.pixels[1:])
    (batch,) = eval_loader(damage(index, 2, "face"), INPUTS, 16, 6)
    assert [text.partition(":")[0] for text in batch.broken] == ["sample00000.face", "sample00002.face"]
    assert 2 not in batch.face.rows and 2 in batch.body.rows
    assert batch.gender_known[2] == (sample(2).labels.gender is not None)


def test_few_files_are_kept_open_however_many_shards_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr("mivolo_lite.shards.open_files.MOST_OPEN", 3)
    index = make_shards(tmp_path, [2] * 9)
    dataset = ShardDataset(index, INPUTS, 16)
    for _ in range(2):
        batch = dataset.read([SampleRef(0, number) for number in reversed(range(18))])
    assert not batch.broken and 0 < open_files_under(tmp_path) <= 3
    del dataset
    assert open_files_under(tmp_path) == 0


def test_more_batches_than_shared_memory_holds_are_one_clear_line(folder, monkeypatch):
    def fail(*_):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", fail)
    with pytest.raises(UserError, match="data.workers 2: .*--shm-size"):
        next(iter(eval_loader(ShardIndex.load(folder), INPUTS, 16, 10, workers=2)))


def test_a_batch_is_the_same_behind_a_pipe(folder):
    batch = next(iter(eval_loader(ShardIndex.load(folder), INPUTS, 16, 10)))
    received = pickle.loads(pickle.dumps(batch))
    assert rows([received]) == rows([batch])
    assert all(isinstance(tensor, torch.Tensor) for tensor in (received.sample, received.valid, received.age.lo))


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_leaves_the_global_random_state_alone(folder, workers):
    reader = IndexReader(replace(config(folder), workers=workers), seed=5)
    before = torch.get_rng_state()
    next(iter(reader.batches(INPUTS, BatchPlan.resolve(4, None, 1), 0, 0, 3)))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_augmentation_training_images_are_the_evaluations(folder):
    nothing = AugmentConfig(flip=0, crop_scale=1, randaugment_ops=0, erase=0)
    trained = epoch(folder, augment=nothing)
    evaluated = rows(eval_loader(ShardIndex.load(folder), INPUTS, 16, 10))
    assert all(trained[number][0] == evaluated[number][0] for number in trained)
