"""What is learnt of mixed images: by hand, for every method; and a real run that resumes."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.distributed.data_parallel import DataParallel
from mivolo_lite.errors import UserError
from mivolo_lite.loading.mixup import Mixup, MixupConfig, mix
from mivolo_lite.methods import METHODS
from mivolo_lite.training.dro import DroConfig, GroupDro
from mivolo_lite.training.optim import OptimConfig
from mivolo_lite.training.step import OptimizerStep
from tests.training.resuming import require_same_after_resume
from tests.training.test_distillation import estimator
from tests.training.test_step import batch_of


def mixed_batch(**options):
    batch = batch_of(8)
    batch = replace(batch, age=replace(batch.age, known=torch.arange(8) != 3))
    return Mixup(MixupConfig(**({"mixup_alpha": 1.0, "cutmix_alpha": 1.0} | options)), 0)(batch, np.zeros(8, dtype=int))


def stepped(student, batch, **options):
    student = copy.deepcopy(student)
    engine = DataParallel(Accelerator(cpu=True), student, torch.optim.SGD(student.parameters(), lr=1e-2), 0.0)
    result = OptimizerStep(engine, OptimConfig(gender_weight=0.5), 0, **options)([batch], step=0)
    return torch.cat([parameter.detach().flatten() for parameter in student.parameters()]), result


def by_hand(student, batch, ages, genders, weights):
    """A step on the sums of losses by label, with the labels and their weights given as lists."""
    student = copy.deepcopy(student).train()
    output = student(**mix(batch)[0].images())
    total = 0.0
    for age, (gender, known), weight in zip(ages, genders, weights, strict=True):
        loss = student.method.loss(output["age"], age) / student.method.loss_unit
        total = total + (weight * loss)[age.known].sum() / batch.age.known.sum()
        loss = torch.nn.functional.cross_entropy(output["gender"], gender, reduction="none")
        total = total + 0.5 * (weight * loss)[known].sum() / batch.gender_known.sum()
    total.backward()
    return torch.cat([(p.detach() - 1e-2 * (0 if p.grad is None else p.grad)).flatten() for p in student.parameters()])


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_of_each_label_counts_by_its_share(method):
    student, batch = estimator(1, method), mixed_batch()
    student.method.fit_prior(torch.ones(101))
    share, partner = batch.mixing.share, batch.mixing.partner
    ages = [batch.age, batch.age.map(lambda tensor: tensor[partner])]
    genders = [(batch.gender, batch.gender_known), (batch.gender[partner], batch.gender_known[partner])]
    expected = by_hand(student, batch, ages, genders, [share, 1 - share])
    torch.testing.assert_close(stepped(student, batch)[0], expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(stepped(student, replace(batch, mixing=None))[0], expected, atol=1e-6)


def test_c_mixup_learns_the_interpolated_age():
    student, batch = estimator(1, "regression"), mixed_batch(bandwidth=20.0)
    share, partner = batch.mixing.share, batch.mixing.partner
    age = share * batch.age.lo + (1 - share) * batch.age.lo[partner]
    ages = [AgeRange(age, age, batch.age.known), AgeRange(age, age, torch.zeros(8, dtype=torch.bool))]
    genders = [(batch.gender, batch.gender_known), (batch.gender[partner], batch.gender_known[partner])]
    student.requires_grad_(False).method.requires_grad_()  # reached by the age alone
    expected = by_hand(student, batch, ages, genders, [torch.ones(8), 1 - share])
    torch.testing.assert_close(stepped(student, batch)[0], expected, rtol=1e-4, atol=1e-6)


def test_each_label_has_the_weight_of_its_own_sample_and_subgroup():
    student, batch = estimator(1, "dldl"), mixed_batch()
    share, partner, nothing = batch.mixing.share, batch.mixing.partner, np.zeros(8)
    columns = {"age_lo": nothing, "age_hi": nothing, "gender": nothing, "group": np.arange(8) % 2}
    weights = torch.linspace(0.5, 1.5, 8)
    dro = GroupDro(columns, ["a", "b"], weights, DroConfig("group", fewest=4), "cpu")
    ages = [batch.age, batch.age.map(lambda tensor: tensor[partner])]
    genders = [(batch.gender, batch.gender_known), (batch.gender[partner], batch.gender_known[partner])]
    expected = by_hand(student, batch, ages, genders, [share * weights, (1 - share) * weights[partner]])
    found, _ = stepped(student, batch, weights=weights, dro=dro)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert all(weight != 1 for weight in dro.weights().values())


@pytest.mark.slow
def test_a_run_with_mixup_resumes_to_the_same_bits(people, tmp_path):
    options = ["--data.mixup.mixup_alpha", "0.4", "--data.mixup.cutmix_alpha", "1", "--data.mixup.bandwidth", "10"]
    plain, mixing = tmp_path / "plain", tmp_path / "mixing"
    first = require_same_after_resume(people, mixing, *options, "--data.mixup.off_epoch", "1")
    other = require_same_after_resume(people, plain)
    losses = [(run / "metrics.jsonl").read_text() for run in (first, other)]
    assert losses[0] != losses[1]


def test_a_bandwidth_without_mixup_is_one_line():
    with pytest.raises(UserError, match="nothing is mixed"):
        MixupConfig(bandwidth=3)
