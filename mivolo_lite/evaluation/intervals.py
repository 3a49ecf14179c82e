"""Intervals: percentile bootstrap of statistics of sums over images, exact ones of shares, Student's of means.

The errors of one person's images are correlated. With identities, the sampling unit is therefore the person: the
bootstrap resamples people with all of their images (cluster bootstrap; Davison and Hinkley 1997, section 3.8),
variances are of sums over people (Liang and Zeger, Biometrika 1986), and shares have the exact intervals of their
effective number of independent images (Korn and Graubard, Survey Methodology 1998). If nobody is in two images, the
results equal those without identities bit by bit.
"""

import warnings
from collections.abc import Callable

import numpy as np

TIMES, LEVEL = 1000, 0.95

LIMIT = 30
"""Fewest images for a figure, and fewest people for a bootstrap interval."""

_ELEMENTS = 4_000_000  # sums held at once: 32 MB
_DRAWS = 10_000  # images sampled at once, so that they fit a CPU's cache

Identity = np.ndarray | None
"""(N,) number of the person in each image; NaN for unknown, which counts as another person. None if all are unknown."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""Maps sums (B, C, K) of K values over the images of each of C cells to (B, ...) numbers."""


def bootstrap_of_enough(
    values: np.ndarray,
    statistic: Statistic,
    level: float = LEVEL,
    identity: Identity = None,
    cell: np.ndarray | None = None,
) -> np.ndarray:
    """(2, ...) ends of the percentile bootstrap interval of a statistic, NaN for fewer than ``LIMIT`` people.

    A bootstrap of few images is too narrow: for one image it has no width, for three it misses the mean in 28 % of
    cases.

    Args:
        values, statistic, identity, cell: see ``replicates``.
        level: share of the replicates between the two ends.
    """
    if count_people(identity, len(values)) >= LIMIT:
        return percentiles(replicates(values, statistic, cell, identity=identity), level)
    _, *shape = statistic(np.ones((1, 1, values.shape[1]))).shape
    return np.full((2, *shape), np.nan)


