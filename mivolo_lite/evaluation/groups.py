"""Differences between subgroups, and those expected from sampling alone."""

from collections.abc import Sequence

import numpy as np

from mivolo_lite.evaluation.intervals import (
    LEVEL,
    LIMIT,
    Identity,
    as_pair,
    cell_sums,
    count_people,
    counted,
    finite_or_none,
    means,
    percentiles,
    replicates,
    select,
)
from mivolo_lite.evaluation.metrics import Names, by_number, has_name

_SHUFFLES = 200
COMMON = 5  # fewest images of every subgroup in an age bin that counts in the standardised error


def macro_mae(errors: np.ndarray, decade: Names, identity: Identity = None) -> dict:
    """Macro-averaged MAE: the unweighted mean over the age bins, and the worst bin.

    Args:
        errors: (N,) signed errors in years, NaN where unknown.
        decade: (N,) names of the age bins, None where unknown.
        identity: who is in each image.

    Returns:
        ``value`` and ``interval``, None if no bin is large enough; ``worst`` (``name``, ``n``, ``mae``, ``interval``,
        see ``worst_interval``); ``bins``, the number of bins that count; and ``left_out``, the number of images in each
        other bin. Both intervals are None if a bin has fewer than ``LIMIT`` people.
    """
    is_known, decades = ~np.isnan(errors) & has_name(decade), np.array(decade, dtype=object)
    names, left_out = _large_subgroups(decades[is_known])
    empty = {"value": None, "interval": None, "worst": None, "bins": 0, "limit": LIMIT, "left_out": left_out}
    if not names:
        return empty
    use = is_known & np.isin(decades, names)
    cell, identity = _codes(decades[use], names), select(identity, use)
    values, people = counted(np.abs(errors[use])), _people(cell, identity)
    mae = _maes_and_mean(cell_sums(values, cell))[0]
    resampled = replicates(values, _maes_and_mean, cell, identity=identity)
    rows = _rows(names, np.bincount(cell), people, mae, percentiles(resampled))
    resampled = _of_enough(resampled, people)
    return empty | {
        "value": float(mae[-1]),
        "interval": as_pair(percentiles(resampled[:, -1])),
        "worst": _worst(rows) | {"interval": as_pair(worst_interval(mae[:-1], resampled[:, :-1]))},
        "bins": len(names),
    }


def _maes_and_mean(sums: np.ndarray) -> np.ndarray:
    """(B, C + 1) the MAE of each bin and their mean, from sums (B, C, 2)."""
    mae = means(sums)[..., 0]
    return np.concatenate([mae, mae.mean(axis=1, keepdims=True)], axis=1)


def gaps(errors: np.ndarray, subgroup: Names, decade: Names, identity: Identity = None) -> dict | None:
    """MAE of every subgroup, and the gap between the best and the worst, raw and age-standardised.

    The raw gap also depends on the ages of a subgroup in this data set, since babies are easy. The standardised MAE
    weighs a subgroup's age bins by the age distribution of all images (direct standardisation), over the bins in which
    every subgroup has enough images. A gap is never 0, since the best and the worst of equal subgroups differ by
    chance. ``by_chance`` is the 95 % quantile over shuffles of the subgroups within the age bins, or over bootstrap
    samples of people if they are in several images, see ``between_equals``. For the same reason, bootstrap intervals of
    the gap and of the worst MAE are biased upwards; ``gap_interval`` and ``worst_interval`` correct this.

    Args:
        errors: (N,) signed errors in years, NaN where unknown.
        subgroup, decade: (N,) names of the subgroups and of the age bins, None where unknown.
        identity: who is in each image.

    Returns:
        ``rows`` by name (``n``, ``mae``, ``interval``, ``standardised``, ``standardised_interval``), ``worst``, ``raw``
        and ``standardised`` (``gap`` in years, ``ratio``, ``interval`` of the gap, ``worst_interval``, ``by_chance``),
        ``common_bins``, ``common_share`` of the images in those bins, ``limit`` and ``left_out``. None with fewer than
        two subgroups. Intervals of a subgroup of fewer than ``LIMIT`` people are None, and then those of the gaps.
    """
    is_known = ~np.isnan(errors) & has_name(subgroup) & has_name(decade)
    subgroups, decades = np.array(subgroup, dtype=object), np.array(decade, dtype=object)
    names, left_out = _large_subgroups(subgroups[is_known])
    if len(names) < 2:
        return None
    use = is_known & np.isin(subgroups, names)
    bins = sorted(set(decades[use]), key=by_number)
    crossed = _Crossed(_codes(subgroups[use], names), _codes(decades[use], bins), np.abs(errors[use]))
    estimates = crossed.maes(cell_sums(crossed.values, crossed.cell))[0]
    identity = select(identity, use)
    resampled = replicates(crossed.values, crossed.maes, crossed.cell, identity=identity)
    interval, people = percentiles(resampled), _people(crossed.subgroup, identity)
    is_shuffled = count_people(identity, len(crossed.subgroup)) == len(crossed.subgroup)
    by_chance = crossed.gaps_by_chance() if is_shuffled else crossed.between_equals(resampled)
    rows = _rows(names, crossed.count.sum(axis=1), people, estimates[0], interval[:, 0])
    for index, row in enumerate(rows.values()):
        row["standardised"] = finite_or_none(estimates[1, index])
        row["standardised_interval"] = as_pair(interval[:, 1, index]) if people[index] >= LIMIT else None
    resampled = _of_enough(resampled, people)
    return {
        "rows": rows,
        "worst": _worst(rows),
        "raw": _gap(estimates[0], resampled[:, 0], by_chance[0]),
        "standardised": _gap(estimates[1], resampled[:, 1], by_chance[1]),
        "common_bins": [name for name, shared in zip(bins, crossed.common, strict=True) if shared],
        "common_share": float(crossed.weight.sum() / crossed.count.sum()),
        "limit": LIMIT,
        "left_out": left_out,
    }


