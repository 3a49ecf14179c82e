"""Predictions of made-up people, for laws that need many."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mivolo_lite.evaluation.calibration.conformal import age_intervals, fit_calibration
from mivolo_lite.evaluation.predictions import Predictions

GROUPS = ("a", "b", "c")


def people(n: int, seed: int = 0, spread: bool = True, unknown: float = 0.0) -> Predictions:
    """People whose errors grow with their age; their model knows how uncertain it is, of age and of gender.

    Args:
        n: how many.
        seed: of chance.
        spread: whether the estimates have a spread.
        unknown: share of each label that is not known.
    """
    random = np.random.default_rng(seed)
    age = np.floor(np.clip(random.gamma(3, 12, n), 0, 99))
    sigma = 2 + age / 12
    female = random.random(n)
    gender = np.where(random.random(n) < female, "F", "M").astype(object)
    group = random.choice(GROUPS, n).astype(object)
    truth = np.where(random.random(n) < unknown, np.nan, age)
    for names in (gender, group):
        names[random.random(n) < unknown] = None
    return Predictions(
        key=[f"p{number:06d}" for number in range(n)],
        age=np.maximum(age + random.normal(0, sigma), 0),
        female=female,
        age_lo=truth,
        age_hi=truth.copy(),
        gender=gender.tolist(),
        group=group.tolist(),
        spread=sigma if spread else None,
    )


def with_intervals(predictions: Predictions) -> Predictions:
    """The same, with age intervals of 90 % that were fitted to these very people."""
    calibration = fit_calibration(predictions, 0.9, "age")
    lower, upper = age_intervals(calibration, predictions.age, predictions.gender, predictions.group)
    return replace(predictions, lower=lower, upper=upper)


def pick(predictions: Predictions, rows: Sequence[int]) -> Predictions:
    """Some of the rows, in this order."""
    columns = {name: column for name, column in vars(predictions).items() if isinstance(column, list | np.ndarray)}
    return replace(predictions, **{
        name: column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]
        for name, column in columns.items()
    })  # fmt: skip
