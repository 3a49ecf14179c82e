"""Metrics of a set of predictions, over all images and by subgroup."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np

from mivolo_lite.evaluation.predictions import Predictions, TaskAnswers
from mivolo_lite.labels import GENDERS

METRICS_FILE = "metrics.json"

SHOWN = 3
"""Most unreadable images that are named; all are counted."""

Names = Sequence[str | None]
"""(N,) names of subgroups or genders, None where unknown."""

_TOLERANCE = 1e-6
"""Tolerance of rounding: an error of exactly n years counts as within n, as in MiVOLO."""


def age_errors(age: np.ndarray, lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """(N,) signed errors in years: estimate minus truth; for a range, the distance to its nearer edge, 0 inside.

    NaN where the truth or the estimate is unknown.
    """
    is_unknown = np.isnan(lo) | np.isnan(age)
    return np.where(is_unknown, np.nan, np.where(age < lo, age - lo, np.where(age > hi, age - hi, 0.0)))


def within(errors: np.ndarray, years: float) -> np.ndarray:
    """(N,) bool: errors of at most ``years``; False for NaN."""
    return np.abs(errors) <= years + _TOLERANCE


def gender_correct(female: np.ndarray, gender: Names) -> np.ndarray:
    """(N,) 1 where the more probable gender is the true one, 0 where not, NaN where either is unknown."""
    return np.where(is_gender_known(female, gender), (female > 0.5) == female_of(gender), np.nan)


def is_gender_known(female: np.ndarray, gender: Names) -> np.ndarray:
    """(N,) bool: both the probability of ``F`` and the truth are known."""
    return ~np.isnan(female) & has_name(gender)


def female_of(gender: Names) -> np.ndarray:
    """(N,) bool: the true gender is ``F``."""
    return np.array(gender, dtype=object) == "F"


def has_name(names: Iterable[str | None]) -> np.ndarray:
    """(N,) bool: the name is known."""
    return np.array([name is not None for name in names], dtype=bool)


def masks_by_name(names: Names, order: Callable[[str], Any]) -> dict[str, np.ndarray]:
    """(N,) bool for each known name, sorted by ``order``: the rows with this name."""
    labels = np.array(names, dtype=object)
    return {name: labels == name for name in sorted({name for name in names if name is not None}, key=order)}


def age_metrics(errors: np.ndarray) -> dict[str, float | int | None]:
    """``n``, ``mae`` and ``bias`` in years, ``cs5`` (share of errors of at most 5 years); NaN is left out."""
    errors = errors[~np.isnan(errors)]
    if not len(errors):
        return {"n": 0, "mae": None, "cs5": None, "bias": None}
    distance = np.abs(errors)
    return {
        "n": len(errors),
        "mae": float(distance.mean()),
        "cs5": float(within(errors, 5).mean()),
        "bias": float(errors.mean()),
    }


def epsilon_error(predictions: Predictions) -> dict[str, float | int]:
    """``epsilon_error`` over the ``epsilon_n`` samples whose age has a standard deviation; empty where none has.

    ChaLearn LAP 2015: the mean of 1 - exp(-(estimate - mean)^2 / 2 std^2) over the images, from 0 (best) to 1. A
    missing estimate counts 1. If all opinions agree (std 0), any other estimate counts 1 as well.
    """
    if predictions.age_std is None:
        return {}
    is_known = (predictions.age_std >= 0) & ~np.isnan(predictions.age_lo)
    if not is_known.any():
        return {}
    mean, std = ((predictions.age_lo + predictions.age_hi) / 2)[is_known], predictions.age_std[is_known]
    distance = predictions.age[is_known] - mean
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = -np.expm1(-0.5 * np.square(distance / std))
    errors = np.where(distance == 0, 0.0, np.where(np.isnan(errors), 1.0, errors))
    return {"epsilon_error": float(errors.mean()), "epsilon_n": len(errors)}


def cumulative_scores(errors: np.ndarray) -> list[float]:
    """CS(n), the share of errors of at most n years, for n from 0 to 15; NaN is left out."""
    errors = errors[~np.isnan(errors)]
    return [float(within(errors, n).mean()) for n in range(16)] if len(errors) else []


def gross_error_rate(errors: np.ndarray) -> float | None:
    """Share of errors of 20 years or more (MiVOLO's "max error"); NaN is left out."""
    distance = np.abs(errors[~np.isnan(errors)])
    return float((distance >= 20).mean()) if len(distance) else None


def task_metrics(name: str, task: TaskAnswers) -> dict[str, float | int | None]:
    """``<name>_accuracy`` of a classification or ``<name>_mae`` of a regression, over the ``<name>_n`` known."""
    is_known = ~np.isnan(task.truth) & ~np.isnan(task.answer)
    answer, truth = task.answer[is_known], task.truth[is_known]
    score, scores = ("accuracy", answer == truth) if task.kind == "classification" else ("mae", np.abs(answer - truth))
    return {f"{name}_{score}": float(scores.mean()) if len(scores) else None, f"{name}_n": len(scores)}


def task_scores(metrics: dict) -> list[tuple[str, str, float, int]]:
    """Name, ``accuracy`` or ``mae``, value and number of samples of every task with known labels, gender first.

    Args:
        metrics: of ``evaluate_predictions``. Only scores of tasks have a number of their own, ``<name>_n``.
    """
    scores = (key.rpartition("_") for key in metrics if key.endswith(("_accuracy", "_mae")))
    return [
        (name, score, metrics[f"{name}_{score}"], metrics[f"{name}_n"])
        for name, _, score in scores
        if metrics.get(f"{name}_n")
    ]


def ten_year_bin(age_lo: np.ndarray, age_hi: np.ndarray) -> list[str | None]:
    """(N,) the ten-year bin of each true age, such as ``"20-29"``; None where unknown.

    A range counts by its middle. A range of more than ten years, such as 70 or older, is a bin of its own,
    ``"70-100"``.
    """
    is_known = ~np.isnan(age_lo)
    lo, hi = (np.nan_to_num(ages).astype(np.int64) for ages in (age_lo, age_hi))
    tens = np.nan_to_num((age_lo + age_hi) / 2).astype(np.int64) // 10 * 10
    begin, end = np.where(hi - lo < 10, [tens, tens + 9], [lo, hi]).tolist()
    return [
        f"{first}-{last}" if known else None for known, first, last in zip(is_known.tolist(), begin, end, strict=True)
    ]


def evaluate_predictions(predictions: Predictions) -> dict:
    """The metrics of ``metrics.json`` without intervals; samples without an estimate are left out.

    Returns:
        ``n``, ``mae``, ``cs5``, ``bias``, ``gender_accuracy`` with ``gender_n``, ``baseline_mae`` (of always answering
        the mean age of these samples), ``epsilon_error`` where ages have a standard deviation, those of
        ``task_metrics`` for every other task, ``missing`` (samples without an estimate, where there are any),
        ``unreadable`` (images that cannot be decoded, ``n`` and the ``first`` few, likewise), and under ``by`` the age
        metrics by ``age`` (ten-year bins), ``gender`` and ``group``. A task that tells people apart has the accuracy of
        ``verification``, over ``<name>_n`` pairs.
    """
    errors = age_errors(predictions.age, predictions.age_lo, predictions.age_hi)
    is_correct = gender_correct(predictions.female, predictions.gender)
    is_correct = is_correct[~np.isnan(is_correct)]
    pairs = {name: embeddings.verified for name, embeddings in predictions.embeddings.items()}
    images = predictions.unreadable
    return {
        **age_metrics(errors),
        "gender_accuracy": float(is_correct.mean()) if len(is_correct) else None,
        "gender_n": len(is_correct),
        "baseline_mae": _baseline_mae(predictions),
        **epsilon_error(predictions),
        **{key: value for name, task in predictions.tasks.items() for key, value in task_metrics(name, task).items()},
        **{f"{name}_accuracy": verified and verified["accuracy"] for name, verified in pairs.items()},
        **{f"{name}_n": verified["pairs"] if verified else 0 for name, verified in pairs.items()},
        **({"missing": predictions.missing} if predictions.missing else {}),
        **({"unreadable": {"n": len(images), "first": list(images[:SHOWN])}} if images else {}),
        "by": {
            "age": _by(errors, ten_year_bin(predictions.age_lo, predictions.age_hi), by_number),
            "gender": _by(errors, predictions.gender, GENDERS.index),
            "group": _by(errors, predictions.group, str),
        },
    }


def validation_error(metrics: dict, unlearnt: Collection[str] = ()) -> float:
    """The error that selects the best weights in training: the MAE in years; without ages, 1 minus the mean accuracy of
    all other tasks, infinite if none is measured. Tasks that were not trained do not count."""
    if metrics["mae"] is not None and "age" not in unlearnt:
        return metrics["mae"]
    accuracies = [
        value
        for name, value in metrics.items()
        if name.endswith("_accuracy") and value is not None and name.removesuffix("_accuracy") not in unlearnt
    ]
    return 1 - sum(accuracies) / len(accuracies) if accuracies else math.inf


def _baseline_mae(predictions: Predictions) -> float | None:
    middle = (predictions.age_lo + predictions.age_hi) / 2
    middle[np.isnan(predictions.age)] = np.nan
    if np.isnan(middle).all():
        return None
    constant = np.where(np.isnan(middle), np.nan, np.nanmean(middle))
    return age_metrics(age_errors(constant, predictions.age_lo, predictions.age_hi))["mae"]


def _by(errors: np.ndarray, names: Names, order: Callable[[str], Any]) -> dict[str, dict]:
    return {name: age_metrics(errors[mask]) for name, mask in masks_by_name(names, order).items()}


def by_number(name: str) -> tuple[int, str]:
    """Sort key that puts ``"100-109"`` after ``"20-29"``, and names without a number in alphabetical order."""
    start = name.split("-")[0]
    return int(start) if start.isdecimal() else 0, name
