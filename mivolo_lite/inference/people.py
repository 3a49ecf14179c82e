"""The people of a photo: their boxes, and their estimates."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mivolo_lite.packing.crops import Box


class Located(NamedTuple):
    """The boxes of a person in a photo.

    Attributes:
        face, body: corners in pixels, None if there is none.
        score: of the detector for the face, or for the body if there is no face; None for boxes from a file.
        landmarks: (5, 2) pixels, None if the detector has none.
    """

    face: Box | None
    body: Box | None = None
    score: float | None = None
    landmarks: np.ndarray | None = None


def likelier_gender(female: float | None) -> tuple[str | None, float | None]:
    """The more probable gender and its probability, from the log odds of ``F``; None twice if these are unknown."""
    if female is None:
        return None, None
    return ("F" if female > 0 else "M"), float(1 / (1 + np.exp(-abs(female))))


@dataclass(frozen=True)
class TaskAnswer:
    """The answer of a task in addition to age and gender.

    Attributes:
        value: the class, the number, or the embedding.
        probability: of the class; None for a number or an embedding.
    """

    value: str | float | list[float]
    probability: float | None = None


@dataclass(frozen=True)
class Person:
    """A person of a photo, with the estimates.

    Attributes:
        face, body: boxes (x0, y0, x1, y1) in pixels of the upright photo, None if there is none.
        age: in years; None if no crop could be cut, for the reason in ``flags``.
        age_interval: lower and upper end in years that hold the true age with the checkpoint's calibrated probability;
            None without a calibration. In files, whose cells hold one number, ``age_lower`` and ``age_upper``.
        age_spread: standard deviation of the estimate's distribution in years; None if the method has none.
        gender: ``M`` or ``F``; None if the model does not estimate it.
        gender_probability: of that gender, 0.5 to 1.
        tasks: the other answers by their names.
        inputs: of ``face`` and ``body``, the crops used for the estimate.
        score: of the detector, 0 to 1; None for boxes from a file.
        flags: reasons to trust the estimate less, in words.
    """

    face: Box | None = None
    body: Box | None = None
    age: float | None = None
    age_interval: tuple[float, float] | None = None
    age_spread: float | None = None
    gender: str | None = None
    gender_probability: float | None = None
    tasks: dict[str, TaskAnswer] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    score: float | None = None
    flags: tuple[str, ...] = ()
