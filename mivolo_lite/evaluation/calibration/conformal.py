"""Age intervals with a promised coverage (split conformal prediction), and a temperature for the gender.

A calibration set that the model was not trained on gives the radius: of its n absolute errors, the one of rank
ceil((n + 1) level). The true age of a new image is then within the radius of its estimate with probability at least
``level``, for any model (Vovk et al. 2005; Lei et al. 2018).
Images of one person are not independent. If identities are known, each of m people has the weight 1, divided equally
among the person's images, and the rank is of m + 1. The coverage then holds for an image of a new person
(Lee, Barber and Willett, "Distribution-free inference with hierarchical data", 2023).
Every year of an age range counts as equally likely, so an estimate of 38 for 30 to 39 has errors of up to 8 years. With
the distance to the range instead, 90 % intervals missed one in four ages (All-Age-Faces and FG-NET, with a model
calibrated on FairFace's groups).
With ``by`` the coverage holds within each bin of *estimated* ages, or each group (Mondrian conformal prediction). The
bins are of estimates because true ages are unknown in use.
"""

from collections import Counter
from math import ceil

import numpy as np

from mivolo_lite.evaluation.calibration.ranges import WIDEST, is_wide, years_of
from mivolo_lite.evaluation.intervals import LIMIT, Identity, count_people, people_entry, people_of, select
from mivolo_lite.evaluation.metrics import Names, female_of, is_gender_known, ten_year_bin
from mivolo_lite.evaluation.predictions import Predictions
from mivolo_lite.labels import GENDERS, MAX_AGE, MIN_AGE

BY = ("all", "age", "gender", "group")

DECADES = [f"{ten}-{ten + 9}" for ten in range(0, MAX_AGE + 1, 10)]
"""Every bin of estimated ages, youngest first."""

_STEPS = 60  # bisections of the temperature's range
_ROUNDING = 1e-6  # rounding error of sums of shares such as 1/31


def fit_calibration(predictions: Predictions, level: float = 0.9, by: str = "all", temperature: float = 1.0) -> dict:
    """Fit the values of a card's ``calibration``.

    Args:
        predictions: of uncalibrated estimates on images that were not trained on.
        level: coverage of the intervals.
        by: of ``BY``: one radius for all, or one for each bin of estimated ages, gender or group. A bin of ages with
            too few people also uses the nearest in age; a gender or a group with too few has the radius of all. An
            image without an identity counts as a person.
        temperature: of the gender, kept if these images determine none; see ``fit_temperature``.

    Returns:
        ``level``, ``by``, ``n``, where identities are known ``people``, ``radius`` in years, ``radii`` by name (empty
        for ``all``), ``few``, the number of people by name of the subgroups that have too few, ``wide``, the number of
        ages that are left out as ranges of more than ``WIDEST`` years, ``gender_temperature``, whether it is fitted
        (``gender_fitted``), and ``gender_n``.

    Raises:
        ValueError: too few known ages for this level.
    """
    wide = is_wide(predictions.age_lo, predictions.age_hi)
    is_known = ~np.isnan(predictions.age) & ~np.isnan(predictions.age_lo) & ~wide
    age, lo, hi = (ages[is_known] for ages in (predictions.age, predictions.age_lo, predictions.age_hi))
    identity = select(predictions.identity, is_known)
    radius = conformal_radius(age, lo, hi, level, identity)
    if radius is None:
        ranges = f" ({wide.sum()} ranges of more than {WIDEST} years are left out)" if wide.any() else ""
        raise ValueError(f"{is_known.sum()} known ages are too few for intervals of level {level:g}{ranges}")
    names = np.array(_names(by, predictions.age, predictions.gender, predictions.group), dtype=object)[is_known]
    radii, few = _radii(by, names, age, lo, hi, level, people_of(identity, len(age)))
    gender_known = is_gender_known(predictions.female, predictions.gender)
    is_female, gender_identity = female_of(predictions.gender)[gender_known], select(predictions.identity, gender_known)
    fitted = fit_temperature(predictions.log_odds[gender_known], is_female, gender_identity)
    return {
        "level": float(level),
        "by": by,
        "n": int(is_known.sum()),
        **people_entry(identity, len(age)),
        "radius": radius,
        "radii": radii,
        "few": few,
        "wide": int(wide.sum()),
        "gender_temperature": temperature if fitted is None else fitted,
        "gender_fitted": fitted is not None,
        "gender_n": int(gender_known.sum()),
    }


