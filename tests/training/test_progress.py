"""Where a run is and what is due there, also of one that resumes with another global batch."""

import pytest

from mivolo_lite.training.optim import OptimConfig
from mivolo_lite.training.progress import Progress
from mivolo_lite.training.train_state import TrainState


def progress_of(epochs=2.0, eval_every=1.0, global_batch=10, step=0, samples_seen=0, **optim):
    state = TrainState("digest", 0, 1, 1, step=step, samples_seen=samples_seen)
    return state, Progress(state, OptimConfig(epochs=epochs, **optim), eval_every, 25, global_batch)


def due_after(state, progress, global_batch=10):
    """The steps after which an evaluation is due."""
    due = []
    for _ in range(progress.steps_left):
        state.step, state.samples_seen = state.step + 1, state.samples_seen + global_batch
        due += [state.step] if progress.evaluation_due() else []
    return due


def test_a_run_of_two_passes_is_evaluated_where_each_is_complete():
    state, progress = progress_of()
    assert (progress.steps_per_epoch, progress.total_steps, progress.position, progress.end) == (2.5, 5, 0, 5)
    assert due_after(state, progress) == [3, 5] and progress.epoch == 2 and progress.steps_left == 0


def test_resumed_with_a_larger_batch_its_position_is_that_of_the_samples():
    state, progress = progress_of(epochs=4, global_batch=20, step=3, samples_seen=30)
    assert (progress.position, progress.steps_left, progress.total_steps, progress.end) == (1.5, 4, 7, 5.5)
    assert due_after(state, progress, 20) == [4, 6, 7]


@pytest.mark.parametrize("samples_seen", [25, 100])
def test_a_run_that_has_learnt_enough_has_no_step_left(samples_seen):
    _, progress = progress_of(epochs=1, step=9, samples_seen=samples_seen)
    assert progress.steps_left == 0 and progress.total_steps == 9 and progress.evaluation_due()


def test_the_least_is_one_step():
    assert progress_of(epochs=1e-9)[1].total_steps == 1


def test_stochastic_averaging_begins_at_its_epoch():
    state, progress = progress_of(swa_start=1.5, swa_lr=0.5, lr=0.1)
    state.samples_seen = 30
    assert not progress.swa_is_on() and progress.learning_rate() < 0.5
    state.samples_seen = 40
    assert progress.swa_is_on() and progress.learning_rate() == 0.5
