"""Laws of dealing the order out to ranks."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.errors import UserError
from mivolo_lite.loading.order import GlobalOrder
from mivolo_lite.loading.sampler import EvalSampler, TrainSampler

ORDER = GlobalOrder(np.array([37, 11, 50, 23, 8]), seed=0, block_samples=8, window_blocks=3)


def global_batches(world_size, samples_seen, steps, global_batch=24, max_micro_batch=None):
    """The sets of samples of every step, from all ranks together."""
    plan = BatchPlan.resolve(global_batch, max_micro_batch, world_size)
    ranks = [list(TrainSampler(ORDER, plan, rank, samples_seen, steps)) for rank in range(world_size)]
    assert {len(batches) for batches in ranks} == {steps * plan.accumulation}
    assert {len(batch) for batches in ranks for batch in batches} == {plan.micro_batch}
    steps_of = [
        [ref for batches in ranks for batch in batches[k * plan.accumulation :][: plan.accumulation] for ref in batch]
        for k in range(steps)
    ]
    return [sorted(refs) for refs in steps_of]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 8, 12, 24])
@pytest.mark.parametrize("max_micro_batch", [None, 5, 1])
def test_the_same_global_batches_at_every_world_size(world_size, max_micro_batch):
    assert global_batches(world_size, 0, 12, max_micro_batch=max_micro_batch) == global_batches(1, 0, 12)


@pytest.mark.parametrize("global_batch", [6, 18, 36, 60, 150, 300])  # a window is 24, an epoch 129
@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_steps_within_a_window_and_over_many_are_dealt_out_whole(global_batch, world_size):
    alone = global_batches(1, 5, 300 // global_batch, global_batch)
    assert global_batches(world_size, 5, 300 // global_batch, global_batch) == alone


@given(stop=st.integers(1, 11), before=st.sampled_from([1, 2, 4]), after=st.sampled_from([1, 2, 3, 8]))
@settings(max_examples=30)
def test_resumed_at_any_step_at_any_world_size_the_stream_goes_on(stop, before, after):
    resumed = global_batches(before, 0, stop) + global_batches(after, stop * 24, 12 - stop)
    assert resumed == global_batches(1, 0, 12)


def test_steps_of_an_epoch_hold_every_sample_once():
    refs = [ref for step in global_batches(4, 0, 16) for ref in step]  # 384 positions are almost three epochs of 129
    first_epoch = [ref.sample for ref in refs if ref.epoch == 0]
    assert sorted(first_epoch) == list(range(129))


@pytest.mark.parametrize("max_micro_batch", [None, 8, 3])
def test_one_process_reads_the_stream_as_it_comes(max_micro_batch):
    plan = BatchPlan.resolve(24, max_micro_batch, 1)
    refs = [ref for batch in TrainSampler(ORDER, plan, 0, 7, 12) for ref in batch]
    epochs, samples = ORDER.samples(7, 12 * 24)
    assert refs == list(zip(epochs.tolist(), samples.tolist(), [True] * len(refs), strict=True))


@pytest.mark.parametrize("world_size", [2, 4, 8, 16])
def test_a_rank_reads_few_blocks(world_size):
    """Of windows of 16 blocks, half as much again as its share at most, instead of nearly all."""
    order = GlobalOrder(np.full(64, 256), seed=1, block_samples=64, window_blocks=16)
    plan = BatchPlan.resolve(256, None, world_size)
    read = [
        {ref.sample // 64 for batch in TrainSampler(order, plan, rank, 0, 64) for ref in batch}
        for rank in range(world_size)
    ]
    assert len(set.union(*read)) == 256  # the whole epoch
    assert sum(map(len, read)) / 256 <= 1 + 2.5 * world_size / 16


@given(samples=st.integers(1, 70), batch=st.integers(1, 16), world_size=st.integers(1, 9))
@settings(max_examples=80)
def test_evaluation_counts_each_sample_once_in_equally_many_batches(samples, batch, world_size):
    ranks = [list(EvalSampler(samples, batch, rank, world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    valid = [ref.sample for batches in ranks for batch in batches for ref in batch if ref.valid]
    assert sorted(valid) == list(range(samples))


@given(global_batch=st.integers(1, 300), limit=st.none() | st.integers(1, 64), world_size=st.integers(1, 16))
@settings(max_examples=80)
def test_a_plan_makes_up_the_global_batch_or_says_which_one_it_could(global_batch, limit, world_size):
    if global_batch % world_size:
        with pytest.raises(UserError, match=f"global_batch {global_batch} .* {world_size} processes; use "):
            BatchPlan.resolve(global_batch, limit, world_size)
        return
    most = min(limit or global_batch, global_batch // world_size)
    try:
        plan = BatchPlan.resolve(global_batch, limit, world_size)
    except UserError as error:  # what it says to use works
        assert not any(global_batch // world_size % size == 0 for size in range(-(-most // 2), most + 1))
        other, smaller = map(
            int, re.findall(r"use optim.global_batch (\d+), or optim.micro_batch (\d+)", str(error))[0]
        )
        assert BatchPlan.resolve(other, limit, world_size) and BatchPlan.resolve(global_batch, smaller, world_size)
        return
    assert plan.micro_batch * plan.world_size * plan.accumulation == global_batch
    assert most / 2 <= plan.micro_batch <= most


@pytest.mark.parametrize(
    "global_batch, micro_batch, world_size, message",
    [
        (254, 64, 2, "127, has no divisor near optim.micro_batch 64, only 1; use optim.global_batch 256"),
        (106, 50, 1, "only 2; use optim.global_batch 100, or optim.micro_batch 2"),
        (7, 4, 1, "use optim.global_batch 8"),
    ],
)
def test_a_share_is_not_trained_one_image_at_a_time(global_batch, micro_batch, world_size, message):
    with pytest.raises(UserError, match=message):
        BatchPlan.resolve(global_batch, micro_batch, world_size)


@pytest.mark.parametrize("global_batch, micro_batch, found", [(128, 48, 32), (1016, 128, 127), (10, 4, 2), (64, 1, 1)])
def test_a_micro_batch_is_at_least_half_of_what_was_allowed(global_batch, micro_batch, found):
    world_size = 8 if global_batch == 1016 else 1
    assert BatchPlan.resolve(global_batch, micro_batch, world_size).micro_batch == found
