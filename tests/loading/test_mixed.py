"""Laws of several data sets in one stream."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.errors import UserError
from mivolo_lite.loading.mixed import MixedOrder, in_proportion, whole_shares
from mivolo_lite.loading.order import GlobalOrder
from mivolo_lite.loading.sampler import TrainSampler

SETS = [[37, 11, 50], [23, 8], [60]]  # samples in the shards of each set
lists = st.lists(
    st.tuples(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(1, 9)), min_size=2, max_size=6
)


def mixed(sets=SETS, shares=(3, 1, 2), seed=0):
    orders = [GlobalOrder(np.array(sizes), seed + place, 8, 3) for place, sizes in enumerate(sets)]
    return MixedOrder(orders, shares)


def sets_of(order, samples):
    return np.searchsorted(order.starts, samples, side="right") - 1


@pytest.mark.slow
@given(sets=lists, seed=st.integers(0, 3))
@settings(max_examples=40)
def test_a_sets_samples_are_its_own_stream_so_each_comes_once_a_pass(sets, seed):
    order = mixed([sizes for sizes, _ in sets], [share for _, share in sets], seed)
    epochs, samples = order.samples(0, 400)
    for place, own in enumerate(order.orders):
        mine = sets_of(order, samples) == place
        expected_epochs, expected = own.samples(0, int(mine.sum()))
        np.testing.assert_array_equal(samples[mine] - order.starts[place], expected)
        np.testing.assert_array_equal(epochs[mine], expected_epochs)


def test_an_epoch_of_the_run_has_as_many_samples_as_all_sets():
    assert len(mixed()) == 98 + 31 + 60


@given(sets=lists)
@settings(max_examples=40)
def test_every_prefix_holds_each_set_in_its_share(sets):
    shares = [share for _, share in sets]
    order = mixed([sizes for sizes, _ in sets], shares)
    owners = sets_of(order, order.samples(0, 300)[1])
    counted = np.cumsum(owners[:, None] == np.arange(len(sets)), axis=0)
    due = np.arange(1, 301)[:, None] * np.array(shares) / sum(shares)
    assert np.abs(counted - due).max() <= np.ceil(np.log2(len(sets))) / 2
    np.testing.assert_array_equal(order.before(np.arange(301))[:, 1:].T, counted)
    cycles = np.arange(0, 301, sum(shares))
    np.testing.assert_array_equal(order.before(cycles).T, np.outer(cycles // sum(shares), shares))


@given(sets=lists, first=st.integers(0, 500), count=st.integers(0, 120))
@settings(max_examples=40)
def test_the_stream_from_the_middle_is_the_rest_of_the_undisturbed_one(sets, first, count):
    of = [sizes for sizes, _ in sets], [share for _, share in sets]
    whole, fresh = mixed(*of).samples(0, first + count), mixed(*of).samples(first, count)
    for all_at_once, from_the_middle in zip(whole, fresh, strict=True):
        np.testing.assert_array_equal(all_at_once[first:], from_the_middle)


@pytest.mark.parametrize("position", [10**9, 10**12 + 7, 2**52])
def test_far_away_positions_are_exact(position):
    """As Python counts, whose integers have no end."""
    shares = [70_001, 123_456_789, 3_000_007]
    order = mixed(shares=shares)
    cycles, rest = divmod(position, sum(shares))
    expected = [cycles * share + part for share, part in zip(shares, in_proportion(rest, shares), strict=True)]
    assert order.before(position).tolist() == expected and sum(expected) == position
    epochs, samples = order.samples(position, 50)
    owner = int(sets_of(order, samples[:1])[0])
    epoch, number = order.orders[owner].samples(expected[owner], 1)
    assert (epochs[0], samples[0]) == (epoch[0], number[0] + order.starts[owner])


@given(total=st.integers(0, 500), shares=st.lists(st.integers(1, 60), min_size=1, max_size=7))
def test_parts_add_up_never_fall_and_are_the_shares_of_their_sum(total, shares):
    parts, next_parts = np.array(in_proportion(total, shares)), np.array(in_proportion(total + 1, shares))
    assert parts.sum() == total and (next_parts - parts).min() >= 0
    assert in_proportion(sum(shares), shares) == shares


@pytest.mark.parametrize(
    "weights, shares",
    [([2, 1], [2, 1]), ([4.0, 2.0], [2, 1]), ([0.1, 0.3, 1], [1, 3, 10]), ([1e-3, 1], [1, 1000]), ([7], [1])],
)
def test_weights_are_taken_as_written(weights, shares):
    assert whole_shares(weights) == shares


def test_weights_with_too_many_digits_are_refused():
    with pytest.raises(UserError, match="fewer digits"):
        whole_shares([0.123456789123, 1])


def global_batches(order, world_size, samples_seen=0, steps=12, global_batch=24, max_micro_batch=None):
    """The sets of samples of every step, from all ranks together."""
    plan = BatchPlan.resolve(global_batch, max_micro_batch, world_size)
    ranks = [list(TrainSampler(order, plan, rank, samples_seen, steps)) for rank in range(world_size)]
    assert {len(batch) for batches in ranks for batch in batches} == {plan.micro_batch}
    cut = [[batches[k * plan.accumulation :][: plan.accumulation] for batches in ranks] for k in range(steps)]
    return [sorted(ref for of_rank in step for batch in of_rank for ref in batch) for step in cut]


@pytest.mark.parametrize("world_size", [2, 3, 8])
@pytest.mark.parametrize("max_micro_batch", [None, 3])
def test_the_same_global_batches_at_every_world_size_and_from_any_step_on(world_size, max_micro_batch):
    order = mixed()
    alone = global_batches(order, 1)
    for step, refs in enumerate(alone):
        epochs, samples = order.samples(step * 24, 24)
        assert refs == sorted(zip(epochs.tolist(), samples.tolist(), [True] * 24, strict=True))
    assert global_batches(order, world_size, max_micro_batch=max_micro_batch) == alone
    assert global_batches(mixed(), world_size, samples_seen=5 * 24, steps=7) == alone[5:]


@pytest.mark.parametrize("max_micro_batch", [None, 8, 3])
def test_one_process_reads_the_stream_as_it_comes(max_micro_batch):
    order = mixed()
    refs = [d for batch in TrainSampler(order, BatchPlan.resolve(24, max_micro_batch, 1), 0, 7, 12) for d in batch]
    epochs, samples = order.samples(7, 12 * 24)
    assert refs == list(zip(epochs.tolist(), samples.tolist(), [True] * len(refs), strict=True))


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_every_rank_has_its_share_of_each_set_and_few_blocks(world_size):
    sizes = np.full(64, 256)
    order = MixedOrder([GlobalOrder(sizes, seed, 64, 16) for seed in range(2)], [3, 1])
    plan = BatchPlan.resolve(256, None, world_size)
    ranks = [TrainSampler(order, plan, rank, 0, 64) for rank in range(world_size)]
    read = [np.array([[ref.sample for ref in batch] for batch in sampler]) for sampler in ranks]
    for samples in read:
        assert ((samples < len(order.orders[0])).sum(axis=1) == 192 // world_size).all()
    for place, used in enumerate([192, 64]):  # samples of a step
        blocks = [set((samples[sets_of(order, samples) == place] // 64).tolist()) for samples in read]
        assert len(set.union(*blocks)) == used  # whole windows: 64 steps of so many are as many blocks of 64
        assert sum(map(len, blocks)) / used <= 1 + world_size / 4


def test_the_order_is_the_one_that_checkpoints_rely_on():
    """Whoever changes these numbers must raise ORDER_VERSION: runs could not resume where they stopped."""
    assert mixed(seed=7).samples(0, 12)[1].tolist() == [53, 172, 10, 108, 54, 186, 44, 174, 7, 112, 46, 179]
    assert mixed(seed=7).samples(10**9, 12)[1].tolist() == [51, 133, 73, 138, 69, 105, 64, 132, 20, 136, 66, 122]
