"""What a run says first and last: what it cannot learn, and a command that reports on what chose its weights."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mivolo_lite.loading.loader import DataConfig
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.training.announce import _unseen_inputs, announce_end


@pytest.mark.parametrize(
    "val, exclude, rest",
    [
        ("a", None, []),
        ({"path": "a", "folds": [2, 0]}, None, ["--folds", "[0, 2]"]),
        ("a", "my list.txt", ["--exclude", "my list.txt"]),
    ],
)
def test_the_report_is_of_the_samples_that_chose_the_weights(val, exclude, rest):
    lines = []
    trainer = SimpleNamespace(
        config=SimpleNamespace(data=DataConfig(val=val, exclude=exclude)),
        folder=SimpleNamespace(path=Path("my run"), best=Path("my run/best")),
        logger=SimpleNamespace(log=lines.append),
        state=SimpleNamespace(best_mae=4.0, step=1),
        throughput=SimpleNamespace(total=lambda: {"goodput": 1.0}),
        total_steps=1,
        val_index=SimpleNamespace(folder="a"),
    )
    announce_end(trainer)
    command = ["mivolo-lite", "evaluate", "--checkpoint", "my run/best", "--data", "a", "--out", "my run/evaluation"]
    assert shlex.split(lines[-1]) == [*command, *rest]


def test_an_input_that_no_training_sample_has_is_named():
    faces, bodies = (index_of(face=face, body=body) for face, body in (([9, 0], [0, 0]), ([0, 0], [0, 9])))
    (line,) = _unseen_inputs(("face", "body"), [faces])
    assert line == "careful: no training sample has a body, so the model does not learn to estimate from one"
    assert not list(_unseen_inputs(("face", "body"), [faces, bodies])) and not list(_unseen_inputs(("face",), [faces]))
    assert not list(_unseen_inputs(("face", "body"), []))  # a stream


def index_of(**sizes):
    index = object.__new__(ShardIndex)
    index.columns = {f"{name}_size": np.array(size) for name, size in sizes.items()}
    return index
