"""A run that is killed and resumed ends where an undisturbed one does, to the last bit."""

import json
import os
import random
import shutil
import signal
import time

import pytest
from safetensors.torch import load_file

from mivolo_lite.cli import main
from mivolo_lite.distributed.preemption import EXIT_CODE
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.training.loop import Trainer
from mivolo_lite.training.optim import OptimConfig
from mivolo_lite.training.schedule import learning_rate
from tests.forked import start_forked
from tests.shards.tiny_shards import damage
from tests.training.launching import run_ranks

STEPS = 24
OPTIONS = {
    "model.backbone": "test_efficientnet",
    "model.drop_rate": "0.3",
    "data.image_size": "64",
    "data.workers": "2",
    "data.block_samples": "8",
    "data.window_blocks": "3",
    "optim.global_batch": "10",
    "optim.micro_batch": "5",
    "optim.ema_decay": "0.9",
    "optim.balance.by": "gender",
    "optim.dro.by": "age",
    "optim.dro.fewest": "5",
    "data.augment.photometric": "0.5",
    "data.augment.degrade": "0.5",
    "train.save_every": "4",
    "train.log_every": "1",
}


@pytest.fixture(scope="module")
def command(people):
    """The command line of a small run, without its folder."""
    samples = json.loads((people / "train" / "dataset.json").read_text())["samples"]
    options = OPTIONS | {
        "data.train": str(people / "train"),
        "data.val": str(people / "val"),
        "optim.epochs": str(STEPS * int(OPTIONS["optim.global_batch"]) / samples),
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    return ["train", *arguments]


def words(command, run, resume):
    return [*command, "--run", str(run), "--resume", resume]


def start(command, run, until):
    """Run it until something is true that is true before its end. Returns its process and the file of what it says."""
    output = run.with_suffix(".out")
    process = start_forked(words(command, run, "no"), output)
    while process.is_alive() and not until():
        time.sleep(0.01)
    return process, output


def kill(command, run, until):
    process, _ = start(command, run, until)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it ended by itself before that"


def finish(command, run, resume="no"):
    """Run it to its end."""
    run_ranks(main, [(words(command, run, resume),)], timeout=550)


def refused(command, run, capfd, resume="auto"):
    """What is said of a run that does not begin."""
    with pytest.raises(SystemExit) as stop:
        main(words(command, run, resume))
    assert stop.value.code == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    return said


def records(run, kind):
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def steps_logged(run):
    return [record["step"] for record in records(run, "train")]


@pytest.fixture(scope="module")
def undisturbed(command, tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(command, run)
    return run


def last_checkpoint(run):
    return sorted(path for path in (run / "checkpoints").glob("step-*") if path.suffix != ".partial")[-1]


def require_same(run, undisturbed, *names, said=""):
    """The files of the last checkpoints are equal to the bit."""
    for name in names:
        expected, found = (load_file(last_checkpoint(each) / name) for each in (undisturbed, run))
        assert expected.keys() == found.keys()
        assert all(expected[key].equal(found[key]) for key in expected), said


@pytest.mark.slow
def test_killed_at_a_random_step_and_resumed(command, undisturbed, tmp_path):
    run = tmp_path / "run"
    stop = random.randint(5, STEPS - 8)
    kill(command, run, lambda: len(steps_logged(run)) >= stop)
    finish(command, run, resume="auto")

    assert last_checkpoint(run).name == f"step-{STEPS:09d}"
    names = "model.safetensors", "ema.safetensors", "optimizer.safetensors"
    require_same(run, undisturbed, *names, said=f"killed at step {stop}")
    states = [json.loads((last_checkpoint(each) / "state.json").read_text())["state"] for each in (undisturbed, run)]
    assert states[0] == states[1] and any(states[0]["subgroups"].values())
    best, found = (load_file(folder / "best" / "model.safetensors") for folder in (undisturbed, run))
    assert all(best[key].equal(found[key]) for key in best)
    assert steps_logged(run) == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_killed_after_a_save_by_the_clock_and_resumed(command, undisturbed, tmp_path):
    """Where the saves fall depends on the machine, and the weights do not."""
    run, by_clock = tmp_path / "run", [*command, "--train.save_every", "0.005min", "--train.eval_every", "1000"]
    kill(by_clock, run, lambda: len(records(run, "save")) >= 2)
    finish(by_clock, run, resume="auto")
    require_same(run, undisturbed, "model.safetensors")
    assert len(records(run, "start")) == 2 and 0 < records(run, "end")[-1]["goodput"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("warning", [signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_warned_it_saves_and_ends_with_exit_code_75(command, undisturbed, tmp_path, warning):
    """Sent to all of its processes, as a terminal does."""
    run = tmp_path / "run"
    process, output = start(command, run, lambda: len(steps_logged(run)) >= 5)
    os.killpg(process.pid, warning)
    process.join(550)
    said = output.read_text()
    assert process.exitcode == EXIT_CODE == 75 and "Traceback" not in said
    saved = int(last_checkpoint(run).name[5:])
    assert saved == steps_logged(run)[-1] < STEPS and f"preempted: saved at step {saved}" in said
    finish(command, run, resume="auto")

    require_same(run, undisturbed, "model.safetensors")
    assert steps_logged(run) == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_no_room_for_a_checkpoint(command, undisturbed, tmp_path):
    run = tmp_path / "run"
    kill(command, run, lambda: len(steps_logged(run)) >= 6)
    whole, output = last_checkpoint(run).name, tmp_path / "output"

    in_this_process = [*command, "--data.workers", "0"]  # the memory of others is files
    process = start_forked(words(in_this_process, run, "auto"), output, largest_file=200 * 1024)
    process.join(550)
    said = output.read_text()
    assert process.exitcode == 2 and "Traceback" not in said
    (error,) = [line for line in said.splitlines() if line.startswith("mivolo-lite: ")]
    assert all(part in error for part in ("File too large", "make room", "whole"))  # checkpoint or best weights
    assert last_checkpoint(run).name == whole

    finish(command, run, resume="auto")
    for name in ("model", "ema", "optimizer"):
        expected, found = (load_file(last_checkpoint(each) / f"{name}.safetensors") for each in (undisturbed, run))
        assert expected.keys() == found.keys() and all(expected[key].equal(found[key]) for key in expected)


@pytest.mark.slow
def test_a_finished_run_is_not_begun_again(command, undisturbed, capfd):
    before = (undisturbed / "metrics.jsonl").read_bytes()
    assert "--resume auto" in refused(command, undisturbed, capfd, resume="no")
    assert (undisturbed / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "option, value, message",
    [
        ("train.seed", "1", "another seed"),
        ("data.window_blocks", "4", "another data.window_blocks (window_blocks 3, now 4)"),
        ("data.block_samples", "4", "another data.block_samples (block_samples 8, now 4)"),
    ],
)
def test_another_order_cannot_resume_it(command, undisturbed, option, value, message, capfd):
    assert message in refused([*command, f"--{option}", value], undisturbed, capfd)


@pytest.mark.slow
def test_it_goes_on_by_samples_with_another_global_batch(command, people, undisturbed, tmp_path):
    """Half as much again, in steps twice as large: the schedule resumes where the samples seen put it."""
    run = shutil.copytree(undisturbed, tmp_path / "run")
    epochs = float(command[command.index("--optim.epochs") + 1])
    finish([*command, "--optim.global_batch", "20", "--optim.epochs", str(1.5 * epochs)], run, resume="auto")
    assert steps_logged(run)[STEPS:] == list(range(STEPS + 1, STEPS + 7))
    new = [record for record in records(run, "train") if record["step"] > STEPS]
    assert [record["samples_seen"] for record in new] == [240 + 20 * step for step in range(1, 7)]
    steps_per_epoch = len(ShardIndex.load(people / "train")) / 20
    course = [learning_rate(step, 18, steps_per_epoch, OptimConfig()) for step in range(12, 18)]
    assert [record["lr"] for record in new] == pytest.approx(course)


@pytest.mark.slow
def test_a_run_that_has_learnt_enough_is_done(command, undisturbed, tmp_path):
    run = shutil.copytree(undisturbed, tmp_path / "run")
    finish([*command, "--optim.epochs", "1"], run, resume="auto")
    assert last_checkpoint(run).name == f"step-{STEPS:09d}"


@pytest.mark.slow
def test_a_broken_image_counts_once_however_often_it_is_met(command, people, tmp_path, capfd):
    data = shutil.copytree(people / "train", tmp_path / "train")
    damage(ShardIndex.load(data), 0, "face")
    changed = ["--data.train", str(data), "--train.max_broken", "1"]
    for epochs in ("1", "2"):
        finish([*command, *changed, "--optim.epochs", epochs], tmp_path / "run", resume="auto")
    lines = (tmp_path / "run" / "broken.jsonl").read_text().splitlines()
    assert len(lines) == 1 and ".face: " in json.loads(lines[0])["image"]

    said = refused([*command, *changed, "--train.max_broken", "0"], tmp_path / "other", capfd, resume="no")
    assert "1 images cannot be decoded, more than train.max_broken 0 allows (0)" in said


@pytest.mark.slow
def test_another_model_cannot_resume_it(command, undisturbed, capfd):
    assert "another model" in refused([*command, "--model.backbone", "test_resnet"], undisturbed, capfd)


@pytest.mark.slow
def test_preempted_while_it_evaluates_it_resumes_with_the_evaluation(
    command, undisturbed, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    with monkeypatch.context() as preempted, pytest.raises(SystemExit) as end:
        preempted.setattr(Trainer, "_preempted_while_evaluating", lambda self: True)
        main(words(command, run, "no"))
    assert end.value.code == EXIT_CODE and not (run / "best").exists()
    saved = int(last_checkpoint(run).name[5:])
    said = capsys.readouterr().out
    assert saved < STEPS and f"preempted while evaluating: resumes with the evaluation after step {saved}\n" in said
    finish(command, run, resume="auto")
    require_same(run, undisturbed, "model.safetensors", "ema.safetensors")
    best, found = (load_file(folder / "best" / "model.safetensors") for folder in (undisturbed, run))
    assert all(best[key].equal(found[key]) for key in best)
    evaluations = [[(record["step"], record["mae"]) for record in records(each, "val")] for each in (undisturbed, run)]
    assert evaluations[0] == evaluations[1] and evaluations[0][0][0] == saved