def percentiles(resampled: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """(2, ...) ends of the middle share of replicates (times, ...); NaN if all are NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN columns give NaN
        return np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)


def replicates(
    values: np.ndarray,
    statistic: Statistic,
    cell: np.ndarray | None = None,
    times: int = TIMES,
    seed: int = 0,
    identity: Identity = None,
) -> np.ndarray:
    """(times, ...) the statistic of people who are resampled with replacement, with all of their images.

    Means, gaps between groups and averages over age bins are all functions of sums over cells, so 100,000 images take a
    second.

    Args:
        values: (N, K) summands, one row for each image.
        statistic: of sums (B, C, K).
        cell: (N,) from 0 to C - 1, all of which occur; None for a single cell.
        times: replicates.
        seed: of the draws.
        identity: who is in each image.
    """
    cell = np.zeros(len(values), dtype=np.int64) if cell is None else cell
    order = np.argsort(cell, kind="stable")
    columns, starts = values[order].T.astype(np.float64), np.flatnonzero(np.diff(cell[order], prepend=-1))
    person, random = people_of(select(identity, order), len(values)), np.random.default_rng(seed)
    batches = _batches(times, _ELEMENTS // (len(starts) * len(columns)))
    return np.concatenate([statistic(_resampled_sums(columns, starts, person, size, random)) for size in batches])


def _resampled_sums(
    columns: np.ndarray, starts: np.ndarray, person: np.ndarray, times: int, random: np.random.Generator
) -> np.ndarray:
    """(times, C, K) sums over the images of people who are sampled with replacement.

    Args:
        columns: (K, N) values, each cell's images one after another.
        starts: (C,) the first image of each cell.
        person: (N,) who is in each image.
        times: replicates.
        random: samples the people.
    """
    images, people = len(person), person.max() + 1
    sums = []
    for size in _batches(times, _DRAWS // images):
        draws = random.integers(0, people, (size, people)) + people * np.arange(size)[:, None]
        counts = np.bincount(draws.ravel(), minlength=size * people).reshape(size, 1, people)
        image_counts = counts if people == images else counts[..., person]  # whether somebody is in two images
        sums.append(np.add.reduceat(columns * image_counts, starts, axis=2).swapaxes(1, 2))
    return np.concatenate(sums)


def _batches(count: int, at_once: int) -> list[int]:
    """Sizes of batches of at most ``at_once``, and at least 1, that add up to ``count``."""
    at_once = max(1, at_once)
    return [min(at_once, count - start) for start in range(0, count, at_once)]


def share_interval(hits: np.ndarray, level: float = LEVEL, identity: Identity = None) -> np.ndarray:
    """(2,) ends of the share of hits, (N,) from 0 to 1; see ``count_interval`` and ``design_effect``."""
    effect = design_effect(hits - np.mean(hits), identity, level)
    return count_interval(np.sum(hits) / effect, len(hits) / effect, level)


def count_interval(hits: float, n: float, level: float = LEVEL) -> np.ndarray:
    """(2,) ends of a share from ``hits`` of ``n``, by Clopper and Pearson (Biometrika 1934); both may be fractional.

    Its coverage is at least the nominal one, also near 0 and 1: 0 of 60 gives [0, 0.06], where a bootstrap gives [0,
    0].
    """
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    lower = betaincinv(hits, n - hits + 1, tail) if hits else 0.0
    return np.array([lower, betaincinv(hits + 1, n - hits, 1 - tail) if hits < n else 1.0])


def paired_share_interval(difference: np.ndarray, level: float = LEVEL, identity: Identity = None) -> np.ndarray:
    """(2,) ends of the mean of (N,) differences of two hits, each -1, 0 or 1 (Agresti and Min, 2005).

    Half a person is added to each of the four outcomes, so that the interval of two models that never differ has a
    width. See ``design_effect`` for people in several images.
    """
    from scipy.special import ndtri

    effect = design_effect(difference - np.mean(difference), identity, level)
    half_a_person = len(difference) / count_people(identity, len(difference)) / 2
    n = (len(difference) + 4 * half_a_person) / effect
    gained, lost = ((np.sum(sign * difference > 0) + half_a_person) / effect for sign in (1, -1))
    mean = (gained - lost) / n
    half = ndtri((1 + level) / 2) * np.sqrt(((gained + lost) / n - mean**2) / n)
    return np.clip([mean - half, mean + half], -1, 1)


def half_width(values: np.ndarray, level: float = LEVEL, identity: Identity = None) -> float:
    """Half the width of Student's interval of the mean of (N,) numbers; NaN for one person."""
    from scipy.special import stdtrit

    values = _one_a_person(values, identity)
    n = len(values)
    return float(stdtrit(n - 1, (1 + level) / 2) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan


def design_effect(deviations: np.ndarray, identity: Identity, level: float = LEVEL) -> float:
    """Inflation of a mean's variance by people with several images (Kish, 1965); 1 if there are none.

    Counts of images divided by it are the effective counts of independent images (Rao and Scott, Biometrics 1992). The
    variance is itself estimated, so it is enlarged by the ratio of Student's to normal quantiles (Korn and Graubard,
    Survey Methodology 1998). If all deviations are 0, as for a share of 0 or 1, the correlation cannot be estimated,
    and the images of a person count as one.

    Args:
        deviations: (N,) deviations of the images from the mean, times their weights in the estimate.
        identity: who is in each image.
        level: of the interval.
    """
    from scipy.special import stdtrit

    images = len(deviations)
    person = people_of(identity, images)
    people = count_people(identity, images)
    if people == images:
        return 1.0
    if people == 1 or not deviations.any():
        return images / people
    totals = np.bincount(person, deviations)
    larger = people / (people - 1) * np.sum(totals**2) / np.sum(deviations**2)
    person_quantile, image_quantile = stdtrit([people - 1, images - 1], (1 + level) / 2)
    return max(1.0, float(larger * (person_quantile / image_quantile) ** 2))


def _one_a_person(values: np.ndarray, identity: Identity) -> np.ndarray:
    """(people,) numbers whose mean is that of (N,) values, with the variance of sampling people.

    They are the mean plus the sum of each person's deviations (the linearised mean of survey statistics).
    """
    people = count_people(identity, len(values))
    if people == len(values):
        return values
    deviations = np.bincount(people_of(identity, len(values)), values - values.mean())
    return values.mean() + deviations * people / len(values)


def people_of(identity: Identity, images: int) -> np.ndarray:
    """(images,) index of the person in each image, from 0 on without gaps; the image's own index if nobody is in
    two."""
    if identity is not None:
        people, person = np.unique(identity, return_inverse=True, equal_nan=False)
        if len(people) < images:
            return person
    return np.arange(images)


def count_people(identity: Identity, images: int) -> int:
    """The number of people in ``images`` images."""
    return images if identity is None else len(np.unique(identity, equal_nan=False))


def people_entry(identity: Identity, images: int) -> dict[str, int]:
    """The entry ``people`` next to ``n``; empty without identities."""
    return {} if identity is None else {"people": count_people(identity, images)}


def select(identity: Identity, images: np.ndarray) -> Identity:
    """The identities of a subset of the images."""
    return None if identity is None else identity[images]


def counted(*columns: np.ndarray) -> np.ndarray:
    """(N, 1 + K) values with a leading column of ones, so that the first sum is the number of images."""
    return np.stack([np.ones(len(columns[0])), *columns], axis=1)


def means(sums: np.ndarray) -> np.ndarray:
    """(..., K) means from (..., 1 + K) sums of ``counted`` values; NaN for no images."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., 1:] / sums[..., :1]


def cell_sums(values: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """(1, C, K) the sums over the images themselves, in the form of those in ``replicates``."""
    return np.stack([np.bincount(cell, column) for column in values.T], axis=-1)[None]


def finite_or_none(value: float) -> float | None:
    """A figure for JSON: None for NaN."""
    return float(value) if np.isfinite(value) else None


def as_pair(interval: np.ndarray) -> list[float] | None:
    """An interval (2,) for JSON: None for NaN."""
    return None if np.isnan(interval).any() else [float(end) for end in interval]
