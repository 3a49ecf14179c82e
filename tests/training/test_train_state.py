"""Where a run stands: read as it was saved, of no other stream, and nothing of a wrong type."""

import json
import math
from dataclasses import replace

import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.training.train_state import TrainState, misfits

STREAM = TrainState("digest", seed=3, window_blocks=8, block_samples=64, optimizer="sgd")
STATE = replace(
    STREAM, step=5, samples_seen=640, best_mae=4.5, subgroups={"a": 0.5}, val_digest="val", evaluated=4, stale=1,
    plateaus=2, averaged=3,
)  # fmt: skip


def loaded(saved):
    state = replace(STREAM)
    state.load(saved)
    return state


@pytest.mark.parametrize("state", [STATE, replace(STATE, best_mae=math.inf)])
def test_a_state_is_read_as_it_was_saved(state):
    saved = json.loads(json.dumps(state.to_json(), allow_nan=False))
    assert misfits(saved) == [] and loaded(saved) == state


def test_states_of_earlier_versions_are_read():
    saved = STATE.to_json()
    for name in ("order_version", "subgroups", "val_digest", "evaluated", "stale", "plateaus", "averaged"):
        del saved[name]
    assert misfits(saved) == [] and loaded(saved) == replace(
        STREAM, step=5, samples_seen=640, best_mae=4.5, evaluated=5
    )
    assert loaded(saved | {"best_mae": math.nan}).best_mae == math.inf


@pytest.mark.parametrize("name", ["digest", "seed", "window_blocks", "block_samples", "order_version"])
def test_a_state_of_another_stream_is_refused(name):
    with pytest.raises(UserError, match=rf"\({name} other, now {getattr(STREAM, name)}\)"):
        loaded(STATE.to_json() | {name: "other"})


@pytest.mark.parametrize(
    "name, value",
    [
        ("digest", 1), ("seed", "3"), ("seed", True), ("step", -1), ("step", 5.0), ("samples_seen", -1),
        ("window_blocks", "8"), ("best_mae", "4.5"), ("subgroups", ["a"]), ("subgroups", {"a": 1}),
        ("subgroups", {"a": math.nan}), ("val_digest", None), ("stale", 0.5), ("optimizer", 1), ("colour", 1),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(name, value):
    assert misfits(STATE.to_json() | {name: value}) == [name]


def test_zero_steps_fit():
    assert misfits(STATE.to_json() | {"step": 0, "samples_seen": 0}) == []


@pytest.mark.parametrize("name", ["digest", "seed", "step", "samples_seen"])
def test_what_every_state_has_is_named_where_it_is_missing(name):
    saved = STATE.to_json()
    del saved[name]
    assert misfits(saved) == [name]
