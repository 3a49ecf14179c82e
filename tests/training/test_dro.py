"""Group DRO: the update by hand, a distribution that goes towards the worst, the same however a batch is cut up."""

import math

import numpy as np
import pytest
import torch

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.errors import UserError
from mivolo_lite.labels import NO_CODE
from mivolo_lite.training.dro import DroConfig, GroupDro
from tests.training.test_balance import columns_of

SIZES = [60, 120, 180, 5]  # the last one is too small to be a subgroup
GROUP = np.repeat([0, 1, 2, 3], SIZES)
NAMES = ["a", "b", "c", "d"]


def dro(weight=None, **options):
    columns = columns_of([30] * len(GROUP), group=GROUP)
    return GroupDro(columns, NAMES, weight, DroConfig(**({"by": "group", "penalty": 0.0} | options)), "cpu")


def observed(one, losses, samples, known=None):
    age = AgeRange.exact(torch.full((len(samples),), 30.0))
    known = age.known if known is None else torch.tensor(known)
    one.observe(torch.tensor(losses), AgeRange(age.lo, age.hi, known), torch.tensor(samples))


def test_the_shares_are_those_of_the_stream_not_of_the_data_sets():
    columns = columns_of([30] * 40, group=[0] * 30 + [1] * 10)
    frequency = np.repeat([2 / 3, 2.0], [30, 10])
    assert GroupDro(columns, NAMES, None, DroConfig("group", fewest=5), "cpu", frequency).share.tolist() == [0.5, 0.5]


def test_it_begins_as_the_training_data_are():
    one = dro()
    assert one.names == ["a", "b", "c"] and one.q.tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert one.factor(torch.arange(len(GROUP))).tolist() == [1.0] * len(GROUP)


def test_one_update_by_hand():
    """Mean losses 4, 2 and 1; weighted by subgroups of equal factors, the mean of the six is 2 and q is their
    softmax."""
    one = dro(step_size=0.5)
    observed(one, [3.0, 5.0, 2.0, 0.5, 1.0, 1.5, 99.0], [0, 1, 60, 180, 181, 182, 360])
    one.update(one.sums)
    mean = (4 * 2 + 2 + 1 * 3) / 6
    by_hand = np.array([1 / 6, 2 / 6, 3 / 6]) * np.exp(0.5 * (np.array([4, 2, 1]) - mean) / mean)
    assert one.q.tolist() == pytest.approx((by_hand / by_hand.sum()).tolist())
    observed(one, [2.0, 1.0], [0, 180])
    before, factor = one.q.numpy().copy(), one.log_weight.exp().numpy()
    one.update(one.sums)
    mean = (2 * factor[0] + 1 * factor[2]) / (factor[0] + factor[2])
    by_hand = before * np.exp(0.5 * np.array([2 - mean, 0, 1 - mean]) / mean)
    assert one.q.tolist() == pytest.approx((by_hand / by_hand.sum()).tolist())


def test_weights_count_within_the_subgroups_and_cancel_between_them():
    weight = torch.ones(len(GROUP))
    weight[GROUP == 0] = 3.0
    weight[:20] = 0.0
    one = dro(weight, step_size=0.5)
    assert one.share.tolist() == pytest.approx([120 / 420, 120 / 420, 180 / 420])
    observed(one, [77.0, 4.0, 2.0], [0, 20, 60])
    one.update(one.sums)
    mean = (4 * 3 + 2) / 4
    by_hand = np.array([2, 2, 3]) / 7 * np.exp(0.5 * np.array([4 - mean, 2 - mean, 0]) / mean)
    assert one.q.tolist() == pytest.approx((by_hand / by_hand.sum()).tolist())
    mean_weight = (weight * one.factor(torch.arange(len(GROUP))))[GROUP < 3].mean()
    assert mean_weight == pytest.approx(float(weight[GROUP < 3].mean()))


def test_what_is_unknown_or_not_there_changes_nothing():
    one = dro(step_size=0.5, adjustment=2.0)
    observed(one, [9.0, 8.0], [0, 60], [False, False])
    one.update(one.sums)
    assert one.log_weight.tolist() == pytest.approx([0.0] * 3, abs=1e-6)


def test_an_adjustment_favours_small_subgroups():
    one = dro(step_size=0.5, adjustment=3.0)
    observed(one, [1.0, 1.0, 1.0], [0, 60, 180])
    one.update(one.sums)
    by_hand = np.array([1, 2, 3]) / 6 * np.exp(0.5 * 3 / np.sqrt(SIZES[:3]))
    assert one.q.tolist() == pytest.approx((by_hand / by_hand.sum()).tolist())


