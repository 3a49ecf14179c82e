"""Calibration of the model's confidence: gender probabilities, age spreads and age intervals."""

from collections.abc import Mapping

import numpy as np

from mivolo_lite.evaluation.calibration.ranges import is_wide, years_of
from mivolo_lite.evaluation.intervals import (
    LEVEL,
    LIMIT,
    Identity,
    as_pair,
    count_interval,
    design_effect,
    people_of,
    select,
    share_interval,
)
from mivolo_lite.evaluation.metrics import Names, by_number, female_of, gender_correct, is_gender_known, masks_by_name
from mivolo_lite.labels import GENDERS

BINS = 15
_LEAST = 5e-7  # smallest probability of the truth: predictions.csv rounds smaller ones to 0
_POINTS = 100  # of a risk-coverage curve
_DRAWS = 200  # of genders by their probabilities


def gender_calibration(female: np.ndarray, gender: Names, identity: Identity = None) -> dict | None:
    """Confusion, accuracy of each gender, and the expected calibration error (ECE) over 15 equal bins of [0, 1].

    Args:
        female: (N,) estimated probability of ``F``, NaN where there is none.
        gender: (N,) true names, None where unknown.
        identity: who is in each image.

    Returns:
        ``n``, ``confusion`` (counts by true, then by estimated gender), ``accuracy`` of each gender, ``ece``,
        ``ece_by_chance``, ``nll`` (mean of minus the log probability of the truth), and ``bins`` that hold any image:
        ``n``, mean ``confidence`` (probability of the answer) and ``accuracy``. None where no gender is known.

        An ECE is never 0, even for perfectly calibrated probabilities. ``ece_by_chance`` is its 95 % quantile if
        genders are drawn from the probabilities (Broecker and Smith, 2007), with one draw for all images of a person.
    """
    is_known = is_gender_known(female, gender)
    probability, is_female = female[is_known], female_of(gender)[is_known]
    if not len(probability):
        return None
    person = people_of(select(identity, is_known), len(probability))
    answer = probability > 0.5
    confidence, is_correct = np.where(answer, probability, 1 - probability), answer == is_female
    bin_of = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    bins = [
        {"n": int(use.sum()), "confidence": float(confidence[use].mean()), "accuracy": float(is_correct[use].mean())}
        for use in (bin_of == bin_index for bin_index in range(BINS))
        if use.any()
    ]
    truth = np.where(is_female, probability, 1 - probability)
    masks = {name: is_female == (name == "F") for name in GENDERS}
    return {
        "n": len(is_correct),
        "confusion": {
            name: {estimated: int((answer[use] == (estimated == "F")).sum()) for estimated in GENDERS}
            for name, use in masks.items()
        },
        "accuracy": {
            name: float(is_correct[use].mean()) if use.sum() >= LIMIT else None for name, use in masks.items()
        },
        "ece": _ece(is_correct, confidence, bin_of),
        "ece_by_chance": _ece_by_chance(confidence, bin_of, person),
        "nll": float(-np.log(np.maximum(truth, _LEAST)).mean()),
        "bins": bins,
    }


def _ece(is_correct: np.ndarray, confidence: np.ndarray, bin_of: np.ndarray) -> float:
    return float(np.abs(np.bincount(bin_of, is_correct - confidence)).sum() / len(confidence))


def _ece_by_chance(confidence: np.ndarray, bin_of: np.ndarray, person: np.ndarray) -> float:
    random, people = np.random.default_rng(0), person.max() + 1
    draws = (random.random(people)[person] < confidence for _ in range(_DRAWS))
    return float(np.quantile([_ece(is_correct, confidence, bin_of) for is_correct in draws], LEVEL))


