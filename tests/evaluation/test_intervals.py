"""Bootstrap intervals: against a plain bootstrap, against normal theory, and the coverage that they promise."""

from functools import cache
from math import comb

import numpy as np
import pytest

from mivolo_lite.evaluation.intervals import (
    cell_sums,
    count_interval,
    counted,
    means,
    paired_share_interval,
    percentiles,
    replicates,
    share_interval,
)


def test_the_mean_has_the_interval_of_normal_theory():
    values = np.random.default_rng(0).exponential(3, 4000)
    lower, upper = percentiles(replicates(counted(values), means, times=4000))[:, 0, 0]
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert (lower, upper) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05 * half)


def test_sums_over_cells_are_those_of_a_bootstrap_that_draws_row_by_row():
    random = np.random.default_rng(1)
    values, cell = random.random((50, 2)), np.arange(50) % 3
    seen = []

    def keep(sums):
        seen.append(sums)
        return sums.reshape(len(sums), -1)

    replicates(values, keep, cell, times=20, seed=5)
    draws = np.random.default_rng(5)
    for replicate in np.concatenate(seen):
        rows = sorted(range(50), key=lambda row: cell[row])
        rows = np.array(rows)[draws.integers(0, 50, 50)]
        plain = [values[[row for row in rows if cell[row] == number]].sum(axis=0) for number in range(3)]
        np.testing.assert_allclose(replicate, plain)
    np.testing.assert_allclose(cell_sums(values, cell)[0], [values[cell == number].sum(axis=0) for number in range(3)])


def test_replicates_do_not_depend_on_how_many_are_held_at_once(monkeypatch):
    values = counted(np.random.default_rng(2).random(40))
    whole = replicates(values, means, times=50)
    monkeypatch.setattr("mivolo_lite.evaluation.intervals._ELEMENTS", 14)
    np.testing.assert_array_equal(replicates(values, means, times=50), whole)


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_intervals_of_a_mae_hold_the_truth_as_often_as_they_say(level):
    random, hits, trials = np.random.default_rng(3), 0, 400
    truth = np.sqrt(2 / np.pi)  # E|e| of a standard normal error
    for trial in range(trials):
        errors = np.abs(random.normal(size=150))
        lower, upper = percentiles(replicates(counted(errors), means, times=300, seed=trial), level)[:, 0, 0]
        hits += lower <= truth <= upper
    assert hits / trials == pytest.approx(level, abs=3.5 * np.sqrt(level * (1 - level) / trials))


def test_a_share_far_from_the_ends_has_nearly_the_interval_of_its_bootstrap():
    hits = np.arange(300) % 10 < 3
    plain = percentiles(replicates(counted(hits), means, times=4000))[:, 0, 0]
    assert share_interval(hits) == pytest.approx(plain, abs=0.011)


def test_a_share_at_an_end_is_not_certain():
    assert share_interval(np.ones(30, bool)) == pytest.approx([0.884, 1], abs=1e-3)
    assert share_interval(np.zeros(60, bool)) == pytest.approx([0, 0.0596], abs=1e-3)


@cache
def intervals_of_counts(n):
    return np.array([count_interval(hits, n) for hits in range(n + 1)])


@pytest.mark.parametrize("n", [30, 60, 200])
@pytest.mark.parametrize("share", [0.0, 0.005, 0.02, 0.1, 0.5, 0.9, 0.95, 0.98, 1.0])
def test_intervals_of_a_share_hold_the_truth_at_least_as_often_as_they_say(n, share):
    # Of each count: no simulation needed.
    chance = np.array([comb(n, hits) * share**hits * (1 - share) ** (n - hits) for hits in range(n + 1)])
    ends = intervals_of_counts(n)
    assert chance[(ends[:, 0] <= share) & (share <= ends[:, 1])].sum() >= 0.95 - 1e-9


def test_a_statistic_that_no_replicate_has_is_nan():
    assert np.isnan(percentiles(replicates(np.zeros((5, 2)), means, times=10))).all()


@pytest.mark.parametrize("gain, loss", [(0.0, 0.0), (0.01, 0.0), (0.05, 0.05), (0.2, 0.1)])
def test_intervals_of_paired_shares_hold_the_truth_as_often_as_they_say(gain, loss):
    random, inside = np.random.default_rng(0), 0
    for _ in range(1000):
        resampled = random.random(60)
        lower, upper = paired_share_interval(np.where(resampled < gain, 1, np.where(resampled > 1 - loss, -1, 0)))
        inside += lower <= gain - loss <= upper
    assert inside >= 935


def test_models_that_never_differ_are_not_certain_to():
    lower, upper = paired_share_interval(np.zeros(40))
    assert lower == -upper < -0.01


def test_a_difference_of_shares_is_within_one():
    assert paired_share_interval(np.ones(2))[1] == 1 and paired_share_interval(-np.ones(2))[0] == -1
