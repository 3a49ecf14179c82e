"""The ages before any image is seen."""

import torch

from mivolo_lite.methods.prior import smoothed_counts


def test_nobody_is_lost_and_every_age_is_possible():
    counts = torch.zeros(101)
    counts[[0, 26, 100]] = torch.tensor([50.0, 300, 7])
    smoothed = smoothed_counts(counts)
    torch.testing.assert_close(smoothed.sum(), counts.sum() + 1)
    assert (smoothed > 0).all() and smoothed.argmax() == 26


def test_heaps_are_spread_over_the_years_around_them():
    counts = torch.zeros(101)
    counts[20:60:5] = 100.0
    inner = smoothed_counts(counts)[30:46]
    assert inner.max() < 1.3 * inner.min()
