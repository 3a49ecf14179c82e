"""CORAL, CORN and OR-CNN, with coral-pytorch as the oracle."""

import math

import numpy as np
import pytest
import torch
from coral_pytorch.dataset import corn_label_from_logits, levels_from_labelbatch, proba_to_label
from coral_pytorch.layers import CoralLayer
from coral_pytorch.losses import coral_loss, corn_loss
from torch import nn

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.methods import METHODS
from mivolo_lite.methods.interface import AgeSpan
from mivolo_lite.methods.prior import smoothed_counts

LOGITS = torch.tensor([[2.1, 1.8, -2.1, -1.8], [1.9, -1, -1.5, -1.3], [1.9, 1.8, 1.7, 1.6]])


def build(name, classes, features=4, first=0, **options):
    config = METHODS[name].Config(**options)
    torch.manual_seed(0)
    return METHODS[name](
        lambda outputs, bias=True: nn.Linear(features, outputs, bias), AgeSpan(first, first + classes - 1), config
    )


def random_case(classes, batch=32):
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(batch, classes - 1, generator=generator) * 2
    return logits.requires_grad_(), torch.randint(0, classes, (batch,), generator=generator)


def histogram(age, classes):
    return torch.bincount(age, minlength=classes)


def test_coral_pinned():
    loss = build("coral", 5).loss(LOGITS, AgeRange.exact(torch.tensor([2.0, 1, 4])))
    torch.testing.assert_close(loss, torch.tensor([0.5370, 0.8951, 0.6441]), rtol=0, atol=5e-5)
    assert loss.mean().item() == pytest.approx(0.6920, abs=5e-5)


def test_corn_pinned():
    method, age = build("corn", 5), torch.tensor([0, 1, 2])
    method.fit_prior(histogram(age, 5))
    assert method.loss(LOGITS, AgeRange.exact(age)).mean().item() == pytest.approx(0.8047, abs=5e-5)


@pytest.mark.parametrize("name", ["coral", "or_cnn", "corn"])
def test_the_start_of_the_oldest_of_many_is_exact(name):
    age = (torch.randn(180_000, generator=torch.Generator().manual_seed(0)) * 12 + 36).round().clamp(1, 100).long()
    counts = histogram(age, 121)
    method = build(name, 121)
    method.fit_prior(counts)
    smooth = smoothed_counts(counts).double().numpy()
    older = np.array([math.fsum(smooth[k + 1 :]) for k in range(120)])
    others = smooth[:-1] if name == "corn" else np.array([math.fsum(smooth[: k + 1]) for k in range(120)])
    np.testing.assert_allclose(method.start.numpy(), np.log(older / others), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("classes", [5, 102])
def test_zero_logits(classes):
    age = torch.arange(classes)
    coral = build("coral", classes).loss(torch.zeros(classes, classes - 1), AgeRange.exact(age))
    torch.testing.assert_close(coral, torch.full((classes,), (classes - 1) * math.log(2)))
    corn = build("corn", classes)
    corn.fit_prior(histogram(age, classes))
    loss = corn.loss(torch.zeros(classes, classes - 1), AgeRange.exact(age)).mean()
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)


def assert_same_loss(loss, expected, logits):
    """Also by the gradient of the logits."""
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    gradients = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 5, 117])
@pytest.mark.parametrize("name", ["coral", "or_cnn"])
def test_threshold_loss_against_coral_pytorch(name, classes):
    logits, age = random_case(classes)
    expected = coral_loss(logits, levels_from_labelbatch(age, num_classes=classes))
    assert_same_loss(build(name, classes).loss(logits, AgeRange.exact(age)).mean(), expected, logits)


@pytest.mark.parametrize("classes", [2, 5, 117])
def test_corn_against_coral_pytorch(classes):
    logits, age = random_case(classes)
    method = build("corn", classes)
    method.fit_prior(histogram(age, classes))
    assert_same_loss(method.loss(logits, AgeRange.exact(age)).mean(), corn_loss(logits, age, classes), logits)


def test_corn_asks_every_age_equally_often_before_it_is_told_otherwise():
    assert build("corn", 5).questions_asked == pytest.approx((1 + 2 + 3 + 4 + 4) / 5)


def test_coral_head_starts_as_coral_pytorchs():
    assert torch.allclose(build("coral", 5).bias, CoralLayer(4, 5).coral_bias)
    method = build("coral", 5)
    x = torch.randn(3, 4)
    torch.testing.assert_close(method(x), x @ method.head.weight.T + method.bias)
    assert sum(parameter.numel() for parameter in method.parameters()) == 4 + 4


