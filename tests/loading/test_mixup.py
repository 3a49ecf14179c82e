"""Mixup, CutMix and C-Mixup: laws of what is mixed with what, and the mixed images by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import betainc, kolmogorov

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.errors import UserError
from mivolo_lite.images.packed import Images
from mivolo_lite.loading.batch import Batch
from mivolo_lite.loading.config import DataConfig
from mivolo_lite.loading.dataset import ShardDataset
from mivolo_lite.loading.mixup import Mixup, MixupConfig, interpolate, mix
from mivolo_lite.loading.order import GlobalOrder
from mivolo_lite.loading.readers import IndexReader, StreamReader
from mivolo_lite.loading.sampler import TrainSampler
from mivolo_lite.loading.workers import BatchLoader
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample_ref import SampleRef

SIDE = 16


def batch_of(ages, present=None, first=0, known=None, body=None):
    """Samples numbered from ``first`` on, of noise that their numbers name; ``body`` says which have one as well."""
    size = len(ages)
    pixels = torch.stack([noise(first + row) for row in range(size)]).contiguous(memory_format=torch.channels_last)
    age = torch.tensor(ages, dtype=torch.float32)
    everyone = torch.ones(size, dtype=torch.bool)
    return Batch(
        face=Images.of(pixels, present),
        body=None if body is None else Images.of(255 - pixels, body),
        age=AgeRange(age, age + 2, everyone if known is None else known),
        gender=torch.zeros(size, dtype=torch.int64),
        gender_known=everyone,
        sample=torch.arange(first, first + size),
        valid=everyone,
    )


def noise(number):
    return torch.randint(0, 256, (3, SIDE, SIDE), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)


def planned(batch, epoch=0, seed=0, **options):
    config = MixupConfig(**({"mixup_alpha": 1.0} | options))
    return Mixup(config, seed)(batch, np.full(len(batch), epoch))


def test_share_and_box_depend_on_seed_epoch_and_sample_alone():
    batch = batch_of(range(12))
    options = {"cutmix_alpha": 1.0, "prob": 0.7}
    mixing = planned(batch, **options).mixing
    part = planned(batch_of(range(6), first=6), **options).mixing
    for name in ("share", "weight", "box"):
        assert torch.equal(getattr(mixing, name)[6:], getattr(part, name))
    assert torch.equal(mixing.partner, planned(batch, **options).mixing.partner)
    for other in ({"epoch": 1}, {"seed": 1}):
        assert not torch.equal(planned(batch, **options, **other).mixing.share, mixing.share)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_are_of_the_larger_part_of_a_beta_distribution(alpha):
    share = planned(batch_of(np.zeros(600)), mixup_alpha=alpha).mixing.share.numpy().astype(np.float64)
    assert share.min() >= 0.5
    larger = np.sort(2 * betainc(alpha, alpha, share[share < 1]) - 1)
    steps = np.linspace(0, 1, len(larger) + 1)
    distance = max((steps[1:] - larger).max(), (larger - steps[:-1]).max())
    assert kolmogorov(np.sqrt(len(larger)) * distance) > 0.01


def test_prob_and_switch_prob_are_the_shares_of_what_is_mixed_and_cut():
    mixing = planned(batch_of(np.zeros(600)), cutmix_alpha=1.0, prob=0.6, switch_prob=0.25).mixing
    is_mixed = mixing.partner != torch.arange(600)
    assert is_mixed.float().mean() == pytest.approx(0.6, abs=0.06)
    assert (mixing.weight[is_mixed] == 1).float().mean() == pytest.approx(0.25, abs=0.06)
    assert (mixing.share[~is_mixed] == 1).all()


def test_nobody_is_mixed_from_the_off_epoch_on():
    assert planned(batch_of(range(4)), off_epoch=2, epoch=1).mixing is not None
    assert planned(batch_of(range(4)), off_epoch=2, epoch=2).mixing is None


@pytest.mark.slow
def test_partners_are_anybody_else_alike():
    partners = np.array([planned(batch_of(range(4)), epoch=epoch).mixing.partner.numpy() for epoch in range(1200)])
    counts = np.array([np.bincount(column, minlength=4) for column in partners.T]) / len(partners)
    assert (np.diag(counts) == 0).all()
    assert counts[~np.eye(4, dtype=bool)] == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.slow
def test_c_mixup_samples_partners_by_a_gaussian_of_the_age_difference():
    ages = np.array([20, 23, 26, 60])
    batch = batch_of(ages)
    partners = np.array([planned(batch, epoch=epoch, bandwidth=3.0).mixing.partner.numpy() for epoch in range(1200)])
    found = np.bincount(partners[:, 0], minlength=4) / len(partners)
    kernel = np.exp(-(((ages - 20) / 3) ** 2) / 2) * [0, 1, 1, 1]
    assert found == pytest.approx(kernel / kernel.sum(), abs=0.04)
    assert (partners[:, 3] == 2).all()  # nobody is near, and the nearest is taken: no weight underflows


def test_c_mixup_interpolates_the_ages():
    batch = planned(batch_of([20, 24, 31, 33]), bandwidth=4.0)
    mixing, age = batch.mixing, batch.age
    _, parts = mix(batch)
    for labels, _ in parts:
        expected = mixing.share * age.lo + (1 - mixing.share) * age.lo[mixing.partner]
        torch.testing.assert_close(labels.age.lo, expected)
        torch.testing.assert_close(labels.age.hi, expected + 2)
    torch.testing.assert_close(parts[0][1] + parts[1][1], torch.ones(4))


def test_deviations_are_interpolated_where_both_are_known():
    batch = batch_of([20, 21])
    both, one = (replace(batch, age=replace(batch.age, std=torch.tensor(std))) for std in ([0.5, 4.0], [2.0, 0.0]))
    share = planned(both, bandwidth=4.0).mixing.share
    std = planned(both, bandwidth=4.0).mixing.age.std
    torch.testing.assert_close(std, share * torch.tensor([0.5, 4.0]) + (1 - share) * torch.tensor([4.0, 0.5]))
    assert (planned(one, bandwidth=4.0).mixing.age.std == 0).all()
    # Of a partner whose box lies outside the image there is nothing: neither is its deviation missed.
    assert interpolate(one.age, torch.tensor([1, 0]), torch.ones(2)).std.tolist() == [2, 0]


def test_a_partner_has_the_same_images_and_a_known_age_likewise():
    face, body = torch.arange(24) % 4 != 0, torch.arange(24) % 3 != 0
    known = torch.arange(24) % 5 != 0
    face[0], body[0] = False, False  # nobody else has neither
    batch = batch_of(np.zeros(24), face, known=known, body=body)
    for epoch in range(20):
        partner = planned(batch, epoch=epoch).mixing.partner
        for mask in (face, body, known):
            assert torch.equal(mask[partner], mask)
        assert partner[0] == 0


def test_without_a_partner_nothing_is_mixed():
    assert planned(batch_of([30])).mixing is None
    assert planned(batch_of([30, 30], known=torch.tensor([True, False]))).mixing is None
    assert mix(batch_of([30]))[1][0][1] == 1.0


def test_mixup_by_hand_of_face_and_body_with_one_partner_and_share():
    face, body = torch.tensor([True, True, True, False]), torch.tensor([True, True, True, True])
    batch = planned(batch_of([1, 2, 3, 4], face, body=body))
    images, _ = mix(batch)
    partner, share = batch.mixing.partner, batch.mixing.share
    assert partner[3] == 3
    for row in range(3):
        for name, first, second in (
            ("face", noise(row), noise(int(partner[row]))),
            ("body", 255 - noise(row), 255 - noise(int(partner[row]))),
        ):
            expected = share[row] * first.float() + (1 - share[row]) * second.float()
            assert (getattr(images, name).pixels[row] - expected).abs().max() <= 0.51
    assert torch.equal(images.body.pixels[3], 255 - noise(3)) and torch.equal(images.face.rows, torch.arange(3))
    assert images.face.pixels.is_contiguous(memory_format=torch.channels_last)


def test_cutmix_puts_in_a_box_of_the_size_that_the_share_says():
    batch = planned(batch_of(range(40)), mixup_alpha=0.0, cutmix_alpha=1.0)
    images, _ = mix(batch)
    for row, partner, share in zip(range(40), batch.mixing.partner.tolist(), batch.mixing.share.tolist(), strict=True):
        own, other, found = noise(row), noise(partner), images.face.pixels[row]
        is_others = ((found == other) & (found != own)).any(0)
        assert ((found == own) | (found == other)).all()
        assert is_others.float().mean() <= 1 - share + 1e-6 and share >= 0.5
        rows, columns = (is_others.any(axis).float().sum() for axis in (1, 0))
        assert rows * columns / SIDE**2 == pytest.approx(1 - share, abs=1e-6)


def test_the_training_loader_plans_and_evaluation_does_not(people):
    index, refs = ShardIndex.load(people / "train"), [SampleRef(0, sample) for sample in range(6)]
    config = DataConfig(train=str(people / "train"), val=str(people / "val"), mixup=MixupConfig(mixup_alpha=0.4))
    training = ShardDataset(index, ["face", "body"], 32, config.changes(3))
    batch = training.read(refs)
    assert torch.equal(batch.mixing.share, training.read(refs).mixing.share)
    assert ShardDataset(index, ["face"], 32).read(refs).mixing is None


def test_a_stream_is_refused():
    config = DataConfig("x.tar", "x", reader="stream", stream_samples=1, mixup=MixupConfig(cutmix_alpha=1.0))
    with pytest.raises(UserError, match="data.mixup: a stream knows no epoch"):
        StreamReader(config, 0)


def test_a_micro_batch_of_one_sample_is_refused(people):
    config = DataConfig(train=str(people / "train"), mixup=MixupConfig(cutmix_alpha=1.0))
    with pytest.raises(UserError, match="data.mixup: a micro-batch of one sample"):
        IndexReader(config, 0).batches(["face"], BatchPlan(4, 1, 2, 2), 0, 0, 1)


@pytest.mark.slow
def test_workers_mix_as_one_process_does(people):
    index = ShardIndex.load(people / "train")
    mixup = MixupConfig(mixup_alpha=0.4, cutmix_alpha=1.0, bandwidth=5.0)
    config = DataConfig(train=str(people / "train"), val=str(people / "val"), mixup=mixup)
    plan, order = BatchPlan(6, 6, 1, 1), GlobalOrder(index.shard_sizes, 0)
    found = []
    for workers in (0, 2):
        dataset = ShardDataset(index, ["face", "body"], 32, config.changes(3))
        batches = BatchLoader(dataset, TrainSampler(order, plan, 0, 0, 5), workers)
        found.append([mix(batch) for batch in batches])
    for (one, parts), (other, other_parts) in zip(*found, strict=True):
        assert torch.equal(one.face.pixels, other.face.pixels) and torch.equal(one.body.pixels, other.body.pixels)
        assert len(parts) == len(other_parts) == 2 and torch.equal(parts[1][1], other_parts[1][1])
        assert torch.equal(parts[1][0].age.lo, other_parts[1][0].age.lo)
        assert torch.equal(parts[1][0].gender, other_parts[1][0].gender)
