"""What a run says first and last: what it cannot learn, and a command that reports on what chose its weights."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mivolo_lite.cli import main
from mivolo_lite.config import read_run_config
from mivolo_lite.labels import GENDERS
from mivolo_lite.loading.config import DataConfig
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.training.announce import _unseen_inputs, announce_end, begins_random


@pytest.mark.parametrize(
    "val, exclude, rest",
    [
        ("a", None, []),
        ({"path": "a", "folds": [2, 0]}, None, ["--folds", "[0, 2]"]),
        ("a", "my list.txt", ["--exclude", "my list.txt"]),
    ],
)
def test_the_report_is_of_the_samples_that_chose_the_weights(val, exclude, rest):
    lines = said_at_the_end(DataConfig(val=val, exclude=exclude))
    command = ["mivolo-lite", "evaluate", "--checkpoint", "my run/best", "--data", "a", "--out", "my run/evaluation"]
    assert shlex.split(lines[-1]) == [*command, *rest]


@pytest.mark.parametrize(
    "age, unlearnt, error", [(30, set(), "0.25 years"), (30, {"age"}, "25.0% of"), (np.nan, set(), "25.0% of")]
)
def test_the_lowest_error_has_its_unit(age, unlearnt, error):
    assert f"complete: lowest validation error {error}" in said_at_the_end(DataConfig(val="a"), age, unlearnt)[0]


def said_at_the_end(data, age=30.0, unlearnt=()):
    """Of a complete run, whose validation data is one sample of this age."""
    index, lines = index_of(face=[9]), []
    index.folder = "a"
    index.columns |= {"age_lo": np.array([age]), "gender": np.array([0])}
    trainer = SimpleNamespace(
        config=SimpleNamespace(data=data),
        estimator=SimpleNamespace(inputs=("face",)),
        folder=SimpleNamespace(path=Path("my run"), best=Path("my run/best")),
        logger=SimpleNamespace(log=lines.append),
        progress=SimpleNamespace(steps_left=0),
        state=SimpleNamespace(best_mae=0.25, step=1),
        throughput=SimpleNamespace(total=lambda: {"goodput": 1.0}),
        unlearnt=unlearnt,
        val_index=index,
    )
    announce_end(trainer)
    return lines


def test_an_input_that_no_training_sample_has_is_named():
    faces, bodies = (index_of(face=face, body=body) for face, body in (([9, 0], [0, 0]), ([0, 0], [0, 9])))
    (line,) = _unseen_inputs(("face", "body"), [faces])
    assert line == "no training sample has a body, so the model does not learn to estimate from one"
    assert not list(_unseen_inputs(("face", "body"), [faces, bodies])) and not list(_unseen_inputs(("face",), [faces]))
    assert not list(_unseen_inputs(("face", "body"), []))  # a stream


def index_of(**sizes):
    index = object.__new__(ShardIndex)
    index.columns = {f"{name}_size": np.array(size) for name, size in sizes.items()}
    return index


@pytest.mark.parametrize(
    "words, expected",
    [
        ([], True),
        (["--model.pretrained", "true"], False),
        (["--model.weights", "x"], False),
        (["--init-from", "x"], False),
        (["--model", "dual", "--model.body_weights", "x"], False),
    ],
)
def test_a_run_begins_with_random_weights_where_nothing_gives_others(words, expected):
    config = read_run_config(["--run", "r", "--data.train", "t", "--data.val", "v", *words])
    assert begins_random(config) == expected


@pytest.mark.slow
def test_what_is_seldom_meant_is_named(people, tmp_path, capsys):
    index = ShardIndex.load(f"{people}/train")
    women = [index.key(int(row)) for row in (index.columns["gender"] == GENDERS.index("F")).nonzero()[0]]
    (tmp_path / "women.txt").write_text("\n".join(women))
    classes = [*index.groups, "Martian"]
    main([
        "train", "--run", f"{tmp_path}/run", "--data.train", f"{people}/train", "--data.val", f"{people}/val",
        "--data.exclude", f"{tmp_path}/women.txt", "--tasks", str([{"name": "group", "classes": classes}]),
        "--model.backbone", "test_resnet", "--data.image_size", "32", "--data.workers", "0", "--optim.epochs", "1",
        "--optim.global_batch", "500", "--optim.warmup_epochs", "2", "--data.drop_face", "0.5",
        "--optim.power", "2", "--train.freeze", "[stem]",
    ])  # fmt: skip
    said = capsys.readouterr().out
    assert "warning: gender: no training sample is F\n" in said
    assert "warning: group: no training sample is Martian\n" in said
    assert "warning: optim.power: optim.schedule cosine has no such option\n" in said
    assert f"warning: optim.global_batch 500: more than the {len(index) - len(women)} training samples, so" in said
    assert "warning: optim.warmup_epochs 2: the learning rate rises to the end, after 1\n" in said
    assert "warning: train.freeze: the frozen parts have random weights; give trained ones" in said
    assert "warning: data.drop_face: nothing is hidden from a model with one input\n" in said
