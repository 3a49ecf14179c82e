"""Several data sets as one stream: a pure function from a position in it to a data set and a position there.

The number of samples of each set among the first ``n`` follows by bisecting the list of sets: its first half has its
share of ``n``, rounded, and so on within each half. These counts never decrease and add up to ``n``. They need no
replay, so resuming at position 10^12 takes no longer than starting.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm
from typing import Any

import numpy as np

from mivolo_lite.errors import UserError
from mivolo_lite.loading.order import GlobalOrder, Span

_LARGEST_CYCLE = 2**30  # twice its square fits into an int64


def whole_shares(weights: Sequence[float]) -> list[int]:
    """The smallest integers in the proportion of the weights, which are read as decimal fractions.

    Raises:
        UserError: they are too large.
    """
    exact = [Fraction(str(weight)) for weight in weights]
    multiples = [int(weight * lcm(*(weight.denominator for weight in exact))) for weight in exact]
    shares = [weight // gcd(*multiples) for weight in multiples]
    if sum(shares) > _LARGEST_CYCLE:
        raise UserError(f"data.train: weights {', '.join(map(str, weights))}: give them with fewer digits")
    return shares


def in_proportion(total: Any, shares: Sequence[int]) -> list:
    """``total`` (an integer, or an array of integers) split in the proportion of the shares.

    The parts add up to ``total`` and never decrease as it grows. If it is the sum of the shares, they are the shares.
    Each bisection rounds by at most 1/2: with 2^k shares the parts are within k/2 of the exact proportion.
    """
    if len(shares) == 1:
        return [total]
    half, share_sum = len(shares) // 2, sum(shares)
    first_total = (2 * total * sum(shares[:half]) + share_sum) // (2 * share_sum)
    return in_proportion(first_total, shares[:half]) + in_proportion(total - first_total, shares[half:])


class MixedOrder:
    """The endless stream of several data sets. A pass over a set has each of its samples once.

    Args:
        orders: each set's own.
        shares: integers: the samples of each set in every ``sum(shares)`` samples that begin at a multiple of it.
    """

    def __init__(self, orders: Sequence[GlobalOrder], shares: Sequence[int]):
        self.orders, self.shares, self.cycle = orders, np.array(shares), sum(shares)
        self.starts = np.cumsum([0, *map(len, orders)])[:-1]

    def __len__(self) -> int:
        """Samples in one epoch of the run: the sum over the sets."""
        return sum(map(len, self.orders))

    def before(self, positions: int | np.ndarray) -> np.ndarray:
        """(sets, ...) how many samples of each set stand before positions (...)."""
        cycles, remainder = np.divmod(positions, self.cycle)
        in_cycle = in_proportion(remainder, self.shares.tolist())
        return np.stack([cycles * share + count for share, count in zip(self.shares, in_cycle, strict=True)])

    def spans(self, first: int, count: int) -> list[Span]:
        """The spans of each set in the stream's positions from ``first`` on."""
        before = self.before(np.arange(first, first + count + 1))
        places = [np.flatnonzero(np.diff(counts)) for counts in before]
        spans = zip(self.orders, before[:, 0].tolist(), self.starts.tolist(), places, strict=True)
        return [Span(*span) for span in spans if len(span[-1])]

    def samples(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The epochs of their sets and the sample numbers, (count,) int64 each, at the positions from ``first`` on."""
        epochs, samples = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        for span in self.spans(first, count):
            epochs[span.places], set_samples = span.order.samples(span.first, len(span.places))
            samples[span.places] = span.start + set_samples
        return epochs, samples