def test_coral_importance():
    counts = torch.tensor([10.0, 20, 30, 40])
    method = build("coral", 4, importance=True)
    method.fit_prior(counts)
    expected = torch.tensor([90.0, 70, 60]).sqrt()
    torch.testing.assert_close(method.question_weight, expected / expected.max())
    logits, age = random_case(4)
    levels = levels_from_labelbatch(age, num_classes=4)
    oracle = coral_loss(logits.detach(), levels, importance_weights=method.question_weight)
    torch.testing.assert_close(method.loss(logits, AgeRange.exact(age)).mean().detach(), oracle, rtol=1e-6, atol=1e-6)


def test_counts_are_coral_pytorchs():
    logits = torch.randn(50, 20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(build("or_cnn", 21).estimate(logits).age, proba_to_label(logits.sigmoid()).float())
    assert torch.equal(build("corn", 21).estimate(logits).age, corn_label_from_logits(logits).float())


def test_count_pinned():
    probability = torch.tensor([[0.934, 0.861, 0.323, 0.492, 0.295]])
    assert build("or_cnn", 6).estimate(probability.logit()).age == 2
    corn = build("corn", 5)
    assert corn.estimate(torch.tensor([[14.152, -6.1942, 0.47710, 0.96850]])).age == 1
    assert corn.estimate(torch.tensor([[65.667, 0.303, 11.5, -4.524]])).age == 3
    assert build("coral", 5).estimate(torch.zeros(1, 4)).age == 0, "0.5 is not older"


@pytest.mark.parametrize("name", ["coral", "corn", "or_cnn"])
def test_distribution_from_exceedance(name):
    exceedance = torch.tensor([[0.9, 0.6, 0.3]])
    logits = exceedance.logit()
    if name == "corn":
        logits = (exceedance / torch.tensor([[1, 0.9, 0.6]])).logit()
    estimate = build(name, 4, first=10).estimate(logits)
    torch.testing.assert_close(estimate.probability, torch.tensor([[0.1, 0.3, 0.3, 0.3]]))
    torch.testing.assert_close(estimate.mean, torch.tensor([11.8]))
    assert estimate.age == 12
    expected = build(name, 4, first=10, decode="expectation").estimate(logits)
    assert torch.equal(expected.age, expected.mean)


def test_rising_exceedance_still_gives_probabilities():
    estimate = build("or_cnn", 4).estimate(torch.tensor([[0.3, 0.8, 0.2]]).logit())
    torch.testing.assert_close(estimate.probability, torch.tensor([[0.7, 0, 0.6, 0.2]]) / 1.5)
    torch.testing.assert_close(estimate.mean, torch.tensor([1.3]))


def test_a_range_decides_only_the_questions_outside_it():
    age = AgeRange(torch.tensor([2.0]), torch.tensor([4.0]), torch.tensor([True]))
    for name in ("coral", "or_cnn"):
        logits = torch.randn(1, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
        loss = build(name, 7).loss(logits, age)
        expected = nn.functional.softplus(torch.cat([-logits[0, :2], logits[0, 4:]])).sum()
        torch.testing.assert_close(loss[0], expected)
        assert (torch.autograd.grad(loss, logits)[0] != 0).tolist() == [[True, True, False, False, True, True]]


def test_corn_range_is_the_mass_inside_it():
    logits = torch.randn(1, 6, generator=torch.Generator().manual_seed(0))
    method = build("corn", 7)
    loss = method.loss(logits, AgeRange(torch.tensor([2.0]), torch.tensor([4.0]), torch.tensor([True])))
    mass = method.estimate(logits).probability[0, 2:5].sum()
    torch.testing.assert_close(loss[0] * method.questions_asked, -mass.log())


def test_coral_biases_become_ordered_by_training():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 4, generator=generator)
    age = ((x[:, 0] + 0.3 * torch.randn(400, generator=generator)) * 2 + 4).round().clamp(0, 8)
    method = build("coral", 9)
    with torch.no_grad():
        method.scaled_bias.copy_(method.scaled_bias.flip(0))
    optimizer = torch.optim.Adam(method.parameters(), lr=0.1)
    assert not (method.bias.diff() <= 0).any()
    for _ in range(150):
        optimizer.zero_grad()
        method.loss(method(x), AgeRange.exact(age)).mean().backward()
        optimizer.step()
    assert (method.bias.diff() < 0).all()
    assert (method.exceedance(method(x)).diff() <= 0).all()


def test_corn_is_ordered_whatever_its_output():
    exceedance = build("corn", 101).exceedance(torch.randn(64, 100) * 5)
    assert (exceedance.diff() <= 0).all()