def gender_accuracy_by(
    female: np.ndarray, gender: Names, subgroup: Names, identity: Identity = None
) -> dict[str, dict]:
    """``n``, ``accuracy`` and its ``interval`` (None for fewer than ``LIMIT``) by subgroup."""
    rows, correct = {}, gender_correct(female, gender)
    for name, mask in masks_by_name(subgroup, by_number).items():
        use = mask & ~np.isnan(correct)
        is_correct = correct[use]
        enough = len(is_correct) >= LIMIT
        rows[name] = {
            "n": len(is_correct),
            "accuracy": float(is_correct.mean()) if enough else None,
            "interval": as_pair(share_interval(is_correct, identity=select(identity, use))) if enough else None,
        }
    return rows


def risk_coverage(loss: np.ndarray, uncertainty: np.ndarray) -> dict | None:
    """Risk-coverage curve: the mean loss of the most certain share of the images.

    Args:
        loss: (N,) absolute error in years, or 1 for a wrong gender; NaN where unknown.
        uncertainty: (N,) any increasing measure of it, NaN where unknown.

    Returns:
        ``n``, ``coverage`` and ``risk`` at up to 100 shares, and ``aurc``, the mean risk over all shares. None without
        images or where every image is equally certain.
    """
    is_known = ~np.isnan(loss) & ~np.isnan(uncertainty)
    loss, uncertainty = loss[is_known], uncertainty[is_known]
    if not len(loss) or uncertainty.min() == uncertainty.max():
        return None
    n = np.arange(1, len(loss) + 1)
    risk = np.cumsum(loss[np.argsort(uncertainty, kind="stable")]) / n
    at = np.unique(np.ceil(np.linspace(0, 1, _POINTS + 1)[1:] * len(loss)).astype(np.int64)) - 1
    return {
        "n": len(loss),
        "coverage": (n[at] / len(loss)).tolist(),
        "risk": risk[at].tolist(),
        "aurc": float(risk.mean()),
    }


def interval_coverage(
    lower: np.ndarray,
    upper: np.ndarray,
    age_lo: np.ndarray,
    age_hi: np.ndarray,
    subgroups: Mapping[str, Names],
    identity: Identity = None,
) -> dict:
    """Coverage and mean width in years of the age intervals, overall and by subgroup.

    An age range counts by the share of its years inside the interval, see ``years_of``; one that ``is_wide`` does not
    count. Subgroups of fewer than ``LIMIT`` have only their ``n``.

    Args:
        lower, upper, age_lo, age_hi: (N,) years, NaN where unknown.
        subgroups: (N,) names of each kind of subgroup, None where unknown.
        identity: who is in each image.
    """
    is_known = ~np.isnan(lower) & ~np.isnan(age_lo) & ~is_wide(age_lo, age_hi)
    row_of, year, share = years_of(age_lo[is_known], age_hi[is_known])
    is_inside = (lower[is_known][row_of] <= year) & (year <= upper[is_known][row_of])
    inside, width = np.zeros(len(lower)), upper - lower
    inside[is_known] = np.bincount(row_of, share * is_inside, is_known.sum())
    masks = {subgroup: masks_by_name(names, by_number) for subgroup, names in subgroups.items()}
    by = {
        subgroup: {name: _coverage_row(is_known & mask, inside, width, identity) for name, mask in named.items()}
        for subgroup, named in masks.items()
    }
    return _coverage_row(is_known, inside, width, identity) | {"by": by}


def _coverage_row(use: np.ndarray, inside: np.ndarray, width: np.ndarray, identity: Identity) -> dict:
    """The row of ``interval_coverage`` for a subset of the images, (N,) bool; ``inside``: (N,) from 0 to 1."""
    inside, width, n = inside[use], width[use], int(use.sum())
    if n < LIMIT:
        return {"n": n, "coverage": None, "interval": None, "width": None}
    effect = design_effect(inside - inside.mean(), select(identity, use))
    return {
        "n": n,
        "coverage": float(inside.mean()),
        "interval": as_pair(count_interval(round(inside.sum()) / effect, n / effect)),
        "width": float(width.mean()),
    }
