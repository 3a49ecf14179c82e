"""One optimizer step: what it minimises does not depend on how the batch is cut up."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from timm.layers import convert_sync_batchnorm

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.distributed.data_parallel import DataParallel
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.loading.batch import Batch
from mivolo_lite.training.dro import DroConfig, GroupDro
from mivolo_lite.training.optim import OptimConfig
from mivolo_lite.training.step import Diverged, OptimizerStep, StepResult, batch_statistics
from tests.training.batches import part


@pytest.fixture(scope="module")
def estimator():
    torch.manual_seed(0)
    model = {"name": "single", "backbone": "test_vit"}  # no batch statistics
    return Estimator(Card(model, {"name": "classification"}, {"min_age": 0, "max_age": 100}, image_size=64))


def batch_of(size, seed=0, side=64):
    draw = torch.Generator().manual_seed(seed)
    age = torch.randint(0, 100, (size,), generator=draw).float()
    return Batch(
        face=Images.of(torch.randint(0, 256, (size, 3, side, side), generator=draw, dtype=torch.uint8)),
        body=None,
        age=AgeRange(age, age, torch.rand(size, generator=draw) > 0.4),
        gender=torch.randint(0, 2, (size,), generator=draw),
        gender_known=torch.rand(size, generator=draw) > 0.6,
        sample=torch.arange(size),
        valid=torch.ones(size, dtype=torch.bool),
    )


def updated(estimator, batches, clip_norm=0.0, weights=None, dro=None):
    estimator = copy.deepcopy(estimator)
    optimizer = torch.optim.SGD(estimator.parameters(), lr=1.0)
    engine = DataParallel(Accelerator(cpu=True), estimator, optimizer, clip_norm)
    step = OptimizerStep(engine, OptimConfig(gender_weight=0.5), 0, weights, dro)
    result = step(batches, step=0)
    return torch.cat([parameter.detach().flatten() for parameter in estimator.parameters()]), result


def require_same_in_parts(estimator, batch):
    """A batch of 12 teaches what unequal micro-batches of it teach."""
    full, one = updated(estimator, [batch])
    parts, three = updated(estimator, [part(batch, slice(0, 2)), part(batch, slice(2, 3)), part(batch, slice(3, 12))])
    torch.testing.assert_close(parts, full, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.losses, three.losses)


def test_unequal_micro_batches_learn_the_same_as_the_whole(estimator):
    require_same_in_parts(estimator, batch_of(12))


def test_unknown_labels_teach_nothing(estimator):
    batch = batch_of(8)
    age = batch.age
    lied = AgeRange(torch.where(age.known, age.lo, 99.0), torch.where(age.known, age.hi, 99.0), age.known)
    gender = torch.where(batch.gender_known, batch.gender, 1 - batch.gender)
    assert torch.equal(updated(estimator, [batch])[0], updated(estimator, [replace(batch, age=lied, gender=gender)])[0])


def test_a_batch_without_any_label_changes_nothing(estimator):
    batch = batch_of(4)
    nothing = torch.zeros(4, dtype=torch.bool)
    age = AgeRange(batch.age.lo, batch.age.hi, nothing)
    after, result = updated(estimator, [replace(batch, age=age, gender_known=nothing)])
    before = torch.cat([parameter.detach().flatten() for parameter in estimator.parameters()])
    assert torch.equal(after, before) and not result.losses.any() and torch.isfinite(result.grad_norm)


def by_hand(estimator, batch, age_weight, gender_weight):
    """The parameters after a step on weighted losses over the number of known labels."""
    estimator = copy.deepcopy(estimator).train()
    output = estimator(**batch.images())
    age, known = estimator.method.loss(output["age"], batch.age), batch.age.known
    gender = torch.nn.functional.cross_entropy(output["gender"], batch.gender, reduction="none")
    loss = (age_weight * age)[known].sum() / known.sum()
    loss = loss + 0.5 * (gender_weight * gender)[batch.gender_known].sum() / batch.gender_known.sum()
    loss.backward()
    return torch.cat([(parameter.detach() - parameter.grad).flatten() for parameter in estimator.parameters()])


def test_weights_weigh_each_samples_losses(estimator):
    """Samples are found by their number, whatever their place in the batch."""
    batch = replace(batch_of(8), sample=torch.tensor([7, 3, 0, 1, 9, 2, 4, 8]))
    weights = torch.rand(10, generator=torch.Generator().manual_seed(3)) * 2
    own = weights[batch.sample]
    expected = by_hand(estimator, batch, own, own)
    torch.testing.assert_close(updated(estimator, [batch], weights=weights)[0], expected, rtol=1e-4, atol=1e-5)
    parts = [part(batch, slice(0, 3)), part(batch, slice(3, 8))]
    torch.testing.assert_close(updated(estimator, parts, weights=weights)[0], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(updated(estimator, [batch], weights=torch.ones(10))[0], updated(estimator, [batch])[0])


def test_gender_smoothing_spreads_the_target(estimator):
    batch = replace(batch_of(8), gender_known=torch.ones(8, dtype=torch.bool))
    logits = copy.deepcopy(estimator).train()(**batch.images())["gender"]
    expected = torch.nn.functional.cross_entropy(logits, batch.gender, label_smoothing=0.3)
    student = copy.deepcopy(estimator)
    engine = DataParallel(Accelerator(cpu=True), student, torch.optim.SGD(student.parameters(), lr=1.0), 0.0)
    _, gender, _ = OptimizerStep(engine, OptimConfig(gender_smoothing=0.3), 0)([batch], 0).losses
    torch.testing.assert_close(gender, expected)


def test_group_dro_weighs_the_age_losses_by_what_earlier_steps_saw(estimator):
    batch, group = batch_of(8), np.arange(8) % 2
    nothing = np.zeros(8)
    columns = {"age_lo": nothing, "age_hi": nothing, "gender": nothing, "group": group}
    weights = torch.linspace(0.5, 1.5, 8)
    dro = GroupDro(columns, ["a", "b"], weights, DroConfig("group", fewest=4, step_size=0.5), "cpu")
    first, _ = updated(estimator, [batch], weights=weights, dro=dro)
    torch.testing.assert_close(first, by_hand(estimator, batch, weights, weights), rtol=1e-4, atol=1e-5)
    factor = dro.factor(batch.sample).clone()
    assert (factor[::2] == factor[0]).all() and (factor[1::2] == factor[1]).all() and factor[0] != factor[1]
    again = by_hand(estimator, batch, factor * weights, weights)
    parts = [part(batch, slice(0, 3)), part(batch, slice(3, 8))]
    torch.testing.assert_close(updated(estimator, parts, weights=weights, dro=dro)[0], again, rtol=1e-4, atol=1e-5)


def test_group_dro_counts_a_mixed_label_by_its_share(estimator):
    batch, share, nothing = batch_of(8), torch.linspace(0, 1, 8), np.zeros(8)
    columns = {"age_lo": nothing, "age_hi": nothing, "gender": nothing, "group": np.arange(8) % 2}
    dro = GroupDro(columns, ["a", "b"], None, DroConfig("group", fewest=4), "cpu")
    engine = DataParallel(Accelerator(cpu=True), estimator, torch.optim.SGD(estimator.parameters(), lr=1.0), 0.0)
    OptimizerStep(engine, OptimConfig(), 0, dro=dro)._label_losses(estimator(**batch.images()), batch, share)
    torch.testing.assert_close(dro.sums[0].sum(), share[batch.age.known].sum())


def test_what_any_teacher_sees_is_learnt_from_it(estimator):
    seen = torch.tensor([[True, False, False], [False, True, False]])
    answers, loss = SimpleNamespace(seen=seen), torch.tensor([1.0, 2.0, 4.0])
    teachers = SimpleNamespace(student=estimator, answers=lambda images: answers, loss=lambda *_: loss)
    engine = DataParallel(Accelerator(cpu=True), estimator, torch.optim.SGD(estimator.parameters(), lr=1.0), 0.0)
    assert OptimizerStep(engine, OptimConfig(), 0, teachers=teachers)._teacher_loss({}, batch_of(3)) == 3


def test_clipping_bounds_the_update(estimator):
    before = torch.cat([parameter.detach().flatten() for parameter in estimator.parameters()])
    after, result = updated(estimator, [batch_of(6)], clip_norm=0.01)
    assert result.grad_norm > 0.01
    assert (after - before).norm() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("of_output, constant, what", [(0.0, torch.inf, "loss"), (torch.nan, 0.0, "loss")])
def test_a_loss_that_is_not_finite_leaves_the_weights_alone(estimator, monkeypatch, of_output, constant, what):
    """Also where its gradient is finite, as that of a sum that overflowed."""
    monkeypatch.setattr(type(estimator.method), "loss", lambda _, output, age: output.sum(1) * of_output + constant)
    _leaves_the_weights_alone(estimator, what)


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(estimator, monkeypatch):
    def loss(_, output, age):
        return (output.sum(1) * 0).sqrt()  # 0, whose gradient is 0 * infinity

    monkeypatch.setattr(type(estimator.method), "loss", loss)
    _leaves_the_weights_alone(estimator, "gradient")


def _leaves_the_weights_alone(estimator, what):
    estimator = copy.deepcopy(estimator)
    before = copy.deepcopy(estimator.state_dict())
    engine = DataParallel(Accelerator(cpu=True), estimator, torch.optim.AdamW(estimator.parameters()), 1.0)
    with pytest.raises(Diverged, match=f"step 8: the {what} is not finite"):
        OptimizerStep(engine, OptimConfig(gender_weight=0.5), 0)([batch_of(4)], step=7)
    assert all(torch.equal(tensor, before[name]) for name, tensor in estimator.state_dict().items())
    assert not engine.inner_optimizer.state


def test_the_logged_loss_is_the_weighted_sum_of_the_mean_losses(estimator, monkeypatch):
    monkeypatch.setattr(type(estimator.method), "loss_unit", 4.0)
    engine = DataParallel(Accelerator(cpu=True), estimator, torch.optim.SGD(estimator.parameters(), lr=1.0), 0.0)
    step = OptimizerStep(engine, OptimConfig(gender_weight=0.5, teacher_weight=3.0), 0)
    step.tasks = [SimpleNamespace(name="glasses", weight=0.25), SimpleNamespace(name="smile", weight=0.75)]
    rows = torch.tensor([[8.0, 1.0, 5.0, 7.0, 2.0], [16.0, 3.0, 7.0, 5.0, 4.0]])  # age, gender, tasks, teachers
    results = [StepResult(losses, 0.0) for losses in rows]
    labels = {"age_loss": 12.0, "gender_loss": 2.0, "glasses_loss": 6.0, "smile_loss": 6.0}
    loss = 12 / 4 + 0.5 * 2 + 3 * 3 + 0.25 * 6 + 0.75 * 6
    assert step.mean_losses(results) == {"loss": loss} | labels
    step.teachers = object()
    assert step.mean_losses(results) == {"loss": loss} | labels | {"teacher_loss": 3.0}


def test_only_statistics_of_a_rank_alone_are_to_be_shared():
    model = {"name": "single", "backbone": "test_efficientnet"}
    estimator = Estimator(Card(model, {"name": "classification"}, {"min_age": 0, "max_age": 100}, image_size=64))
    names = [name for name in estimator.state_dict() if "running" in name]
    assert len(batch_statistics(estimator)) == len(names) > 0
    converted = convert_sync_batchnorm(estimator)
    assert batch_statistics(converted) == [] and [name for name in converted.state_dict() if "running" in name] == names
