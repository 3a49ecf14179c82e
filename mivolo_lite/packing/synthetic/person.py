"""A synthetic person: labels, and the apparent age of face and body."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mivolo_lite.labels import GENDERS
from mivolo_lite.packing.synthetic.canvas import Colour, mix

GROUPS = ("A", "B", "C", "D", "E")
"""Synthetic palettes of skin and hair that overlap. They do not represent real groups."""

Ages = Literal["population", "uniform"]
"""Distribution of ages: as in a population, with few old people, or uniform."""

_DECADE_WEIGHTS = {
    "population": np.array([1.25, 1.1, 1.2, 1.2, 1.1, 1.05, 0.95, 0.75, 0.45, 0.15]),
    "uniform": np.ones(10),
}
_AGE_KNOTS = {
    name: np.concatenate([[0.0], np.cumsum(weights) / weights.sum()]) for name, weights in _DECADE_WEIGHTS.items()
}

_SKIN_TONES = np.array([0.0, 0.3, 0.55, 0.8, 1.0])
_SKIN = np.array([(246, 212, 192), (228, 180, 146), (192, 138, 100), (140, 92, 64), (98, 64, 48)], dtype=float)
_GROUP_TONE = {"A": 0.08, "B": 0.28, "C": 0.45, "D": 0.66, "E": 0.88}

_HAIR = np.array([(34, 28, 27), (64, 44, 32), (104, 70, 44), (140, 72, 40), (196, 158, 98)], dtype=float)
_GROUP_HAIR = {
    "A": (0.05, 0.25, 0.3, 0.1, 0.3),
    "B": (0.2, 0.35, 0.25, 0.1, 0.1),
    "C": (0.45, 0.35, 0.15, 0.05, 0.0),
    "D": (0.6, 0.3, 0.1, 0.0, 0.0),
    "E": (0.75, 0.25, 0.0, 0.0, 0.0),
}
_GREY = (208.0, 206.0, 203.0)


@dataclass(frozen=True)
class Person:
    """A person's labels and looks.

    Attributes:
        age: the label, in whole years.
        face_age: apparent age of the face; it varies less around ``age`` than that of the body.
        body_age: apparent age of the body.
        grey: share of the hair that has turned grey, 0 to 1.
        balding: how far the hair has receded, 0 to 1.
        masculine: strength of the typical differences between women and men, from -1 to 1; weak in children.
        skin: RGB.
        hair: RGB, with ``grey`` mixed in.
    """

    age: int
    gender: str
    group: str
    face_age: float
    body_age: float
    grey: float
    balding: float
    masculine: float
    skin: Colour
    hair: Colour

    @classmethod
    def at_random(cls, rng: np.random.Generator, ages: Ages = "population") -> "Person":
        """A random person, with an age of this distribution."""
        knots = _AGE_KNOTS[ages]
        exact_age = 100 * float(np.interp(rng.random(), knots, np.linspace(0, 1, len(knots))))
        gender = GENDERS[int(rng.random() < 0.5)]
        group = GROUPS[rng.integers(len(GROUPS))]

        # The apparent age differs from the label: by a common term, and one each for face, hair and body.
        life = rng.normal(0, 0.5 + 0.025 * exact_age)
        face_age = max(0.0, exact_age + life + rng.normal(0, 0.5 + 0.065 * exact_age))
        body_age = max(0.0, exact_age + life + rng.normal(0, 0.7 + 0.07 * exact_age))
        grey = _sigmoid((exact_age + life - rng.normal(52, 8)) / 5)
        balding_rate = rng.beta(1.3, 1.6) if gender == "M" else rng.beta(1, 9)
        balding = balding_rate * at_age(exact_age, (22, 75), (0, 1))

        typical = rng.normal(1, 0.35) * at_age(exact_age, (2, 12, 18), (0.25, 0.5, 1))
        masculine = float(np.clip(typical, -1, 1.4)) * (1 if gender == "M" else -1)
        tone = np.clip(rng.normal(_GROUP_TONE[group], 0.1), 0, 1)
        skin = tuple(np.interp(tone, _SKIN_TONES, channel) for channel in _SKIN.T)
        hair = tuple(_HAIR[rng.choice(len(_HAIR), p=_GROUP_HAIR[group])] * rng.uniform(0.85, 1.15))
        return cls(
            int(exact_age), gender, group, face_age, body_age, grey, balding, masculine, skin, mix(hair, _GREY, grey)
        )


def at_age(age: float, ages: Sequence[float], values: Sequence[float]) -> float:
    """Interpolation of a quantity over ages: ``np.interp``, but faster for a single number."""
    if age <= ages[0]:
        return values[0]
    if age >= ages[-1]:
        return values[-1]
    right = bisect_right(ages, age)
    share = (age - ages[right - 1]) / (ages[right] - ages[right - 1])
    return values[right - 1] + share * (values[right] - values[right - 1])


def _sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))
