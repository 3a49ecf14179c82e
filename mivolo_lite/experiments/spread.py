"""What several trainings of one recipe say together: mean, spread, and an interval over trainings and images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """One metric of several trainings that were evaluated on the same images.

    Attributes:
        values: of each training.
        mean: over the trainings.
        deviation: the standard deviation between trainings, with Bessel's correction.
        over_trainings: the ends of the 95 % interval of the mean over trainings, on these images.
        over_both: likewise over trainings and images.
        n: images.
    """

    values: list[float]
    mean: float
    deviation: float
    over_trainings: tuple[float, float]
    over_both: tuple[float, float]
    n: int


def spread(losses: Sequence[np.ndarray], limits: tuple[float, float] = (-np.inf, np.inf)) -> Spread | None:
    """The spread of a metric that is a mean over images.

    The interval over trainings is Student's, as trainings are few. That over both adds the variance of the mean over
    images, of what the trainings lose on each image on average: the two sources of noise are independent.

    Args:
        losses: of each training (N,) one number an image, in one order; NaN where it has none.
        limits: of what such a number can be. No interval goes beyond them, as those of few trainings would.

    Returns:
        None where no image has a number in every training.
    """
    table = np.stack(losses)
    table = table[:, ~np.isnan(table).any(axis=0)]
    trainings, n = table.shape
    if not n:
        return None
    values = table.mean(axis=1)
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    half_trainings = stdtrit(trainings - 1, (1 + LEVEL) / 2) * deviation / np.sqrt(trainings)
    half_images = ndtri((1 + LEVEL) / 2) * table.mean(axis=0).std() / np.sqrt(n)
    half_both = float(np.hypot(half_trainings, half_images))
    return Spread(
        values=values.tolist(),
        mean=mean,
        deviation=deviation,
        over_trainings=_interval(mean, float(half_trainings), limits),
        over_both=_interval(mean, half_both, limits),
        n=n,
    )


def _interval(mean: float, half: float, limits: tuple[float, float]) -> tuple[float, float]:
    return max(limits[0], mean - half), min(limits[1], mean + half)
