"""Titles, better directions and number formats of the metrics."""

from dataclasses import dataclass

LOWER, HIGHER, ZERO = "lower is better", "higher is better", "nearest 0 is best"


@dataclass(frozen=True)
class MetricName:
    """A metric for tables and pages.

    Attributes:
        title: what it is called, with its unit.
        better: ``LOWER`` or ``HIGHER``.
        form: how its numbers are written.
    """

    title: str
    better: str
    form: str

    @property
    def heading(self) -> str:
        """The title with a capital letter, for headings and rows."""
        return self.title[0].upper() + self.title[1:]


METRICS = {
    "mae": MetricName("MAE, years", LOWER, ".2f"),
    "cs5": MetricName("CS@5", HIGHER, ".1%"),
    "gender_accuracy": MetricName("gender accuracy", HIGHER, ".1%"),
}
"""By their names in ``metrics.json``."""
