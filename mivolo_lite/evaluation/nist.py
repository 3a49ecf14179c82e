"""The measures of NIST's evaluation of age estimation and verification (FATE), and a threshold curve of this package.

Sources: NIST IR 8525 and its live page (pages.nist.gov/frvt/html/frvt_age_estimation.html). NIST averages over cells of
equal weight: gender x single year of age, or gender x region of birth. The groups of a data set take the place of
regions here. Only exactly known ages have a single year.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from mivolo_lite.evaluation.intervals import (
    LIMIT,
    Identity,
    as_pair,
    bootstrap_of_enough,
    cell_sums,
    count_interval,
    counted,
    design_effect,
    means,
    select,
    share_interval,
)
from mivolo_lite.evaluation.predictions import Predictions
from mivolo_lite.labels import GENDERS

ADULT_YEARS, TEEN_YEARS = range(18, 31), range(13, 17)
LEGAL_AGES = (13, 16, 18, 21)
_REACH = 10  # challenge ages of a curve, in years above the legal age


def nist_measures(predictions: Predictions) -> dict[str, dict]:
    """NIST's measures of a set of images, each with ``value``, ``interval``, ``n`` and ``cells``.

    ``value`` is None for fewer than ``LIMIT`` images, or if one of the cells that NIST averages is empty. An MAE over
    fewer than ``LIMIT`` people has no ``interval``.

    * ``mae_18_30``: mean of 26 MAEs, 2 genders x the single years 18 to 30.
    * ``challenge_25_fpr``: share of 17-year-olds with an estimate of 25 or more, mean over gender x group.
    * ``teen_mae``: mean of the 4 MAEs of the single years 13 to 16.
    * ``teen_tpr``: share of 13 to 16 estimated as 13 to 16, that is from 13 to below 17.
    * ``teen_fnr_down``, ``teen_fnr_up``: share of 13 to 16 estimated as 8 to 12, and as 17 to 22.
    * ``child_fpr``, ``adult_fpr``: share of 8 to 12, and of 17 to 22, estimated as 13 to 16.
    """
    estimate, age, gender, group = predictions.age, predictions.age_lo, predictions.gender, predictions.group
    is_exact = (age == predictions.age_hi) & ~np.isnan(estimate)
    year = np.where(is_exact, np.floor(np.nan_to_num(age)), -1).astype(np.int64)
    error = np.abs(estimate - age)
    by_year_and_gender = [None if name is None else (y, name) for y, name in zip(year, gender, strict=True)]
    group = group if any(group) else ["everyone"] * len(group)
    by_gender_and_group = [None if None in pair else pair for pair in zip(gender, group, strict=True)]
    one_cell = np.zeros(len(year), dtype=np.int64)
    is_teen, as_teen = np.isin(year, TEEN_YEARS), _within(estimate, 13, 16)
    measures: dict[str, tuple[np.ndarray, np.ndarray, Sequence | np.ndarray, list | None]] = {
        "mae_18_30": (error, np.isin(year, ADULT_YEARS), by_year_and_gender, list(product(ADULT_YEARS, GENDERS))),
        "challenge_25_fpr": (estimate >= 25, year == 17, by_gender_and_group, None),
        "teen_mae": (error, is_teen, year, list(TEEN_YEARS)),
        "teen_tpr": (as_teen, is_teen, one_cell, None),
        "teen_fnr_down": (_within(estimate, 8, 12), is_teen, one_cell, None),
        "teen_fnr_up": (_within(estimate, 17, 22), is_teen, one_cell, None),
        "child_fpr": (as_teen, _within(year, 8, 12), one_cell, None),
        "adult_fpr": (as_teen, _within(year, 17, 22), one_cell, None),
    }
    return {name: _average(*measure, predictions.identity) for name, measure in measures.items()}


def threshold_curve(predictions: Predictions, legal_age: int) -> dict:
    """Error rates of the rule "an estimate of T or more passes", for a legal age L. This generalisation is not NIST's.

    Args:
        predictions: with exact ages or ranges; a range that contains L is in neither part.
        legal_age: L in years.

    Returns:
        ``thresholds``, the challenge ages T from L to L + 10, and four times ``n``, ``rate`` and ``interval`` by
        threshold, None for fewer than ``LIMIT``:

        * ``false_pass``: P(p >= T | y < L), minors let through;
        * ``false_pass_hardest``: the same in the last year below L alone;
        * ``false_stop``: P(p < T | y >= L), adults challenged;
        * ``inconvenience``: P(p < T | y >= T), people as old as the challenge age, challenged.
    """
    lo, hi, estimate = predictions.age_lo, predictions.age_hi, predictions.age
    thresholds = np.arange(legal_age, legal_age + _REACH + 1)
    has_estimate = ~np.isnan(estimate) & ~np.isnan(lo)
    passes, has_reached = (age >= thresholds[:, None] for age in (estimate, lo))
    minor, adult = has_estimate & (hi < legal_age), has_estimate & (lo >= legal_age)
    return {
        "legal_age": legal_age,
        "thresholds": thresholds.tolist(),
        "false_pass": _rates(passes, minor, predictions.identity),
        "false_pass_hardest": _rates(passes, minor & (lo >= legal_age - 1), predictions.identity),
        "false_stop": _rates(~passes, adult, predictions.identity),
        "inconvenience": _rates(~passes, adult & has_reached, predictions.identity),
    }


def _within(age: np.ndarray, first: int, last: int) -> np.ndarray:
    """(N,) bool: from ``first`` to below ``last + 1`` years old."""
    return (age >= first) & (age < last + 1)


def _average(
    value: np.ndarray, use: np.ndarray, cell: Sequence | np.ndarray, required: list | None, identity: Identity
) -> dict:
    """The mean over cells of their mean values. All ``required`` cells must occur; None for no requirement."""
    rows = [row for row in np.flatnonzero(use).tolist() if cell[row] is not None]
    names = [cell[row] for row in rows]
    cell_names = sorted(set(names), key=str)
    result: dict[str, Any] = {"value": None, "interval": None, "n": len(rows), "cells": len(cell_names)}
    if required is not None:
        result["cells_wanted"] = len(required)
    if len(rows) < LIMIT or (required is not None and len(cell_names) < len(required)):
        return result
    code = {name: index for index, name in enumerate(cell_names)}
    cells, values = np.array([code[name] for name in names]), counted(value[rows].astype(np.float64))
    sums, row_identity = cell_sums(values, cells), select(identity, np.array(rows))
    mean = float(_mean_of_means(sums)[0])
    if value.dtype == bool:
        n = np.bincount(cells)
        effect = design_effect((values[:, 1] - means(sums)[0, cells, 0]) / n[cells], row_identity)
        interval = _share_interval(mean, n, effect)
    else:
        interval = bootstrap_of_enough(values, _mean_of_means, identity=row_identity, cell=cells)
    return result | {"value": mean, "interval": as_pair(interval)}


def _share_interval(share: float, n: np.ndarray, effect: float) -> np.ndarray:
    """(2,) ends of the mean over cells of the shares in n (C,) images each: exact for one cell of different people.

    The effective number of images is C times the harmonic mean of n, divided by the ``design_effect`` of people in
    several images.
    """
    images = len(n) ** 2 / np.sum(1 / n)
    return count_interval(share * images / effect, images / effect)


def _mean_of_means(sums: np.ndarray) -> np.ndarray:
    """(B,) mean over the cells; cells without images in a replicate are left out."""
    mean = means(sums)[..., 0]
    is_present = ~np.isnan(mean)
    return np.where(is_present, mean, 0).sum(axis=1) / is_present.sum(axis=1)


def _rates(hits: np.ndarray, use: np.ndarray, identity: Identity) -> dict:
    """The shares of hits by threshold.

    Args:
        hits: (T, N) bool.
        use: bool, the images that count, (N,) or by threshold (T, N).
        identity: who is in each image.
    """
    rows = [
        (hit[images], select(identity, images))
        for hit, images in zip(hits, np.broadcast_to(use, hits.shape), strict=True)
    ]
    return {
        "n": [len(hit) for hit, _ in rows],
        "rate": [int(hit.sum()) / len(hit) if len(hit) >= LIMIT else None for hit, _ in rows],
        "interval": [
            as_pair(share_interval(hit, identity=people)) if len(hit) >= LIMIT else None for hit, people in rows
        ],
    }
