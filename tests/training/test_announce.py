"""The last line of a run is a command that reports on the very samples that chose its weights."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from mivolo_lite.loading.loader import DataConfig
from mivolo_lite.training.announce import announce_end


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
