"""The position of a run, and what is due there, by the samples seen: both are independent of the world size."""

import math

from mivolo_lite.training.optim import OptimConfig
from mivolo_lite.training.schedule import learning_rate
from mivolo_lite.training.train_state import TrainState


class Progress:
    """The position of a run in steps of its current global batch. It may resume with another one, or for fewer epochs.

    Args:
        state: of the run, after resuming; later changes are seen.
        optim: has the epochs, the learning rate, and the start of stochastic weight averaging.
        eval_every: epochs between evaluations.
        samples: in an epoch.
        global_batch: samples in a step.

    Attributes:
        steps_per_epoch: may be fractional.
        total_steps: ``state.step`` after the last step.
    """

    def __init__(self, state: TrainState, optim: OptimConfig, eval_every: float, samples: int, global_batch: int):
        self._state, self._optim, self._eval_every, self._global_batch = state, optim, eval_every, global_batch
        self.steps_per_epoch = samples / global_batch
        left = max(1, round(optim.epochs * samples)) - state.samples_seen
        self.total_steps = state.step + max(0, math.ceil(left / global_batch))

    @property
    def steps_left(self) -> int:
        """Remaining steps."""
        return self.total_steps - self._state.step

    @property
    def position(self) -> float:
        """The samples seen, in steps: the number of steps, unless the global batch has changed."""
        return self._state.samples_seen / self._global_batch

    @property
    def end(self) -> float:
        """The position after the last step."""
        return self.position + self.steps_left

    @property
    def epoch(self) -> float:
        """The position in passes over the data."""
        return self.position / self.steps_per_epoch

    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return learning_rate(self.position, self.end, self.steps_per_epoch, self._optim, self._state.plateaus)

    def evaluation_due(self) -> bool:
        """Whether the latest step completed another ``eval_every`` epochs, or was the last."""
        every, position = self._eval_every * self.steps_per_epoch, self.position
        return self.steps_left == 0 or position // every > (position - 1) // every

    def swa_is_on(self) -> bool:
        """Whether stochastic weight averaging has begun."""
        start = self._optim.swa_start
        return start is not None and self.position >= start * self.steps_per_epoch
