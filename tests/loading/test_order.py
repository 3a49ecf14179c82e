"""Laws of the global order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mivolo_lite.loading.order import ORDER_VERSION, GlobalOrder
from mivolo_lite.shards.blocks import cut_into_blocks

sizes = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(lambda sizes: sum(sizes) > 0)
settings_of_order = {"seed": st.integers(0, 5), "block_samples": st.integers(1, 12), "window_blocks": st.integers(1, 6)}


@given(sizes=sizes, epoch=st.integers(0, 3), **settings_of_order)
@settings(max_examples=60)
def test_every_sample_exactly_once_an_epoch(sizes, epoch, **options):
    order = GlobalOrder(np.array(sizes), **options)
    epochs, samples = order.samples(epoch * len(order), len(order))
    assert set(epochs.tolist()) == {epoch}
    assert sorted(samples.tolist()) == list(range(sum(sizes)))


@given(sizes=sizes, first=st.integers(0, 300), count=st.integers(0, 120), **settings_of_order)
@settings(max_examples=60)
def test_a_stretch_of_the_stream_is_that_stretch_however_it_is_asked_for(sizes, first, count, **options):
    order = GlobalOrder(np.array(sizes), **options)
    whole = order.samples(0, first + count)
    fresh = GlobalOrder(np.array(sizes), **options).samples(first, count)
    for all_at_once, from_the_middle in zip(whole, fresh, strict=True):
        np.testing.assert_array_equal(all_at_once[first:], from_the_middle)


@given(sizes=sizes, block_samples=st.integers(1, 50))
@settings(max_examples=60)
def test_blocks_cover_everything_and_no_block_reaches_across_shards(sizes, block_samples):
    start, size = cut_into_blocks(np.array(sizes), block_samples)
    np.testing.assert_array_equal(start, np.cumsum(size) - size)
    assert size.sum() == sum(sizes) and (size > 0).all() and (size <= block_samples).all()
    ends = set(np.cumsum(sizes).tolist())
    assert ends <= set((start + size).tolist()) | {0}


def test_a_window_holds_whole_blocks_and_mixes_them():
    order = GlobalOrder(np.full(50, 20), seed=0, block_samples=10, window_blocks=5)
    window = order.samples(0, 50)[1]
    assert len(set((window // 10).tolist())) == 5  # five blocks, nothing else
    assert len(set((window // 20).tolist())) > 1  # from several shards
    assert len(set((window[:10] // 10).tolist())) > 1  # mixed


def test_epochs_and_seeds_differ():
    sizes = np.full(20, 10)
    first, second = GlobalOrder(sizes, 0).samples(0, 400)[1].reshape(2, 200)
    other = GlobalOrder(sizes, 1).samples(0, 200)[1]
    assert not np.array_equal(first, second) and not np.array_equal(first, other)


def test_the_order_is_the_one_that_checkpoints_rely_on():
    """Whoever changes these numbers must raise ORDER_VERSION: runs could not resume where they stopped."""
    order = GlobalOrder(np.array([37, 11, 50, 23, 8]), seed=7, block_samples=8, window_blocks=3)
    assert ORDER_VERSION == 1
    assert order.samples(0, 12)[1].tolist() == [53, 10, 127, 54, 125, 7, 9, 51, 121, 50, 8, 126]
    assert order.samples(123, 12)[1].tolist() == [38, 66, 41, 39, 27, 25, 1, 0, 96, 39, 92, 94]


def test_the_mixing_is_even():
    """Each sample's place in the epoch is uniform over many epochs: chi-squared over ten parts."""
    order = GlobalOrder(np.full(10, 10), seed=3, block_samples=5, window_blocks=4)
    places = np.array([np.argsort(order.samples(epoch * 100, 100)[1]) for epoch in range(300)])
    counts = np.stack([np.bincount(places[:, sample] // 10, minlength=10) for sample in range(100)])
    statistic = ((counts - 30) ** 2 / 30).sum(axis=1)
    assert statistic.mean() == pytest.approx(9, abs=1.5)  # nine degrees of freedom
