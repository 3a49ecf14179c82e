"""A model learns to tell people apart, and does so for people whom it never saw."""

import json
import math
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mivolo_lite.card import NO_AGES
from mivolo_lite.cli import main
from mivolo_lite.convert import swinface as swinface_official
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.evaluation.evaluate import evaluate
from mivolo_lite.evaluation.metrics import validation_error
from mivolo_lite.images.packed import Images
from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.identities import IdentitySource
from tests.packing.synthetic_identities import draw_identities

PEOPLE, IMAGES = 200, 6
TASKS = json.dumps([{"name": "recognition", "kind": "embedding"}])
LEVELS = {"name": "multilevel", "backbone": "test_resnet", "width": 32}


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """Faces of 200 synthetic people, packed into ``train`` and ``val``."""
    folder = tmp_path_factory.mktemp("sampled")
    draw_identities(folder / "faces", PEOPLE, IMAGES, side=40)
    pack(IdentitySource(folder / "faces"), folder / "data", {"train": 0.8, "val": 0.2})
    return folder / "data"


def options(sampled, run, **more):
    chosen = {
        "run": run, "data.train": sampled / "train", "data.val": sampled / "val", "data.image_size": 32,
        "data.workers": 0,
        "model.name": "multilevel", "model.backbone": "test_resnet", "model.width": 32, "tasks": TASKS,
        "optim.global_batch": 48, "train.log_every": 1, "optim.ema_decay": 0.9,
    } | {name.replace("__", "."): value for name, value in more.items()}  # fmt: skip
    return ["train", *(word for name, value in chosen.items() for word in (f"--{name}", str(value)))]


def log_of(run, kind):
    return [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if line["kind"] == kind]


def centres(path):
    return {name: tensor for name, tensor in load_file(path).items() if "centres" in name}


@pytest.mark.slow
def test_it_tells_people_apart_whom_it_never_saw(sampled, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    plain = {"data__augment__randaugment_ops": 0, "data__augment__erase": 0}
    main(options(sampled, run, optim__epochs=20, optim__lr=3e-3, train__eval_every=10, **plain))
    losses = [line["loss"] for line in log_of(run, "train")]
    assert losses[-1] < 0.8 * losses[0] and log_of(run, "train")[0]["recognition_loss"] == losses[0]
    main(["evaluate", "--checkpoint", f"{run}/best", "--data", f"{sampled}/val", "--out", f"{out}", "--workers", "0"])
    metrics = json.loads((out / "metrics.json").read_text())
    assert not Card.load(run / "best").age and metrics["data"]["no_ages"]
    found = metrics["verification"]["recognition"]
    # The colours of synthetic people are enough for 0.67 to 0.73 without learning.
    untrained = evaluate(save_untrained(tmp_path / "untrained"), sampled / "val", tmp_path / "nothing", report=False)
    assert found["accuracy"] == metrics["recognition_accuracy"] > max(0.8, untrained["recognition_accuracy"] + 0.08)
    assert metrics["recognition_accuracy"] == max(line["recognition_accuracy"] for line in log_of(run, "val"))
    printed = capsys.readouterr().out
    assert f"recognition accuracy {found['accuracy']:.1%} of {found['pairs']}" in printed
    assert "recognition" in (out / "report.html").read_text() and (out / "plots" / "roc_recognition.png").exists()
    assert NO_AGES in printed and NO_AGES in (out / "report.html").read_text()


@pytest.mark.slow
def test_too_few_pairs_to_measure_are_named_and_end_no_run_early(tmp_path, capsys):
    draw_identities(tmp_path / "faces", people=8, images=3, side=40)
    pack(IdentitySource(tmp_path / "faces"), tmp_path / "data", {"train": 0.5, "val": 0.5})
    main(options(tmp_path / "data", tmp_path / "run", optim__global_batch=4, optim__epochs=3, train__patience=1))
    printed = capsys.readouterr().out
    reason = "the validation error cannot be measured, as data.val has no age and no class to compare, "
    reason += "nor, for recognition, 30 pairs of images of one person and 30 of two"
    assert printed.count(f"warning: {reason}") == 1 and f"complete: {reason}" in printed
    assert (
        "lowest validation error" not in printed
        and [line["error"] for line in log_of(tmp_path / "run", "val")] == [None] * 3
    )
    assert Card.load(tmp_path / "run" / "best").metrics["step"] == log_of(tmp_path / "run", "val")[-1]["step"]


@pytest.mark.slow
def test_centres_are_for_training_alone(sampled, tmp_path):
    """In the checkpoints with their moments, to the last bit when resumed; not in the best weights."""
    run, again = tmp_path / "run", tmp_path / "again"
    short = {"optim__epochs": 0.5, "train__save_every": 4}
    main(options(sampled, run, **short))
    steps = sorted((run / "checkpoints").iterdir())
    assert [len(centres(steps[-1] / f"{name}.safetensors")) for name in ("model", "ema", "optimizer")] == [1, 1, 2]
    (weight,) = centres(steps[-1] / "model.safetensors").values()
    assert weight.shape[1] == 32 and 140 <= len(weight) <= 180
    assert not centres(run / "best" / "model.safetensors")
    assert yaml.safe_load((run / "best" / "model.yaml").read_text())["tasks"][0]["scale"] == 64

    shutil.copytree(run, again)
    shutil.rmtree(again / "checkpoints" / steps[-1].name)
    main(options(sampled, again, **short, resume="auto"))
    for name in ("model", "ema", "optimizer"):
        first, second = (
            load_file(each / "checkpoints" / steps[-1].name / f"{name}.safetensors") for each in (run, again)
        )
        assert first.keys() == second.keys() and all(first[key].equal(second[key]) for key in first)

    other = tmp_path / "other"
    main(options(sampled, other, optim__epochs=0.1, optim__lr=1e-9, optim__ema_decay=0, init_from=run / "best"))
    before, after = (load_file(each / "best" / "model.safetensors") for each in (run, other))
    embedding = "subnets.recognition.layers.0.weight"
    torch.testing.assert_close(before[embedding], after[embedding], atol=1e-6, rtol=0)


def estimator(people):
    torch.manual_seed(0)
    card = Card(dict(LEVELS), {"name": "classification"}, {"min_age": 0, "max_age": 100}, 32, tasks=json.loads(TASKS))
    return Estimator(card, people)


def save_untrained(folder):
    """Random weights, and batch statistics of noise."""
    made = estimator(people=0).train()
    made(faces(64))
    made.save(folder)
    return folder


def faces(count=4):
    random = torch.Generator().manual_seed(0)
    return Images.of(torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=random))


