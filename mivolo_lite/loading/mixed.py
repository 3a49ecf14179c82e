"""Several data sets as one stream, each with its share: a pure function from a position to one of a set's own.

The sets are told apart by halving: of the first ``n`` samples, the sets of the first half of the list have what their
weights say, rounded, and so on within each half. Such a count never falls, the counts add up to ``n``, and nothing has
to be played back to know them: a run resumes at position 10^12 as fast as it begins.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm
from typing import Any

import numpy as np

from mivolo_lite.errors import UserError
from mivolo_lite.loading.order import GlobalOrder, Span

_LARGEST_CYCLE = 2**30  # its square, twice, is still an int64


def whole_shares(weights: Sequence[float]) -> list[int]:
    """The smallest whole numbers in the proportion of the weights as they are written in decimals.

    Raises:
        UserError: they are too large to be counted with.
    """
    exact = [Fraction(str(weight)) for weight in weights]
    multiples = [int(weight * lcm(*(weight.denominator for weight in exact))) for weight in exact]
    shares = [weight // gcd(*multiples) for weight in multiples]
    if sum(shares) > _LARGEST_CYCLE:
        raise UserError(f"data.train: weights {', '.join(map(str, weights))}: give them with fewer digits")
    return shares


def in_proportion(total: Any, shares: Sequence[int]) -> list:
    """``total`` (an integer, or an array of them) cut into parts in the proportion of the shares.

    The parts add up to ``total``, none falls as it grows, and where it is the sum of the shares they are the shares.
    Each rounding moves a part by half at most: with 2 shares they are within 1/2 of what is due, with 3 or 4 within 1,
    with 2^k within k/2.
    """
    if len(shares) == 1:
        return [total]
    half, share_sum = len(shares) // 2, sum(shares)
    first_total = (2 * total * sum(shares[:half]) + share_sum) // (2 * share_sum)
    return in_proportion(first_total, shares[:half]) + in_proportion(total - first_total, shares[half:])


class MixedOrder:
    """The endless stream of several data sets, in each of which every sample comes once a pass over that set.

    Args:
        orders: each set's own.
        shares: whole numbers; of any ``sum(shares)`` samples at a multiple of it, so many are of each set.
    """

    def __init__(self, orders: Sequence[GlobalOrder], shares: Sequence[int]):
        self.orders, self.shares, self.cycle = orders, np.array(shares), sum(shares)
        self.starts = np.cumsum([0, *map(len, orders)])[:-1]

    def __len__(self) -> int:
        """Samples in one epoch of the run: as many as all sets have."""
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
