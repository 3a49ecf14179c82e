import math

import pytest
import torch
from torch import nn

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.methods.classification import Classification
from mivolo_lite.methods.distribution import class_bounds, log_mass, mean_and_variance, median, spread
from mivolo_lite.methods.interface import AgeEstimate, AgeSpan

BENCHMARK_SPAN = AgeSpan(0, 101)


def classification(span=BENCHMARK_SPAN, **options):
    config = Classification.Config(**options)
    return Classification(lambda outputs, bias=True: nn.Linear(4, outputs, bias), span, config)


def test_uniform_logits():
    method, age = classification(), AgeRange.exact(torch.tensor([0.0, 30, 101]))
    torch.testing.assert_close(method.loss(torch.zeros(3, 102), age), torch.full((3,), 4.624973))
    torch.testing.assert_close(method.estimate(torch.zeros(1, 102)).mean, torch.tensor([50.5]))
    mean, variance = mean_and_variance(torch.full((1, 101), 1 / 101), torch.arange(101.0))
    torch.testing.assert_close(mean, torch.tensor([50.0]))
    torch.testing.assert_close(variance, torch.tensor([850.0]), rtol=1e-5, atol=0)


def test_the_spread_of_two_ages_that_are_alike_probable_is_half_their_distance():
    probability = torch.zeros(1, 102).index_fill(1, torch.tensor([20, 26]), 0.5)
    torch.testing.assert_close(
        spread(AgeEstimate(torch.tensor([23.0]), probability), BENCHMARK_SPAN), torch.tensor([3.0])
    )
    assert spread(AgeEstimate(torch.tensor([23.0]), None), BENCHMARK_SPAN) is None


def test_cross_entropy_is_torchs():
    logits, age = torch.randn(6, 102), torch.tensor([0.0, 3, 50, 77.4, 100.6, 101])
    expected = nn.functional.cross_entropy(logits, age.round().long(), reduction="none")
    torch.testing.assert_close(classification().loss(logits, AgeRange.exact(age)), expected)


def test_a_constant_added_to_the_logits_changes_nothing():
    logits, age = torch.randn(4, 102), AgeRange.exact(torch.tensor([3.0, 20, 60, 90]))
    method = classification()
    torch.testing.assert_close(method.loss(logits + 7, age), method.loss(logits, age))


def test_the_first_age_enters_target_and_expectation():
    method = classification(AgeSpan(20, 60))
    logits = torch.full((1, 41), -30.0)
    logits[0, 15] = 30
    assert method.estimate(logits).mean == 35
    assert method.loss(logits, AgeRange.exact(torch.tensor([35.0]))) < 1e-6


def test_a_range_costs_the_mass_outside_it():
    logits = torch.randn(1, 102, generator=torch.Generator().manual_seed(0))
    age = AgeRange(torch.tensor([20.0]), torch.tensor([29.0]), torch.tensor([True]))
    expected = -math.log(logits.double().softmax(-1)[0, 20:30].sum())
    assert classification().loss(logits, age).item() == pytest.approx(expected, rel=1e-5)


def test_class_bounds_round_half_to_even_and_never_cross():
    age = AgeRange(torch.tensor([2.5, 3.5, 20.3, 7, -4]), torch.tensor([2.5, 3.5, 20.7, 3, 200]), torch.ones(5).bool())
    first, last = class_bounds(age, AgeSpan(0, 100))
    assert first.tolist() == [2, 4, 20, 7, 0] and last.tolist() == [2, 4, 21, 7, 100]


def test_mass_of_everything_is_one():
    log_probability = torch.randn(3, 11).log_softmax(-1)
    torch.testing.assert_close(log_mass(log_probability, torch.zeros(3), torch.full((3,), 10)), torch.zeros(3))


def test_median_minimises_the_expected_error():
    ages = torch.arange(20, 61.0)
    probability = torch.randn(50, 41, generator=torch.Generator().manual_seed(1)).mul(2).softmax(-1)
    expected_error = probability @ (ages[:, None] - ages[None]).abs()
    assert torch.equal(median(probability, ages), ages[expected_error.argmin(-1)])
    assert median(torch.tensor([[0.5, 0.5, 0]]), torch.arange(3.0)) == 0


def test_decodes():
    logits = torch.log(torch.tensor([[0.4, 0.15, 0.45]]))
    answers = {
        decode: classification(AgeSpan(10, 12), decode=decode).estimate(logits).age.item()
        for decode in ("expectation", "rounded", "median")
    }
    assert answers == {"expectation": pytest.approx(11.05), "rounded": 11, "median": 11}