def test_cosines_in_training_and_vectors_otherwise():
    made = estimator(people=7)
    cosine, vector = (made.train(training)(faces())["recognition"] for training in (True, False))
    assert cosine.shape == (4, 7) and cosine.abs().max() <= 1 and vector.shape == (4, 32)


def test_centres_change_nothing_else():
    one, other = (estimator(people).eval() for people in (0, 7))
    with torch.inference_mode():
        before, after = one(faces()), other(faces())
    assert all(before[name].equal(after[name]) for name in before)


def test_a_gradient_on_every_parameter():
    made = estimator(people=7).train()
    output = made(faces())
    (task,) = made.tasks
    loss = task.compute_loss(output["recognition"], torch.tensor([0.0, 6.0, 3.0, 3.0]))
    (loss.sum() + sum(output[name].square().sum() for name in ("age", "gender"))).backward()
    assert not [name for name, one in made.named_parameters() if one.requires_grad and not one.grad.isfinite().all()]
    assert made.centres["recognition"].weight.grad.abs().max(dim=1).values.gt(0).all()


def test_the_best_weights_of_data_without_ages():
    assert validation_error({"mae": 4.2, "recognition_accuracy": 0.9}) == 4.2
    assert validation_error({"mae": None, "gender_accuracy": 0.8, "recognition_accuracy": 0.9}) == pytest.approx(0.15)
    assert validation_error({"mae": None, "gender_accuracy": None, "gender_n": 0}) == math.inf


def test_a_score_of_what_nothing_taught_does_not_choose_the_best_weights():
    metrics = {"mae": 30.0, "gender_accuracy": 0.5, "gender_n": 9, "glasses_accuracy": 0.9}
    assert validation_error(metrics, {"gender"}) == 30
    assert validation_error(metrics, {"age", "gender"}) == pytest.approx(0.1)
    assert validation_error(metrics, {"age", "gender", "glasses"}) == math.inf


@pytest.mark.parametrize(
    "more, message",
    [
        ({}, "no sample's JSON has a 'identity'"),
        ({"data__reader": "stream", "data__stream_samples": 80}, "cannot count the people"),
        ({"tasks": TASKS.replace("}", ', "loss": "l1"}')}, "loss l1 is not for kind embedding"),
        ({"tasks": TASKS.replace("}", ', "margin": -1}')}, "margin: -1 is not a number from 0"),
    ],
)
def test_what_cannot_be_learnt_is_one_line(people, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit) as stop:
        main(options(people, tmp_path / "run", **more))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and message in error


@pytest.mark.slow
def test_a_published_swinface_is_verified_and_trained_on(tmp_path):
    """It comes with its embedding; of its 42 other tasks, the ones that are left out of the run are left out."""
    torch.manual_seed(0)
    card = Card(
        {"name": "swinface"}, {"name": "regression", "loss": "annealed", "normalise": False},
        {"min_age": 0, "max_age": 120}, swinface_official.SIZE, tasks=swinface_official.TASKS,
    )  # fmt: skip
    Estimator(card).save(tmp_path / "best")
    main(["convert", f"{tmp_path}/best", f"{tmp_path}/official.pt"])
    main(["convert", f"{tmp_path}/official.pt", f"{tmp_path}/official"])
    draw_identities(tmp_path / "faces", people=4, images=5, side=112)
    pack(IdentitySource(tmp_path / "faces"), tmp_path / "data", {"all": 1.0})
    data, official = tmp_path / "data" / "all", load_file(tmp_path / "official" / "model.safetensors")
    metrics = evaluate(tmp_path / "official", data, tmp_path / "out", report=False)
    assert metrics["verification"]["recognition"]["pairs"] == 80 and metrics["recognition_n"] == 80

    learn = ["--method.name", "regression", "--method.loss", "annealed", "--method.normalise", "false"]
    main([
        "train", "--run", f"{tmp_path}/run", "--init_from", f"{tmp_path}/official", "--model.name", "swinface", *learn,
        "--tasks", TASKS, "--data.train", f"{data}", "--data.val", f"{data}", "--data.workers", "0",
        "--optim.global_batch", "4", "--optim.epochs", "0.4", "--optim.lr", "1e-6", "--train.log_every", "1",
    ])  # fmt: skip
    trained = load_file(tmp_path / "run" / "best" / "model.safetensors")
    assert set(trained) < set(official) and {name.split(".")[1] for name in trained if name.startswith("subnets")} == {
        "age", "gender", "recognition",
    }  # fmt: skip
    for name in trained:
        if trained[name].ndim > 1:  # batch statistics move faster
            torch.testing.assert_close(trained[name], official[name], atol=1e-4, rtol=0)
    assert [line["recognition_loss"] > 0 for line in log_of(tmp_path / "run", "train")] == [True, True]
