"""A checkpoint is written while training continues: what it holds, what waits, what fails."""

import threading

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from mivolo_lite.distributed.data_parallel import DataParallel
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.training import checkpoint as module
from mivolo_lite.training.averaging import ModelEma
from mivolo_lite.training.checkpoint import Checkpointer, finished_checkpoints
from mivolo_lite.training.train_state import TrainState


@pytest.fixture
def engine():
    card = Card(
        {"name": "single", "backbone": "test_efficientnet"}, {"name": "regression"}, {"min_age": 0, "max_age": 9}, 32
    )
    estimator = Estimator(card)
    return DataParallel(Accelerator(cpu=True), estimator, torch.optim.AdamW(estimator.parameters(), lr=0.1), 0.0)


@pytest.fixture
def checkpointer(tmp_path, engine):
    return Checkpointer(tmp_path, engine.accelerator, keep=2)


@pytest.fixture
def slow_disk(monkeypatch):
    """Writing begins when this event is set."""
    go, write = threading.Event(), module.save_tensors
    monkeypatch.setattr(module, "save_tensors", lambda *what: go.wait(60) and write(*what))
    return go


def state(step):
    return TrainState("digest", 0, step=step, window_blocks=1, block_samples=1)


def change(engine):
    with torch.no_grad():
        for parameter in engine.estimator.parameters():
            parameter.add_(1.0)


@pytest.mark.parametrize("with_ema", [True, False])
def test_it_holds_the_weights_of_its_step_whatever_is_learnt_meanwhile(checkpointer, engine, slow_disk, with_ema):
    ema = ModelEma(engine, 0.9) if with_ema else None
    before = {name: tensor.clone() for name, tensor in engine.estimator.state_dict().items()}
    checkpointer.save(state(1), engine, ema)
    assert not finished_checkpoints(checkpointer.folder)
    change(engine)
    slow_disk.set()
    checkpointer.wait()
    (folder,) = finished_checkpoints(checkpointer.folder)
    for name in ("model", "ema")[: 1 + with_ema]:
        written = load_file(folder / f"{name}.safetensors")
        assert written.keys() == before.keys() and all(written[key].equal(before[key]) for key in before), name


def test_the_next_one_waits_for_the_last_and_the_oldest_go(checkpointer, engine):
    for step in range(1, 5):
        checkpointer.save(state(step), engine, None)
        change(engine)
    checkpointer.wait()
    assert [path.name for path in finished_checkpoints(checkpointer.folder)] == ["step-000000003", "step-000000004"]
    weights = [
        load_file(path / "model.safetensors")["gender_head.bias"] for path in finished_checkpoints(checkpointer.folder)
    ]
    torch.testing.assert_close(weights[1] - weights[0], torch.ones(2))


def test_a_step_that_is_being_written_is_not_saved_again(checkpointer, engine):
    assert checkpointer.save(state(1), engine, None) is not None
    assert checkpointer.save(state(1), engine, None) is None


def test_a_failure_is_an_error_at_the_next_step(checkpointer, engine, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "save_tensors", _full_disk)
    checkpointer.save(state(1), engine, None)
    with pytest.raises(UserError, match="No space left on device"):
        while True:  # as the training loop does after every step
            checkpointer.check()
    checkpointer.check()  # said once
    assert not finished_checkpoints(checkpointer.folder)


def _full_disk(*_):
    raise OSError(28, "No space left on device")