def _gap(maes: np.ndarray, resampled: np.ndarray, by_chance: float) -> dict:
    """The entry ``raw`` or ``standardised`` of ``gaps``."""
    return {
        "gap": finite_or_none(np.ptp(maes)),
        "ratio": _ratio(maes),
        "interval": as_pair(gap_interval(maes, resampled)),
        "worst_interval": as_pair(worst_interval(maes, resampled)),
        "by_chance": finite_or_none(by_chance),
    }


def gap_interval(maes: np.ndarray, resampled: np.ndarray) -> np.ndarray:
    """(2,) ends of the gap between the truly best and worst of several subgroups.

    The largest of several MAEs is partly large by chance, so the gap of the images and of their bootstrap samples is
    biased upwards: percentile intervals miss the truth in up to 80 % of simulations. Simultaneous intervals of all
    pairwise differences (Tukey's; here by the largest studentised deviation of a bootstrap) cover the largest true
    difference as well.

    Args:
        maes: (subgroups,) of the images.
        resampled: (times, subgroups) of bootstrap replicates; NaN for a subgroup without images.
    """
    first, second = np.triu_indices(len(maes), 1)
    ends = _simultaneous(maes[first] - maes[second], resampled[:, first] - resampled[:, second])
    # A difference and its opposite have mirrored intervals: the gap is the largest of them all.
    lower, upper = np.maximum(ends, -ends[::-1])
    return np.array([np.maximum(0.0, lower.max()), upper.max()])


def worst_interval(maes: np.ndarray, resampled: np.ndarray) -> np.ndarray:
    """(2,) ends of the largest true MAE of several subgroups.

    The subgroup with the largest MAE on these images is partly so by chance: with ten equal ones, its own interval
    misses the truth in one case of eight.

    Args:
        maes, resampled: as for ``gap_interval``.
    """
    return _simultaneous(maes, resampled).max(axis=1)


def _simultaneous(estimate: np.ndarray, resampled: np.ndarray) -> np.ndarray:
    """(2, C) ends of simultaneous intervals of C estimates, from (times, C) replicates; NaN where one has none.

    All have the same width in standard errors, so that the largest studentised deviation is inside.
    """
    resampled = resampled[~np.isnan(resampled).any(axis=1)]
    if np.isnan(estimate).any() or not len(resampled):
        return np.full((2, len(estimate)), np.nan)
    error = np.maximum(resampled.std(axis=0), np.finfo(float).tiny)
    furthest = np.quantile((np.abs(resampled - estimate) / error).max(axis=1), LEVEL)
    return estimate + np.outer([-furthest, furthest], error)


