"""How far a run is, and what is due there: by the samples seen, so that neither depends on the world size."""

import math

from mivolo_lite.training.optim import OptimConfig
from mivolo_lite.training.schedule import learning_rate
from mivolo_lite.training.train_state import TrainState


class Progress:
    """How far a run is, in steps of its present global batch. It may resume with another one, or for fewer epochs.

    Args:
        state: of the run, resumed where it resumes; later changes of it are followed.
        optim: how many epochs, the learning rate, and where stochastic weight averaging begins.
        eval_every: epochs between evaluations.
        samples: of an epoch.
        global_batch: samples of a step.

    Attributes:
        steps_per_epoch: need not be whole.
        total_steps: ``state.step`` after the last step.
    """

    def __init__(self, state: TrainState, optim: OptimConfig, eval_every: float, samples: int, global_batch: int):
        self._state, self._optim, self._eval_every, self._global_batch = state, optim, eval_every, global_batch
        self.steps_per_epoch = samples / global_batch
        left = max(1, round(optim.epochs * samples)) - state.samples_seen
        self.total_steps = state.step + max(0, math.ceil(left / global_batch))

    @property
    def steps_left(self) -> int:
        """Steps that are still to be taken."""
        return self.total_steps - self._state.step

    @property
    def position(self) -> float:
        """How many steps the samples seen are: those done, unless the global batch was another before."""
        return self._state.samples_seen / self._global_batch

    @property
    def end(self) -> float:
        """The position after the last step."""
        return self.position + self.steps_left

    @property
    def epoch(self) -> float:
        """How many passes over the data the position is."""
        return self.position / self.steps_per_epoch

    def learning_rate(self) -> float:
        """Of the next step."""
        return learning_rate(self.position, self.end, self.steps_per_epoch, self._optim, self._state.plateaus)

    def evaluation_due(self) -> bool:
        """Whether the latest step was the one that completed another ``eval_every`` epochs, or the last."""
        every, position = self._eval_every * self.steps_per_epoch, self.position
        return self.steps_left == 0 or position // every > (position - 1) // every

    def swa_is_on(self) -> bool:
        """Whether stochastic weight averaging has begun."""
        start = self._optim.swa_start
        return start is not None and self.position >= start * self.steps_per_epoch