@pytest.mark.parametrize("scale", [1.0, 0.008])
@pytest.mark.parametrize("penalty", [0.5, 2.0])
def test_with_a_penalty_it_rests_where_the_divergence_costs_what_the_losses_gain(scale, penalty):
    """q = share * exp(loss / (penalty * mean loss)), normalised; the losses' unit does not matter."""
    one, losses = dro(step_size=0.2, penalty=penalty), np.array([3.0, 2.0, 1.0])
    for _ in range(300):
        observed(one, (losses * scale).tolist(), [0, 60, 180])
        one.update(one.sums)
    factor = one.log_weight.exp().double().numpy()
    mean = (factor * losses).sum() / factor.sum()
    by_hand = np.array([1, 2, 3]) / 6 * np.exp(losses / (penalty * mean))
    assert one.q.tolist() == pytest.approx((by_hand / by_hand.sum()).tolist(), rel=1e-3)


def test_cut_up_and_spread_over_ranks_it_is_the_same():
    """Two ranks with two micro-batches each, whose sums are added, against one batch."""
    losses, samples = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0, 70, 200, 1, 71, 300]
    whole, ranks = dro(penalty=1.0), [dro(penalty=1.0), dro(penalty=1.0)]
    for _ in range(3):
        observed(whole, losses, samples)
        whole.update(whole.sums)
        for rank, one in enumerate(ranks):
            for part in (slice(3 * rank, 3 * rank + 1), slice(3 * rank + 1, 3 * rank + 3)):
                observed(one, losses[part], samples[part])
        total = sum(one.sums for one in ranks)
        for one in ranks:
            one.update(total)
    assert torch.equal(ranks[0].log_weight, ranks[1].log_weight)
    torch.testing.assert_close(ranks[0].log_weight, whole.log_weight)


@pytest.mark.slow
def test_on_a_toy_problem_it_lowers_the_worst_subgroups_loss():
    """One number must serve a sixth that wants 3, a third that wants 0 and a half that wants 1: at best at 1 for the
    mean of the squares, and at 1.5 for the worst, which the half does not matter to."""
    wanted = torch.tensor([3.0, 0.0, 1.0, 0.0])[torch.from_numpy(GROUP)]
    worst = []
    for penalty in (None, 1.0, 0.0):
        answer = torch.zeros((), requires_grad=True)
        optimizer = torch.optim.SGD([answer], lr=0.1)
        one = dro(step_size=0.1, penalty=penalty or 0.0)
        everyone = torch.arange(len(GROUP))
        for _ in range(250):
            loss = (answer - wanted).square()
            factor = one.factor(everyone) if penalty is not None else torch.ones(len(GROUP))
            optimizer.zero_grad()
            (factor * loss)[GROUP < 3].mean().backward()
            optimizer.step()
            one.observe(loss, AgeRange.exact(wanted), everyone)
            one.update(one.sums)
            assert one.q.sum() == pytest.approx(1, abs=1e-5) and (one.q >= 0).all()
        worst.append(max(float(loss[GROUP == subgroup].detach().mean()) for subgroup in range(3)))
    assert worst[0] > worst[1] > worst[2]
    assert answer.item() == pytest.approx(1.5, abs=0.05)
    assert one.q.tolist() == pytest.approx([0.5, 0.5, 0.0], abs=0.05)


def test_it_goes_on_where_it_stopped():
    one, other = dro(), dro()
    observed(one, [3.0, 1.0], [0, 60])
    one.update(one.sums)
    other.load(one.state())
    assert torch.equal(one.log_weight, other.log_weight)
    assert other.weights()["a"] == pytest.approx(math.exp(one.log_weight[0]))


@pytest.mark.parametrize("state, message", [({}, "no subgroups"), ({"a": 0.0, "b": 0.0}, "a, b")])
def test_a_checkpoint_of_other_subgroups_is_one_line(state, message):
    with pytest.raises(UserError, match=f"--resume: the checkpoint weighs {message}, this run a, b, c"):
        dro().load(state)


def test_fewer_than_two_subgroups_are_one_line():
    columns = columns_of([30] * 42, group=[0] * 20 + [1] * 19 + [NO_CODE] * 3)
    with pytest.raises(UserError, match="optim.dro.by group: 1 subgroups have 20 "):
        GroupDro(columns, NAMES, None, DroConfig("group", fewest=20), "cpu")
    assert GroupDro(columns, NAMES, None, DroConfig("group", fewest=19), "cpu").names == ["a", "b"]
    columns = columns_of([None] * 60, gender=[0, 1] * 30)
    with pytest.raises(UserError, match="optim.dro.by gender: it weighs losses of ages, and no training sample"):
        GroupDro(columns, [], None, DroConfig("gender", fewest=20), "cpu")
