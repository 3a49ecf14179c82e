"""Tasks in addition to age and gender are learnt: masked, weighted, the same however a batch is cut up."""

import copy
import json
import shutil
from dataclasses import replace

import pytest
import torch

from mivolo_lite.batch_labels import AgeRange, TaskLabel
from mivolo_lite.cli import main
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.loading.batch import Batch
from mivolo_lite.models import MODELS
from tests.models.tiny import TinySwinFace
from tests.training.test_step import require_same_in_parts, updated

TASKS = [
    {"name": "mood", "classes": ["happy", "sad", "cross"], "weight": 0.5},
    {"name": "pitch", "kind": "regression", "loss": "l1"},
    {"name": "who", "kind": "embedding", "scale": 4},
]


@pytest.fixture(scope="module")
def estimator():
    torch.manual_seed(0)
    model = {"name": "single", "backbone": "test_vit"}  # no batch statistics
    span = {"min_age": 0, "max_age": 100}
    return Estimator(Card(model, {"name": "classification"}, span, image_size=64, tasks=TASKS), people=3)


def batch_of(size):
    draw = torch.Generator().manual_seed(0)
    known = {name: torch.rand(size, generator=draw) > 0.5 for name in ("mood", "pitch", "who")}
    nothing = torch.zeros(size, dtype=torch.bool)
    return Batch(
        face=Images.of(torch.randint(0, 256, (size, 3, 64, 64), generator=draw, dtype=torch.uint8)),
        body=None,
        age=AgeRange(torch.zeros(size), torch.zeros(size), nothing),
        gender=torch.zeros(size, dtype=torch.int64),
        gender_known=nothing,
        sample=torch.arange(size),
        valid=torch.ones(size, dtype=torch.bool),
        tasks={
            "mood": TaskLabel(torch.randint(0, 3, (size,), generator=draw).float(), known["mood"]),
            "pitch": TaskLabel(torch.randn(size, generator=draw), known["pitch"]),
            "who": TaskLabel(torch.randint(0, 3, (size,), generator=draw).float(), known["who"]),
        },
    )


def updated_by(tasks, estimator, batches):
    """What ``updated`` makes of the estimator with some options of its tasks changed."""
    estimator = copy.copy(estimator)
    estimator.tasks = [replace(task, **change) for task, change in zip(estimator.tasks, tasks, strict=True)]
    return updated(estimator, batches)


def test_unequal_micro_batches_learn_the_same_as_the_whole(estimator):
    require_same_in_parts(estimator, batch_of(12))


def test_unknown_labels_teach_nothing(estimator):
    batch = batch_of(8)
    lied = {
        name: TaskLabel(torch.where(label.known, label.value, 2.0), label.known) for name, label in batch.tasks.items()
    }
    assert torch.equal(updated(estimator, [batch])[0], updated(estimator, [replace(batch, tasks=lied)])[0])


def test_weights_say_how_much_a_task_counts(estimator):
    batch = batch_of(8)
    before = torch.cat([parameter.detach().flatten() for parameter in estimator.parameters()])
    off = [{"weight": 0.0}] * len(TASKS)
    assert torch.equal(updated_by(off, estimator, [batch])[0], before)
    alone = [[*off[:place], task, *off[place + 1 :]] for place, task in enumerate(TASKS)]
    steps = [updated_by(weights, estimator, [batch])[0] - before for weights in (*alone, TASKS)]
    assert all(step.abs().max() > 0 for step in steps)
    torch.testing.assert_close(sum(steps[:-1]), steps[-1], rtol=1e-3, atol=1e-5)


SMALL = ["multilevel", "--model.backbone", "test_resnet", "--model.width", "32"]


@pytest.fixture
def train(people, tmp_path):
    """Trains age, gender and group of synthetic people, and gives the run's log."""
    groups = json.loads((people / "train" / "dataset.json").read_text())["groups"]
    tasks = json.dumps([{"name": "group", "classes": groups, "weight": 0.5}])

    def run(name, *options):
        main([
            "train", "--run", f"{tmp_path}/{name}", "--data.train", f"{people}/train", "--data.val", f"{people}/val",
            "--method.name", "regression", "--method.normalise", "false", "--method.loss", "annealed",
            "--tasks", tasks, "--data.image_size", "32", "--data.workers", "0", "--optim.global_batch", "16",
            "--optim.epochs", "1", "--train.log_every", "1", *options,
        ])  # fmt: skip
        return [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("model", [SMALL, ["swinface"]], ids=["multilevel", "swinface"])
def test_from_the_command_line(people, tmp_path, capsys, monkeypatch, train, model):
    """Age, gender and group, each with attention of its own."""
    monkeypatch.setitem(MODELS, "swinface", TinySwinFace)
    log = train("run", "--model.name", *model)
    unit = Estimator.load(tmp_path / "run").method.loss_unit
    for line in [line for line in log if line["kind"] == "train"]:
        parts = line["age_loss"] / unit + line["gender_loss"] + 0.5 * line["group_loss"]
        assert line["loss"] == pytest.approx(parts, rel=1e-5)
    val = [line for line in log if line["kind"] == "val"][-1]
    assert 0 <= val["group_accuracy"] <= 1 and val["group_n"] == val["n"]
    main(["evaluate", "--checkpoint", f"{tmp_path}/run/best", "--data", f"{people}/val", "--out", f"{tmp_path}/out"])
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["group_accuracy"] == pytest.approx(val["group_accuracy"])
    assert f"group accuracy {metrics['group_accuracy']:.1%}" in capsys.readouterr().out


@pytest.mark.slow
def test_the_annealing_goes_on_where_it_stopped(tmp_path, capsys, train):
    """The annealed loss, every task and every subnet's dropout are the same from a checkpoint on, to the last bit."""
    options = ["--model.name", *SMALL, "--train.save_every", "3"]
    undisturbed = train("run", *options)
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    shutil.rmtree(max((tmp_path / "again" / "checkpoints").iterdir()))
    resumed = train("again", *options, "--resume", "auto")
    losses = [
        [(line["step"], line["loss"]) for line in log if line["kind"] == "train"] for log in (undisturbed, resumed)
    ]
    assert losses[0] == losses[1] and len(losses[0]) > 3
    assert "resumed at step 3" in capsys.readouterr().out
