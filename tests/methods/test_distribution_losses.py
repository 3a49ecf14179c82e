"""Pinned values and oracles of the methods that shape a softmax."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.methods import METHODS
from mivolo_lite.methods.interface import AgeSpan
from mivolo_lite.methods.mean_residue import residue

BENCHMARK_SPAN = AgeSpan(0, 101)


def build(name, span=BENCHMARK_SPAN, **options):
    config = METHODS[name].Config(**options)
    return METHODS[name](lambda outputs, bias=True: nn.Linear(4, outputs, bias), span, config)


def random_logits(batch=6, seed=0):
    return torch.randn(batch, 102, generator=torch.Generator().manual_seed(seed)) * 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classification", 4.624973),
        ("dldl", 4.624973),
        ("sord", 4.624973),
        ("mean_variance", 89.995806),
        ("dldl_v2", 25.124973),
        ("unimodal", 3.624853),
        ("or_cnn", 70.007865),
    ],
)
def test_uniform_output_at_30(name, value):
    method = build(name)
    output = torch.zeros(1, 101 if name == "or_cnn" else 102)
    loss = method.loss(output, AgeRange.exact(torch.tensor([30.0])))
    torch.testing.assert_close(loss, torch.tensor([value]), rtol=2e-7, atol=5e-7)


def test_dldl_is_the_divergence_up_to_the_targets_entropy():
    age = torch.tensor([0.0, 30, 57.5, 101, 99, 12])
    target = np.exp(-((np.arange(102) - age.numpy()[:, None]) ** 2) / (2 * 3.0**2))
    target /= target.sum(1, keepdims=True)
    log_probability = random_logits().double().log_softmax(-1).numpy()
    expected = -(target * log_probability).sum(1)
    loss = build("dldl", sigma=3.0).loss(random_logits(), AgeRange.exact(age))
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-5)
    best = build("dldl", sigma=3.0).loss(torch.tensor(target).log().float(), AgeRange.exact(age))
    assert (best < loss).all() and (build("dldl", sigma=3.0).estimate(torch.tensor(target).log()).mean[0] > 0).all()


def test_dldl_v2_adds_the_error_of_the_expectation():
    age = AgeRange.exact(torch.tensor([0.0, 30, 57, 101, 99, 12]))
    mean = build("dldl").estimate(random_logits()).mean
    expected = build("dldl").loss(random_logits(), age) + 0.3 * (mean - age.lo).abs()
    torch.testing.assert_close(build("dldl_v2", expectation_weight=0.3).loss(random_logits(), age), expected)


def test_label_smoothing_is_torchs():
    age = torch.tensor([0, 30, 57, 101, 99, 12])
    loss = build("classification", label_smoothing=0.2).loss(random_logits(), AgeRange.exact(age))
    expected = nn.functional.cross_entropy(random_logits(), age, reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_sord(squared, scale):
    age = np.array([0, 30, 57, 101, 99, 12])
    distance = np.abs((np.arange(102) - age[:, None]) / scale) ** (2 if squared else 1)
    target = np.exp(-distance.astype(float))
    target /= target.sum(1, keepdims=True)
    expected = -(target * random_logits().double().log_softmax(-1).numpy()).sum(1)
    loss = build("sord", squared=squared, scale=scale).loss(random_logits(), AgeRange.exact(torch.tensor(age)))
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-5)


def test_mean_variance_is_the_sum_of_its_parts():
    age = torch.tensor([0, 30, 57, 101, 99, 12])
    p, j = random_logits().double().softmax(-1).numpy(), np.arange(102)
    mean = (p * j).sum(1)
    variance = (p * (j - mean[:, None]) ** 2).sum(1)
    expected = -np.log(p[range(6), age]) + 0.1 * (mean - age.numpy()) ** 2 / 2 + 0.7 * variance
    loss = build("mean_variance", mean_weight=0.1, variance_weight=0.7).loss(random_logits(), AgeRange.exact(age))
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-5)


def test_unimodal_against_a_plain_loop():
    age, probability = [0, 30, 57, 101, 99, 12], random_logits().double().softmax(-1).numpy()
    expected = []
    for p, y in zip(probability, age, strict=True):
        mean = sum(p * np.arange(102))
        variance = sum(p * (np.arange(102) - mean) ** 2)
        wrong = sum(max(0, (-1 if j < y else 1) * (p[j + 1] - p[j])) for j in range(101))
        expected.append(math.log(variance) / 2 + (mean - y) ** 2 / (2 * variance) + 1000 * wrong)
    loss = build("unimodal").loss(random_logits(), AgeRange.exact(torch.tensor(age)))
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-5)


def test_unimodal_takes_the_doubt_about_a_label_as_variance():
    age, probability = torch.tensor([20.0, 40.0]), torch.zeros(2, 102)
    probability[:, 30] = 1
    doubtful = build("unimodal", unimodal_weight=0.0, label_std=3.0)
    loss = doubtful.exact_loss(probability.log().clamp(min=-1e4), age, None)
    torch.testing.assert_close(loss, torch.full((2,), math.log(9) / 2 + 100 / 18), rtol=1e-5, atol=0)


def test_a_single_peak_at_the_age_has_no_wrong_steps():
    logits = -(torch.arange(102.0) - 40).abs()[None] / 5
    on_peak, off_peak = (AgeRange.exact(torch.tensor([age])) for age in (40.0, 45.0))
    free, full = build("unimodal", unimodal_weight=0.0), build("unimodal")
    assert full.loss(logits, on_peak) == free.loss(logits, on_peak)
    assert full.loss(logits, off_peak) > free.loss(logits, off_peak) + 1


@pytest.mark.parametrize("name", ["dldl_v2", "mean_variance", "mean_residue", "unimodal", "sord", "dldl"])
def test_a_range_is_only_asked_for_its_mass(name):
    age = AgeRange(torch.full((6,), 20.0), torch.full((6,), 29.0), torch.ones(6, dtype=torch.bool))
    torch.testing.assert_close(
        build(name).loss(random_logits(), age), build("classification").loss(random_logits(), age)
    )


@pytest.mark.parametrize(
    ("probability", "age", "mean_loss", "residue_loss", "k"),
    [
        ((0.2, 0.2, 0.2, 0.2, 0.2), 2, 0, 0.0345388, 5),
        ((0.1, 0.2, 0.4, 0.2, 0.1), 2, 0, 1.115009, 1),
        ((0.1, 0.2, 0.4, 0.2, 0.1), 1, 0.5, 0.483836, 3),
        ((0.1, 0.2, 0.4, 0.2, 0.1), 0, 2.0, 0.0345388, 5),
        ((1 / 101,) * 101, 50, 0, 0.697683, 101),
    ],
)
def test_mean_residue_pinned(probability, age, mean_loss, residue_loss, k):
    logits = torch.tensor([probability]).log()
    value, top = residue(logits.log_softmax(-1), torch.tensor([age]))
    torch.testing.assert_close(value, torch.tensor([residue_loss]), rtol=1e-5, atol=1e-6)
    assert top == k
    whole = build("mean_residue", AgeSpan(0, len(probability) - 1), mean_weight=3.0, residue_weight=7.0)
    expected = -math.log(probability[age]) + 3 * mean_loss + 7 * residue_loss
    assert whole.loss(logits, AgeRange.exact(torch.tensor([age]))).item() == pytest.approx(expected, rel=1e-5)


def test_residue_against_a_plain_loop():
    logits = random_logits(6, seed=1).double().requires_grad_()
    age = torch.randint(0, 102, (6,), generator=torch.Generator().manual_seed(2))
    p = logits.softmax(-1)
    total, ks = 0, []
    for i in range(6):
        k = 0
        for j in range(102):
            rival = p[i, j] >= p[i, age[i]]
            k += int(rival)
            q = 0 * p[i, j] if rival else p[i, j]
            total = total - (q + 1e-3) * torch.log(q + 1e-3)
        ks.append(k)
    (expected_gradient,) = torch.autograd.grad(total, logits)
    value, top = residue(logits.log_softmax(-1), age)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    torch.testing.assert_close(value.sum(), total)
    torch.testing.assert_close(gradient, expected_gradient)
    assert top.tolist() == ks


def test_residue_of_the_least_probable_class_has_no_gradient():
    logits = torch.tensor([[3.0, 2, 1, 0]], requires_grad=True)
    value, top = residue(logits.log_softmax(-1), torch.tensor([3]))
    assert top == 4 and torch.autograd.grad(value.sum(), logits)[0].abs().sum() == 0


def test_published_answers():
    logits = random_logits()
    assert torch.equal(build("mean_residue").estimate(logits).age, build("dldl").estimate(logits).mean.round())
    assert torch.equal(build("dldl_v2").estimate(logits).age, build("dldl").estimate(logits).mean)
    for name in ("dldl", "sord", "mean_variance", "unimodal"):
        answer = build("classification", decode="median").estimate(logits).age
        assert torch.equal(build(name).estimate(logits).age, answer)


@pytest.mark.parametrize("name, options", [("dldl", {}), ("dldl_v2", {}), ("sord", {}), ("sord", {"squared": True})])
def test_a_label_has_its_own_width_where_the_data_says_it(name, options):
    method, age, std = build(name, **options), torch.full((3,), 50.0), torch.tensor([0.0, 3.0, 8.0])
    known = torch.ones(3, dtype=torch.bool)
    plain, wide = AgeRange(age, age, known), AgeRange(age, age, known, std)
    output = random_logits(3)
    assert method.loss(output, wide)[0] == method.loss(output, plain)[0]
    assert (method.loss(output, wide)[1:] != method.loss(output, plain)[1:]).all()
    ages = method.ages
    for row in (1, 2):
        # The loss is linear in the log probabilities: its gradient is minus the target.
        log_probability = output[row : row + 1].log_softmax(-1).requires_grad_()
        one = build("dldl", sigma=2.0) if name == "dldl_v2" else method
        (gradient,) = torch.autograd.grad(one.exact_loss(log_probability, age[:1], std[row : row + 1]), log_probability)
        target = -gradient[0]
        mean = (target * ages).sum()
        assert mean == pytest.approx(50, abs=0.01) and target.sum() == pytest.approx(1, abs=1e-5)
        assert ((target * (ages - mean).square()).sum().sqrt()) == pytest.approx(std[row].item(), rel=0.06)


def test_widths_travel_with_ages():
    age = torch.tensor([1.0, 2.0])
    plain, wide = AgeRange.exact(age), AgeRange(age, age, torch.ones(2, dtype=torch.bool), torch.tensor([3.0, 0.0]))
    assert AgeRange.concatenate([plain, plain]).std is None
    assert AgeRange.concatenate([plain, wide]).std.tolist() == [0, 0, 3, 0]
    assert AgeSpan(10, 20).clamp(wide).std.tolist() == [3, 0] and wide.map(lambda tensor: tensor[1:]).std.tolist() == [
        0
    ]
