"""All metrics of a set of predictions, as they go to ``metrics.json``."""

from collections.abc import Mapping, Sequence

import numpy as np

from mivolo_lite.evaluation.calibration.reliability import (
    gender_accuracy_by,
    gender_calibration,
    interval_coverage,
    risk_coverage,
)
from mivolo_lite.evaluation.classes import class_accuracy
from mivolo_lite.evaluation.groups import gaps, macro_mae
from mivolo_lite.evaluation.intervals import (
    Identity,
    as_pair,
    bootstrap_of_enough,
    counted,
    means,
    people_entry,
    select,
    share_interval,
)
from mivolo_lite.evaluation.metrics import (
    Names,
    age_errors,
    cumulative_scores,
    evaluate_predictions,
    gender_correct,
    gross_error_rate,
    ten_year_bin,
    within,
)
from mivolo_lite.evaluation.nist import LEGAL_AGES, nist_measures, threshold_curve
from mivolo_lite.evaluation.predictions import Predictions


def summarise(predictions: Predictions, legal_ages: Sequence[int] = LEGAL_AGES, level: float | None = None) -> dict:
    """The metrics of ``evaluate_predictions``, with 95 % intervals, by bootstrap or exact ones of shares, and more.

    Args:
        predictions: estimates and truth.
        legal_ages: of the threshold curves.
        level: nominal coverage of the predictions' age intervals; None if they have none.

    Returns:
        What ``evaluate_predictions`` returns, its rows ``by`` subgroup with a ``mae_interval`` and ``bias_interval``,
        where identities are known ``people`` next to each ``n`` of these, and:

        * ``intervals`` of ``mae`` and ``bias``, None for fewer than ``LIMIT`` people, and of ``cs5``, ``ce20`` and
          ``gender_accuracy``;
        * ``ce20``, share of errors of 20 years or more, and ``cs``, CS(n) for n from 0 to 15;
        * ``macro_mae`` over ten-year bins, and ``gaps`` between subgroups: see ``groups``;
        * ``gender``: see ``calibration``, with the accuracy ``by`` age and group;
        * ``classes`` for ages known as ranges, ``nist`` and ``thresholds`` by legal age;
        * ``risk_coverage`` of age and gender, and ``age_intervals``;
        * ``verification`` by each embedding task.
    """
    metrics = evaluate_predictions(predictions)
    errors = age_errors(predictions.age, predictions.age_lo, predictions.age_hi)
    subgroups = {
        "age": ten_year_bin(predictions.age_lo, predictions.age_hi),
        "gender": predictions.gender,
        "group": predictions.group,
    }
    identity, has_error = predictions.identity, ~np.isnan(errors)
    for subgroup, names in subgroups.items():
        _add_intervals(metrics["by"][subgroup], errors, names, identity)
    is_correct = gender_correct(predictions.female, predictions.gender)
    return metrics | {
        **people_entry(select(identity, has_error), int(has_error.sum())),
        "intervals": _intervals(errors, is_correct, identity),
        "ce20": gross_error_rate(errors),
        "cs": cumulative_scores(errors),
        "macro_mae": macro_mae(errors, subgroups["age"], identity),
        "gaps": _gaps(errors, subgroups, identity),
        "gender": _gender(predictions, subgroups),
        "classes": class_accuracy(predictions.age, predictions.age_lo, predictions.age_hi, identity),
        "nist": nist_measures(predictions),
        "thresholds": [threshold_curve(predictions, age) for age in legal_ages],
        "risk_coverage": _risk_coverage(predictions, errors, is_correct),
        "age_intervals": _age_intervals(predictions, subgroups, level),
        "verification": {name: embeddings.verified for name, embeddings in predictions.embeddings.items()},
    }


def age_curves(predictions: Predictions) -> dict:
    """The entries of ``summarise`` for curves over ages: ``by`` age, with intervals, and ``cs``."""
    errors = age_errors(predictions.age, predictions.age_lo, predictions.age_hi)
    rows = evaluate_predictions(predictions)["by"]["age"]
    _add_intervals(rows, errors, ten_year_bin(predictions.age_lo, predictions.age_hi), predictions.identity)
    return {"by": {"age": rows}, "cs": cumulative_scores(errors)}


def _add_intervals(rows: dict[str, dict], errors: np.ndarray, names: Names, identity: Identity) -> None:
    labels = np.array(names, dtype=object)
    for name, row in rows.items():
        use = (labels == name) & ~np.isnan(errors)
        values = counted(np.abs(errors[use]), errors[use])
        row_identity = select(identity, use)
        ends = bootstrap_of_enough(values, means, identity=row_identity)[:, 0]
        row |= {"mae_interval": as_pair(ends[:, 0]), "bias_interval": as_pair(ends[:, 1])}
        row |= people_entry(row_identity, len(values))


def _intervals(errors: np.ndarray, is_correct: np.ndarray, identity: Identity) -> dict:
    has_error, has_gender = ~np.isnan(errors), ~np.isnan(is_correct)
    errors, is_correct = errors[has_error], is_correct[has_gender]
    result = dict.fromkeys(("mae", "bias", "cs5", "ce20", "gender_accuracy"))
    if len(errors):
        error_identity = select(identity, has_error)
        ends = bootstrap_of_enough(counted(np.abs(errors), errors), means, identity=error_identity)[:, 0]
        result |= {name: as_pair(ends[:, index]) for index, name in enumerate(("mae", "bias"))}
        result["cs5"] = as_pair(share_interval(within(errors, 5), identity=error_identity))
        result["ce20"] = as_pair(share_interval(np.abs(errors) >= 20, identity=error_identity))
    if len(is_correct):
        result["gender_accuracy"] = as_pair(share_interval(is_correct, identity=select(identity, has_gender)))
    return result


def _gaps(errors: np.ndarray, subgroups: Mapping[str, Names], identity: Identity) -> dict[str, dict | None]:
    gender, group, ages = subgroups["gender"], subgroups["group"], subgroups["age"]
    compared = {"gender": gender, "group": group, "gender x group": _crossed(gender, group)}
    return {name: gaps(errors, names, ages, identity) for name, names in compared.items()}


def _risk_coverage(predictions: Predictions, errors: np.ndarray, is_correct: np.ndarray) -> dict[str, dict | None]:
    spread = predictions.spread
    return {
        "age": None if spread is None else risk_coverage(np.abs(errors), spread),
        "gender": risk_coverage(1 - is_correct, -np.abs(predictions.female - 0.5)),
    }


def _gender(predictions: Predictions, subgroups: Mapping[str, Names]) -> dict | None:
    gender = gender_calibration(predictions.female, predictions.gender, predictions.identity)
    if gender is None:
        return None
    by = {
        subgroup: gender_accuracy_by(predictions.female, predictions.gender, subgroups[subgroup], predictions.identity)
        for subgroup in ("age", "group")
    }
    return gender | {"by": by}


def _age_intervals(predictions: Predictions, subgroups: Mapping[str, Names], level: float | None) -> dict | None:
    lower, upper, truth = predictions.lower, predictions.upper, (predictions.age_lo, predictions.age_hi)
    if level is None or lower is None or upper is None:
        return None
    return {"nominal": level, **interval_coverage(lower, upper, *truth, subgroups, predictions.identity)}


def _crossed(gender: Names, group: Names) -> list[str | None]:
    pairs = zip(gender, group, strict=True)
    return [None if None in pair else f"{pair[0]} {pair[1]}" for pair in pairs]
