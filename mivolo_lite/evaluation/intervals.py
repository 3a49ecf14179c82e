"""Percentile bootstrap intervals of any statistic that is a function of sums over kinds of pictures."""

import warnings
from collections.abc import Callable

import numpy as np

TIMES, LEVEL = 1000, 0.95

_ELEMENTS = 4_000_000  # sums held at once: 32 MB

Statistic = Callable[[np.ndarray], np.ndarray]
"""Maps sums (B, C, K), over the pictures of each of C cells of K values, to (B, ...) numbers."""


def bootstrap(
    values: np.ndarray,
    statistic: Statistic,
    cell: np.ndarray | None = None,
    times: int = TIMES,
    level: float = LEVEL,
    seed: int = 0,
) -> np.ndarray:
    """Draw the pictures again with replacement, many times, and say between what the statistic lies.

    Means, gaps between groups and averages over age bins are all functions of sums over cells, so no picture is
    touched twice in a replicate and 100,000 pictures take a second.

    Args:
        values: (N, K) what is summed, one row a picture.
        statistic: of sums (B, C, K); NaN where a replicate has none (it is left out).
        cell: (N,) from 0 to C - 1, every number at least once; one cell where None.
        times: replicates.
        level: share of the replicates between the two ends.
        seed: of the draws.

    Returns:
        (2, ...) lower and upper end of the statistic, NaN where no replicate had one.
    """
    cell = np.zeros(len(values), dtype=np.int64) if cell is None else cell
    order = np.argsort(cell, kind="stable")
    columns, first = values[order].T.astype(np.float64), np.flatnonzero(np.diff(cell[order], prepend=-1))
    random, n = np.random.default_rng(seed), len(values)

    def replicate() -> np.ndarray:
        drawn = np.bincount(random.integers(0, n, n), minlength=n)
        return np.add.reduceat(columns * drawn, first, axis=1).T

    at_once = max(1, _ELEMENTS // (len(first) * len(columns)))
    batches = [min(at_once, times - start) for start in range(0, times, at_once)]
    results = [statistic(np.stack([replicate() for _ in range(batch)])) for batch in batches]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without any number is NaN, and says so itself
        return np.nanquantile(np.concatenate(results), [(1 - level) / 2, (1 + level) / 2], axis=0)


def share_interval(hits: np.ndarray, times: int = TIMES, level: float = LEVEL, seed: int = 0) -> np.ndarray:
    """(2,) ends of the share of hits (N,): drawing hits and misses again is a binomial draw of their number."""
    n = len(hits)
    drawn = np.random.default_rng(seed).binomial(n, np.mean(hits), times) / n
    return np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])


def counted(*columns: np.ndarray) -> np.ndarray:
    """(N, 1 + K) values whose first is 1 for every picture, so that the first sum is their number."""
    return np.stack([np.ones(len(columns[0])), *columns], axis=1)


def means(sums: np.ndarray) -> np.ndarray:
    """(..., K) means from (..., 1 + K) sums of ``counted`` values; NaN of nothing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., 1:] / sums[..., :1]


def cell_sums(values: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """(1, C, K) the sums of the pictures themselves, as ``bootstrap`` gives those of its replicates."""
    return np.stack([np.bincount(cell, column) for column in values.T], axis=-1)[None]


def as_pair(interval: np.ndarray) -> list[float] | None:
    """An interval (2,) as JSON has it."""
    return None if np.isnan(interval).any() else [float(end) for end in interval]
