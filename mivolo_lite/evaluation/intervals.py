"""Intervals: percentile bootstrap of any statistic of sums over images, exact ones of shares."""

import warnings
from collections.abc import Callable

import numpy as np

TIMES, LEVEL = 1000, 0.95

LIMIT = 30
"""Fewer images than this give no figure: their mean is mostly noise."""

_ELEMENTS = 4_000_000  # sums held at once: 32 MB
_DRAWS = 10_000  # images sampled at once: of few images, many replicates, which fit a CPU's cache

Statistic = Callable[[np.ndarray], np.ndarray]
"""Maps sums (B, C, K), over the images of each of C cells of K values, to (B, ...) numbers."""


def bootstrap(
    values: np.ndarray,
    statistic: Statistic,
    cell: np.ndarray | None = None,
    times: int = TIMES,
    level: float = LEVEL,
    seed: int = 0,
) -> np.ndarray:
    """The percentile bootstrap interval of a statistic: images are resampled with replacement.

    Args:
        values, statistic, cell, times, seed: see ``replicates``; NaN where a replicate has no statistic (it is left
            out).
        level: share of the replicates between the two ends.

    Returns:
        (2, ...) lower and upper end of the statistic, NaN where no replicate had one.
    """
    return percentiles(replicates(values, statistic, cell, times, seed), level)


def bootstrap_of_enough(values: np.ndarray, statistic: Statistic, level: float = LEVEL) -> np.ndarray:
    """``bootstrap``, all NaN for fewer than ``LIMIT`` images.

    A bootstrap of few is too narrow: of one image it has no width, of three it misses the mean in 28 % of cases.
    """
    if len(values) >= LIMIT:
        return bootstrap(values, statistic, level=level)
    figures = statistic(np.zeros((1, 1, values.shape[1])))[0]  # how many there are, also of no image
    return np.full((2, *figures.shape), np.nan)


def percentiles(resampled: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """(2, ...) what the middle share of replicates (times, ...) lies between; NaN where none has a number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without any number is NaN, and says so itself
        return np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)


def replicates(
    values: np.ndarray, statistic: Statistic, cell: np.ndarray | None = None, times: int = TIMES, seed: int = 0
) -> np.ndarray:
    """(times, ...) the statistic of images resampled with replacement.

    Means, gaps between groups and averages over age bins are all functions of sums over cells, so no image is
    touched twice in a replicate and 100,000 images take a second.

    Args:
        values: (N, K) what is summed, one row an image.
        statistic: of sums (B, C, K).
        cell: (N,) from 0 to C - 1, every number at least once; one cell where None.
        times: replicates.
        seed: of the draws.
    """
    cell = np.zeros(len(values), dtype=np.int64) if cell is None else cell
    order = np.argsort(cell, kind="stable")
    columns, starts = values[order].T.astype(np.float64), np.flatnonzero(np.diff(cell[order], prepend=-1))
    random, n = np.random.default_rng(seed), len(values)

    def resample(times: int) -> np.ndarray:
        draws = random.integers(0, n, (times, n)) + n * np.arange(times)[:, None]
        counts = np.bincount(draws.ravel(), minlength=times * n).reshape(times, 1, n)  # how often each image is there
        return np.add.reduceat(columns * counts, starts, axis=2).swapaxes(1, 2)

    def sums(times: int) -> np.ndarray:
        return np.concatenate([resample(some) for some in _batches(times, _DRAWS // n)])

    held = _ELEMENTS // (len(starts) * len(columns))
    return np.concatenate([statistic(sums(some)) for some in _batches(times, held)])


def _batches(count: int, at_once: int) -> list[int]:
    """Sizes of the batches that so many are cut into, at least one in each."""
    at_once = max(1, at_once)
    return [min(at_once, count - start) for start in range(0, count, at_once)]


def share_interval(hits: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """(2,) ends of the share of hits (N,); see ``count_interval``."""
    return count_interval(int(np.sum(hits)), len(hits), level)


def count_interval(hits: float, n: float, level: float = LEVEL) -> np.ndarray:
    """(2,) ends of a share from ``hits`` of ``n``, by Clopper and Pearson (Biometrika 1934); neither need be whole.

    It holds the true share at least as often as it says, near 0 and 1 as well: none of 60 is not [0, 0] but [0, 0.06].
    A bootstrap would draw none of 60 again and again.
    """
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    lower = betaincinv(hits, n - hits + 1, tail) if hits else 0.0
    return np.array([lower, betaincinv(hits + 1, n - hits, 1 - tail) if hits < n else 1.0])


def paired_share_interval(difference: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """(2,) ends of the mean of (N,) differences of two hits, each -1, 0 or 1 (Agresti and Min, 2005).

    Half an image is added to each of the four outcomes, so that two models that never differ are not certain to.
    """
    from scipy.special import ndtri

    n, gained, lost = len(difference) + 2, np.sum(difference > 0) + 0.5, np.sum(difference < 0) + 0.5
    mean = (gained - lost) / n
    half = ndtri((1 + level) / 2) * np.sqrt(((gained + lost) / n - mean**2) / n)
    return np.clip([mean - half, mean + half], -1, 1)


def half_width(values: np.ndarray, level: float = LEVEL) -> float:
    """Half of Student's interval of the mean of (N,) numbers; NaN of one."""
    from scipy.special import stdtrit

    n = len(values)
    return float(stdtrit(n - 1, (1 + level) / 2) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan


def counted(*columns: np.ndarray) -> np.ndarray:
    """(N, 1 + K) values whose first is 1 for every image, so that the first sum is their number."""
    return np.stack([np.ones(len(columns[0])), *columns], axis=1)


def means(sums: np.ndarray) -> np.ndarray:
    """(..., K) means from (..., 1 + K) sums of ``counted`` values; NaN of nothing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., 1:] / sums[..., :1]


def cell_sums(values: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """(1, C, K) the sums of the images themselves, as ``bootstrap`` gives those of its replicates."""
    return np.stack([np.bincount(cell, column) for column in values.T], axis=-1)[None]


def finite_or_none(value: float) -> float | None:
    """A figure as JSON has it."""
    return float(value) if np.isfinite(value) else None


def as_pair(interval: np.ndarray) -> list[float] | None:
    """An interval (2,) as JSON has it."""
    return None if np.isnan(interval).any() else [float(end) for end in interval]