class _Crossed:
    """Absolute errors by subgroup and age bin. Only cells with images are summed.

    Args:
        subgroup, decade: (N,) index of each image's subgroup and age bin; every index from 0 on occurs.
        errors: (N,) absolute errors.

    Attributes:
        values: (N, 2) the summands of ``replicates``.
        cell: (N,) index of each image's cell among the C cells with images.
        place: (C,) index of such a cell in the flattened table of subgroups and bins.
        count: (subgroups, bins) images.
        common: (bins,) whether every subgroup has enough images of that age.
        weight: (bins,) of the standardised error: the images of a common age bin.
    """

    def __init__(self, subgroup: np.ndarray, decade: np.ndarray, errors: np.ndarray):
        self.subgroup, self.decade, self.values = subgroup, decade, counted(errors)
        self.shape = subgroup.max() + 1, decade.max() + 1
        self.place, self.cell = np.unique(subgroup * self.shape[1] + decade, return_inverse=True)
        self.count = self.table(cell_sums(self.values, self.cell))[0, ..., 0]
        self.common = np.all(self.count >= COMMON, axis=0)
        self.weight = self.count.sum(axis=0) * self.common

    def table(self, sums: np.ndarray) -> np.ndarray:
        """(B, subgroups, bins, 2) from the sums (B, C, 2) of the cells with images."""
        full = np.zeros((len(sums), self.shape[0] * self.shape[1], 2))
        full[:, self.place] = sums
        return full.reshape(len(sums), *self.shape, 2)

    def maes(self, sums: np.ndarray) -> np.ndarray:
        """(B, 2, subgroups) raw and standardised MAEs from sums (B, C, 2)."""
        cells = self.table(sums)
        raw, inside = means(cells.sum(axis=2))[..., 0], means(cells)[..., 0]
        weight = self.weight * ~np.isnan(inside)
        with np.errstate(invalid="ignore", divide="ignore"):
            standardised = (np.nan_to_num(inside) * weight).sum(axis=2) / weight.sum(axis=2)
        return np.stack([raw, standardised], axis=1)

    def gaps_by_chance(self) -> np.ndarray:
        """(2,) 95 % quantile of the raw and standardised gap over shuffles of the subgroups within age bins."""
        random, bins = np.random.default_rng(0), self.shape[1]
        members = [np.flatnonzero(self.decade == bin_code) for bin_code in range(bins)]
        shuffled, shuffled_gaps = self.subgroup.copy(), []
        for _ in range(_SHUFFLES):
            for rows in members:
                shuffled[rows] = random.permutation(self.subgroup[rows])
            # A shuffle within the bins keeps the number of images in every subgroup and bin.
            cell = np.searchsorted(self.place, shuffled * bins + self.decade)
            shuffled_gaps.append(np.ptp(self.maes(cell_sums(self.values, cell))[0], axis=1))
        return np.quantile(shuffled_gaps, 0.95, axis=0)

    def between_equals(self, resampled: np.ndarray) -> np.ndarray:
        """(2,) ``gaps_by_chance`` for people with several images, for which shuffles of images vary too little.

        The MAEs vary as in replicates (times, 2, subgroups) of people, but around those of subgroups with the same MAE
        in each age bin (a bootstrap of the null hypothesis; Hall and Wilson, Biometrics 1991).
        """
        estimates = self.maes(cell_sums(self.values, self.cell))
        bin_mae = np.bincount(self.decade, self.values[:, 1]) / np.bincount(self.decade)
        equals = self.maes(cell_sums(counted(bin_mae[self.decade]), self.cell))
        return percentiles(np.ptp(equals + resampled - estimates, axis=2), level=0.9)[1]


def _large_subgroups(names: np.ndarray) -> tuple[list[str], dict[str, int]]:
    """Names of at least ``LIMIT`` rows, sorted, and the number of rows of the others."""
    unique_names, count = np.unique(names.astype(str), return_counts=True)
    rows = dict(zip(unique_names.tolist(), count.tolist(), strict=True))
    return [name for name in rows if rows[name] >= LIMIT], {name: n for name, n in rows.items() if n < LIMIT}


def _codes(names: np.ndarray, order: Sequence[str]) -> np.ndarray:
    code = {name: index for index, name in enumerate(order)}
    return np.array([code[name] for name in names], dtype=np.int64)


def _people(subgroup: np.ndarray, identity: Identity) -> np.ndarray:
    """(subgroups,) number of people in each."""
    return np.array(
        [count_people(select(identity, subgroup == code), n) for code, n in enumerate(np.bincount(subgroup))]
    )


def _of_enough(resampled: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Replicates over all subgroups; NaN if one has fewer than ``LIMIT`` people."""
    return resampled if people.min() >= LIMIT else np.full_like(resampled, np.nan)


def _rows(
    names: Sequence[str], n: np.ndarray, people: np.ndarray, mae: np.ndarray, interval: np.ndarray
) -> dict[str, dict]:
    return {
        name: {
            "n": int(n[index]),
            "mae": float(mae[index]),
            "interval": as_pair(interval[:, index]) if people[index] >= LIMIT else None,
        }
        for index, name in enumerate(names)
    }


def _worst(rows: dict[str, dict]) -> dict:
    name = max(rows, key=lambda name: rows[name]["mae"])
    return {"name": name, **rows[name]}


def _ratio(maes: np.ndarray) -> float | None:
    """The largest over the smallest; None if that is unknown or 0, as for wide ranges."""
    return float(maes.max() / maes.min()) if maes.min() > 0 else None