def _radii(
    by: str, names: np.ndarray, age: np.ndarray, lo: np.ndarray, hi: np.ndarray, level: float, person: np.ndarray
) -> tuple[dict[str, float], dict[str, int]]:
    """The radius of every subgroup that has one, and the number of people of the subgroups that have too few.

    Args:
        by, level: of ``fit_calibration``.
        names: (N,) subgroups of images with a known age.
        age, lo, hi: (N,) estimates, and the ends of the known ages.
        person: (N,) number of the person in each image.
    """
    count = Counter(name for name, _ in set(zip(names, person.tolist(), strict=True)) if name is not None)
    enough = max(LIMIT, ceil(2 / (1 - level)))
    if by == "age":
        used = {name: _nearest(ten, names == name, age, person, enough) for ten, name in enumerate(DECADES)}
    else:
        used = {name: names == name for name in sorted(count) if count[name] >= enough}
    radii = ((name, conformal_radius(age[use], lo[use], hi[use], level, person[use])) for name, use in used.items())
    few = {name: count[name] for name in (DECADES if by == "age" else sorted(count)) if count[name] < enough}
    return {name: radius for name, radius in radii if radius is not None}, few


def _nearest(ten: int, is_own: np.ndarray, age: np.ndarray, person: np.ndarray, enough: int) -> np.ndarray:
    """Indices of a bin's estimates, and of the nearest other ones until there are enough people."""
    away = np.maximum(np.maximum(10 * ten - age, age - 10 * (ten + 1)), 0.0)
    away[is_own] = -1  # its own come first, since an estimate of 20 is also at distance 0 from 10-19
    order = np.argsort(away, kind="stable")
    is_new = np.zeros(len(order), dtype=np.int64)
    is_new[np.unique(person[order], return_index=True)[1]] = 1
    before = np.cumsum(is_new) - is_new
    return order[is_own[order] | (before < enough)]


def conformal_radius(
    age: np.ndarray, lo: np.ndarray, hi: np.ndarray, level: float, identity: Identity = None
) -> float | None:
    """The smallest radius that covers (n + 1) * level of n people's ages; None if n is too small for one.

    Args:
        age: (n,) estimates.
        lo, hi: (n,) ends of the known ages, equal for exact ones.
        level: coverage.
        identity: (n,) number of the person in each image; see ``intervals``.
    """
    row, year, share = years_of(lo, hi)
    person = people_of(identity, len(age))
    images = np.bincount(person)
    distance, share = np.abs(age[row] - year), share / images[person][row]
    order = np.argsort(distance)
    rank = np.searchsorted(np.cumsum(share[order]), (len(images) + 1) * level - _ROUNDING)
    return float(distance[order][rank]) if rank < len(order) else None


def age_intervals(calibration: dict, age: np.ndarray, gender: Names, group: Names) -> tuple[np.ndarray, np.ndarray]:
    """(N,) lower and upper ends in years, clipped to possible ages; NaN without an estimate.

    Args:
        calibration: from ``fit_calibration``.
        age: (N,) estimates.
        gender, group: (N,) names, used if the calibration is by them; None and unknown names have the common radius.
    """
    names = _names(calibration["by"], age, gender, group)
    radius = np.array([calibration["radii"].get(name, calibration["radius"]) for name in names])
    return np.clip(age - radius, MIN_AGE, MAX_AGE), np.clip(age + radius, MIN_AGE, MAX_AGE)


def fit_temperature(logit: np.ndarray, is_female: np.ndarray, identity: Identity = None) -> float | None:
    """The T that minimises the mean log loss of sigmoid(logit / T); None if these images do not determine it.

    That is so with few people, with one gender only, or if no gender is wrong: the loss then decreases with T. The loss
    is convex in 1 / T, so bisection finds the root of its slope between T = 0.05 and 20.

    Args:
        logit: (N,) log odds of ``F``. Not probabilities, which in float32 are 1 from a logit of 17 on.
        is_female: (N,) bool, the truth.
        identity: (N,) number of the person in each image.
    """
    all_right = ((logit > 0) == is_female).all()
    if count_people(identity, len(logit)) < LIMIT or len(np.unique(is_female)) < len(GENDERS) or all_right:
        return None
    low, high = 1 / 20, 20.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        slope = ((1 / (1 + np.exp(-np.clip(middle * logit, -500, 500))) - is_female) * logit).mean()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(2 / (low + high))


def _names(by: str, age: np.ndarray, gender: Names, group: Names) -> Names:
    if by == "age":
        clipped = np.clip(age, MIN_AGE, MAX_AGE)
        return ten_year_bin(clipped, clipped)
    return {"all": [None] * len(age), "gender": gender, "group": group}[by]
