"""Paired comparison of evaluations of the same images, and whether their differences are more than noise.

The errors of two models on an image are correlated. Their difference varies much less than the errors, so its interval
is much narrower than the intervals of the two means suggest.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mivolo_lite.errors import UserError
from mivolo_lite.evaluation.about import cautions_by_name
from mivolo_lite.evaluation.evaluate import MATRIX_FILES
from mivolo_lite.evaluation.headline import between
from mivolo_lite.evaluation.intervals import (
    LIMIT,
    Identity,
    as_pair,
    bootstrap_of_enough,
    count_people,
    counted,
    half_width,
    means,
    paired_share_interval,
    people_entry,
    select,
    share_interval,
)
from mivolo_lite.evaluation.metric_names import LOWER, METRICS
from mivolo_lite.evaluation.metrics import METRICS_FILE, age_errors, gender_correct, within
from mivolo_lite.evaluation.predictions import PREDICTIONS_FILE, Predictions, read_csv
from mivolo_lite.wording import images_of


@dataclass(frozen=True)
class Run:
    """One evaluation.

    Attributes:
        name: its folder, and its input if the folder has several.
        predictions: its estimates.
        about: its entry in ``metrics.json``, empty if that is missing.
    """

    name: str
    predictions: Predictions
    about: dict


def compare(folders: Sequence[Path | str]) -> dict:
    """Compare every evaluation with the first, paired by image.

    Args:
        folders: that ``evaluate`` wrote. One with several inputs counts as several evaluations. Files of a matrix next
            to its folders, which a shell pattern also finds, are skipped.

    Returns:
        ``level`` of the differences' intervals, at which those of one metric hold jointly with 95 %, and ``rows``: for
        each evaluation its ``name``, and for each of ``METRICS`` None or ``value``, ``interval`` and ``n`` over all its
        images. All but the first also have a ``difference``: ``value`` minus the first's, ``interval``, ``n`` and
        ``more_than_noise``, over the images that both estimate. Intervals of the MAE are None for fewer than ``LIMIT``
        people, and ``more_than_noise`` is then False. With identities, ``people`` is next to each ``n``. ``cautions``
        are sentences on other differences of the evaluations, see
        ``cautions_by_name``.

    Raises:
        UserError: a folder has no evaluation, the images differ, an evaluation is given twice, or there is only one.
    """
    return compare_runs(read_runs(folders))


def read_runs(folders: Sequence[Path | str]) -> list[Run]:
    """The evaluations in these folders, their samples in the order of the first's. Raises UserError as ``compare``.

    All get the identities of the first that has some, since files of earlier versions have none.
    """
    if len({Path(folder).resolve() for folder in folders}) < len(folders):
        raise UserError(f"compare: {' '.join(map(str, folders))}: one of them is given twice")
    runs = [run for folder in map(Path, folders) if folder.name not in MATRIX_FILES for run in _read(folder)]
    if len(runs) < 2:
        raise UserError(f"compare: {' '.join(map(str, folders))}: give at least two evaluations")
    first = runs[0]
    matched = [_matched(run.predictions, run.name, first.predictions, first.name) for run in runs]
    identity = next((predictions.identity for predictions in matched if predictions.identity is not None), None)
    return [
        replace(run, predictions=replace(predictions, identity=identity))
        for run, predictions in zip(runs, matched, strict=True)
    ]


def compare_runs(runs: Sequence[Run]) -> dict:
    """``compare`` for evaluations whose samples are in the same order."""
    level = 1 - 0.05 / (len(runs) - 1)
    losses, identity = [image_losses(run.predictions) for run in runs], runs[0].predictions.identity
    rows: list[dict[str, Any]] = []
    for index, run in enumerate(runs):
        row: dict[str, Any] = {"name": run.name}
        for metric in METRICS:
            interval, paired = (
                (_mean_interval, _difference_interval) if metric == "mae" else (share_interval, paired_share_interval)
            )
            row[metric] = _mean(losses[index][metric], 0.95, interval, identity)
            if index and row[metric] and rows[0][metric]:
                difference = _mean(losses[index][metric] - losses[0][metric], level, paired, identity)
                if difference:
                    lower, upper = difference["interval"] or (0, 0)
                    row[metric]["difference"] = difference | {"more_than_noise": not lower <= 0 <= upper}
        rows.append(row)
    known = [(run.name, run.about["doubts"], run.about["tta"]) for run in runs if run.about]
    return {"level": level, "rows": rows, "cautions": cautions_by_name(known)}


def image_losses(predictions: Predictions) -> dict[str, np.ndarray]:
    """(N,) values of each image, whose mean is the metric; NaN where unknown."""
    errors = age_errors(predictions.age, predictions.age_lo, predictions.age_hi)
    return {
        "mae": np.abs(errors),
        "cs5": np.where(np.isnan(errors), np.nan, within(errors, 5)),
        "gender_accuracy": gender_correct(predictions.female, predictions.gender),
    }


def comparison_table(comparison: dict) -> str:
    """The comparison as text."""
    rows = comparison["rows"]
    width = max(map(len, [*(name.title for name in METRICS.values()), *(row["name"] for row in rows)])) + 2
    lines = []
    for metric in measured(comparison):
        title = METRICS[metric].title
        lines += ["", f"{title:{width}}{'n':>7}{'value':>9}  {'95 % interval':18}{'against the first':>18}"]
        for row in rows:
            lines.append(f"{row['name']:{width}}{_cells(row[metric], metric)}".rstrip())
    lines += ["", f"differences are paired by image; their intervals hold {coverage_in_words(comparison)}"]
    if people := sampled_in_words(comparison):
        lines.append(f"people are sampled: {people}")
    return "\n".join([*lines[1:], *comparison["cautions"]])


def measured(comparison: dict) -> list[str]:
    """The metrics that any of the evaluations has."""
    return [metric for metric in METRICS if any(row[metric] for row in comparison["rows"])]


def coverage_in_words(comparison: dict) -> str:
    """A sentence on the coverage of the intervals of the differences, alone and jointly."""
    others = len(comparison["rows"]) - 1
    together = "" if others == 1 else f", 95 % for all {others} together"
    return f"{comparison['level']:.2%}{together}, for each metric on its own"


def sampled_in_words(comparison: dict) -> str:
    """The number of images and people of the first evaluation; empty without identities."""
    cells = (comparison["rows"][0][metric] for metric in METRICS)
    return next((images_of(cell) for cell in cells if cell and "people" in cell), "")


def _cells(cell: dict | None, metric: str) -> str:
    if cell is None:
        return "-".rjust(7)
    form = METRICS[metric].form
    text = f"{cell['n']:7}{cell['value']:>9{form}}  {between(cell['interval'], form):18}"
    difference = cell.get("difference")
    if difference is None:
        return text
    sign = form.replace(".", "+.")
    return f"{text}{difference['value']:>+9{form}}  {between(difference['interval'], sign):20}{verdict(cell, metric)}"


def verdict(cell: dict, metric: str) -> str:
    """``better``, ``worse``, ``noise`` or ``too few`` for a metric with a ``difference``; with the number of images if
    the difference is over fewer than the row."""
    difference = cell["difference"]
    images = "" if difference["n"] == cell["n"] else f" (n={difference['n']})"
    if difference["interval"] is None:
        return f"too few{images}"
    if not difference["more_than_noise"]:
        return f"noise{images}"
    is_better = (difference["value"] < 0) == (METRICS[metric].better == LOWER)
    return f"{'better' if is_better else 'worse'}{images}"


def _read(folder: Path) -> list[Run]:
    if not (folder / PREDICTIONS_FILE).is_file():
        raise UserError(f"{folder}: no {PREDICTIONS_FILE} here; give a folder that `evaluate` wrote")
    columns, about = read_csv(folder / PREDICTIONS_FILE), _about(folder / METRICS_FILE)
    names = {name: str(folder) if name is None else f"{folder} ({name})" for name in columns}
    return [Run(names[name], predictions, about) for name, predictions in columns.items()]


def _about(path: Path) -> dict:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        data = metrics["data"]
        return {
            "checkpoint": metrics["checkpoint"],
            "data": data["folder"],
            "doubts": data,
            "tta": str(metrics.get("tta", "none")),
        }
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _matched(predictions: Predictions, name: str, first: Predictions, first_name: str) -> Predictions:
    """The predictions in the order of the first's keys. Raises UserError if they are of other images."""
    row_of = {key: row for row, key in enumerate(predictions.key)}
    if len(row_of) < len(predictions.key):
        raise UserError(f"{name}: a key occurs more than once in its {PREDICTIONS_FILE}; evaluate again")
    alone = [key for key in first.key if key not in row_of]
    other = row_of.keys() - set(first.key)
    if alone or other:
        example = alone[0] if alone else min(other)
        raise UserError(
            f"{first_name} and {name} are of different images: {len(alone)} only in the first and {len(other)} only "
            f"in the second, as {example}; evaluate both on the same data"
        )
    rows = np.array([row_of[key] for key in first.key], dtype=np.int64)
    same = all(
        np.array_equal(getattr(predictions, field)[rows], getattr(first, field), equal_nan=True)
        for field in ("age_lo", "age_hi")
    )
    if not same or [predictions.gender[row] for row in rows] != first.gender:
        raise UserError(f"{first_name} and {name} have other labels for the same keys; evaluate both on the same data")
    return Predictions(
        key=first.key,
        age=predictions.age[rows],
        female=predictions.female[rows],
        age_lo=first.age_lo,
        age_hi=first.age_hi,
        gender=first.gender,
        group=first.group,
        identity=select(predictions.identity, rows),
    )


def _mean(
    values: np.ndarray, level: float, interval: Callable[[np.ndarray, float, Identity], np.ndarray], identity: Identity
) -> dict | None:
    is_known = ~np.isnan(values)
    values, identity = values[is_known], select(identity, is_known)
    if not len(values):
        return None
    ends = as_pair(interval(values, level, identity))
    row = {"value": float(values.mean()), "interval": ends, "n": len(values)}
    return row | people_entry(identity, len(values))


def _mean_interval(values: np.ndarray, level: float, identity: Identity) -> np.ndarray:
    return bootstrap_of_enough(counted(values), means, level, identity)[:, 0, 0]


def _difference_interval(difference: np.ndarray, level: float, identity: Identity = None) -> np.ndarray:
    """Student's interval. At the high levels of a comparison of many evaluations, a bootstrap of 30 to 100 images is
    too narrow: its false positive rate is twice the nominal one."""
    if count_people(identity, len(difference)) < LIMIT:
        return np.full(2, np.nan)
    return difference.mean() + np.array([-1, 1]) * half_width(difference, level, identity)
