"""Stochastic weight averaging (SWA) of the weights late in a run.

Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018. Batch norms' statistics
are averaged with the weights, as in an EMA here; the paper computes them anew in a pass over the data.
"""

from mivolo_lite.training.averaging import AveragedModel


class ModelSwa(AveragedModel):
    """The equal average of the weights at some steps."""

    @property
    def is_begun(self) -> bool:
        return self.count > 0

    def update(self) -> None:
        """Add the present weights to the average."""
        self.count += 1
        self.lerp(1 / self.count)
