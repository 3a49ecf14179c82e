"""The exponential moving average of what jumps from batch to batch."""

from collections.abc import Iterable, Iterator

_DECAY = 0.9
"""Weight of the past."""


def smoothed(values: Iterable[float]) -> Iterator[float]:
    """The average after each value, without the pull of its start (Kingma and Ba, 2015, section 3)."""
    average = 0.0
    for count, value in enumerate(values, start=1):
        average = _DECAY * average + (1 - _DECAY) * value
        yield average / (1 - _DECAY**count)
