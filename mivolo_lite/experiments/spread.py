"""What several trainings of one recipe say together: mean, spread, and an interval over trainings and images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mivolo_lite.evaluation.intervals import (
    LIMIT,
    Identity,
    count_people,
    half_width,
    select,
    share_interval,
)


@dataclass(frozen=True)
class Spread:
    """One metric of several trainings that were evaluated on the same images.

    Attributes:
        values: of each training.
        mean: over the trainings.
        deviation: the standard deviation between trainings, with Bessel's correction.
        over_trainings: the ends of the 95 % interval of the mean over trainings, on these images.
        over_both: likewise over trainings and images; None of a mean over fewer than ``LIMIT`` people.
        n: images.
        people: how many are in them; an image without an identity is of a person of its own.
    """

    values: list[float]
    mean: float
    deviation: float
    over_trainings: tuple[float, float]
    over_both: tuple[float, float] | None
    n: int
    people: int


def spread(
    losses: Sequence[np.ndarray], limits: tuple[float, float] = (-np.inf, np.inf), identity: Identity = None
) -> Spread | None:
    """The spread of a metric that is a mean over images.

    The interval over trainings is Student's, as trainings are few. That over images is of what the trainings lose on
    each image on average: Student's as well, or Clopper and Pearson's of a share, as no wrong gender among 40 images
    is no certainty; where people are in several images, it is over people. The two sources of noise are independent,
    so that over both adds their squares, below the mean and above it (Zou and Donner, Statistics in Medicine 2008).

    Args:
        losses: of each training (N,) one number an image, in one order; NaN where it has none.
        limits: of what such a number can be; 0 and 1 are those of a share. No interval goes beyond them, as those of
            few trainings would.
        identity: who is in each image.

    Returns:
        None where no image has a number in every training.
    """
    table = np.stack(losses)
    is_known = ~np.isnan(table).any(axis=0)
    table, identity = table[:, is_known], select(identity, is_known)
    n = table.shape[1]
    if not n:
        return None
    values = table.mean(axis=1)
    mean, half = float(values.mean()), half_width(values)
    below, above = np.hypot(half, _over_images(table.mean(axis=0), limits, identity) - mean).tolist()
    return Spread(
        values=values.tolist(),
        mean=mean,
        deviation=float(values.std(ddof=1)),
        over_trainings=_interval(mean - half, mean + half, limits),
        over_both=None if np.isnan(below) else _interval(mean - below, mean + above, limits),
        n=n,
        people=count_people(identity, n),
    )


def _over_images(loss: np.ndarray, limits: tuple[float, float], identity: Identity) -> np.ndarray:
    """(2,) ends of the interval of the mean of (N,) losses; NaN for too few of them."""
    if limits == (0.0, 1.0):
        return share_interval(loss, identity=identity)
    half = half_width(loss, identity=identity) if count_people(identity, len(loss)) >= LIMIT else np.nan
    return loss.mean() + np.array([-half, half])


def _interval(lower: float, upper: float, limits: tuple[float, float]) -> tuple[float, float]:
    return max(limits[0], lower), min(limits[1], upper)
