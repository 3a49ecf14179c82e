"""A recipe trained with several seeds, by real trainings."""

import json
import signal
import subprocess
from types import SimpleNamespace

import pytest

from mivolo_lite.card import Card
from mivolo_lite.cli import main
from mivolo_lite.config import read_run_config
from mivolo_lite.errors import UserError
from mivolo_lite.experiments.seeds import train_seeds
from mivolo_lite.experiments.training_runs import Preempted
from mivolo_lite.shards.index import ShardIndex
from tests.forked import popen_forked

SMALL = [
    "--model.backbone", "test_resnet", "--data.image_size", "32", "--data.workers", "0",
    "--optim.global_batch", "16", "--optim.epochs", "1", "--train.precision", "no",
]  # fmt: skip


@pytest.mark.slow
def test_each_seed_is_a_run_and_a_second_start_trains_none_again(people, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("mivolo_lite.distributed.preemption.subprocess", SimpleNamespace(Popen=popen_forked))
    words = ["--run", f"{tmp_path}/run", "--data.train", f"{people}/train", "--data.val", f"{people}/val", *SMALL]
    main(["seeds", *words, "--seeds", "2", "--workers=0"])
    table = capfd.readouterr().out
    contents = json.loads((tmp_path / "run" / "seeds.json").read_text())["metrics"]["mae"]
    each = [json.loads((tmp_path / f"run/seed-{seed}/evaluation/metrics.json").read_text())["mae"] for seed in (0, 1)]
    assert contents["values"] == pytest.approx(each, abs=1e-3) and each[0] != each[1]
    for seed in (0, 1):
        evaluated = json.loads((tmp_path / f"run/seed-{seed}/evaluation/metrics.json").read_text())["checkpoint"]
        assert evaluated.endswith(f"seed-{seed}/best")
    assert contents["mean"] == pytest.approx(sum(each) / 2, abs=1e-3) and f"{contents['mean']:.2f}" in table
    before = [(tmp_path / f"run/seed-{seed}/metrics.jsonl").read_text() for seed in (0, 1)]
    spreads = train_seeds(words, 2, workers=0)
    assert spreads["mae"].values == contents["values"]
    assert before == [(tmp_path / f"run/seed-{seed}/metrics.jsonl").read_text() for seed in (0, 1)]


def test_mistakes_are_one_line(capsys):
    with pytest.raises(UserError, match="two trainings or more"):
        train_seeds([], 1)
    for seed in (["--train.seed=7"], ["--train", "{seed: 7}"], ["--train.seed", "7"]):
        with pytest.raises(UserError, match="train.seed: the trainings have seeds 0, 1"):
            train_seeds(["--run", "r", *seed], 2)
    with pytest.raises(UserError, match="data.train is missing"):  # a value may begin as the option does
        train_seeds(["--run", "--train.seed"], 2)
    with pytest.raises(SystemExit) as stop:
        main(["seeds", "--seeds", "1"])
    assert stop.value.code == 2 and "seeds" in capsys.readouterr().err


@pytest.fixture
def words(people, tmp_path):
    return ["--run", f"{tmp_path}/run", "--data.train", f"{people}/train", "--data.val", f"{people}/val", *SMALL]


def test_each_training_may_begin_from_the_checkpoint_of_its_seed(words, monkeypatch):
    begun = []

    def train(words, *_):
        begun.append(read_run_config(words).init_from)
        if len(begun) == 2:
            raise Preempted("")

    monkeypatch.setattr("mivolo_lite.experiments.seeds.train_and_evaluate", train)
    with pytest.raises(Preempted):
        train_seeds([*words, "--init-from", "first/seed-{seed}/best"], 2)
    assert begun == ["first/seed-0/best", "first/seed-1/best"]


def launcher(tmp_path, line):
    """A program that stands for a launcher: what a training does is not asked here."""
    (tmp_path / "launch.sh").write_text(f"{line}\n")
    return f"sh {tmp_path / 'launch.sh'}"


@pytest.mark.parametrize("line, code", [("exit 2", 2), ("exit 1", 1), ("kill -9 $$", 1), ("exit 75", 75)])
def test_the_exit_code_says_whether_another_start_may_succeed(line, code, words, tmp_path):
    with pytest.raises(UserError, match="seed-0: the training") as error:
        train_seeds(words, 2, launcher(tmp_path, line))
    assert error.value.exit_code == code


@pytest.fixture
def ctrl_c_is_heard():
    """Also where a shell started the tests as a background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_is_heard")
@pytest.mark.parametrize("name, code", [("TERM", 0), ("USR2", 0), ("INT", 7)])
def test_a_signal_is_left_to_the_training(name, code, words, tmp_path, monkeypatch):
    """It saves and ends, before this process does. Ctrl-C reaches both by the terminal, here this process alone."""
    waits = tmp_path / "waits"

    class Process(subprocess.Popen):
        def wait(self, timeout=None):
            waits.touch()
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Process)
    trap = f"trap 'sleep 0.1; touch {tmp_path}/saved; kill $!; exit 0' TERM USR2"
    until_heard = f"sleep {60 if code == 0 else 0.2} & wait"  # nothing is passed on of Ctrl-C
    signals = f"until [ -e {waits} ]; do sleep 0.01; done; kill -{name} $PPID"
    saves = f"{trap}; {signals}; {until_heard}; exit 7"
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)]
    with pytest.raises(Preempted, match="seed-0: the training was preempted; start the same command again"):
        train_seeds(words, 2, launcher(tmp_path, saves))
    assert (tmp_path / "saved").exists() == (code == 0)
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)]


@pytest.mark.parametrize("split, option", [("train", "data.train"), ("val", "data.val")])
def test_a_complete_training_of_other_samples_does_not_count(split, option, words, people, tmp_path):
    """The folders' names are the same, but they were packed again since."""
    digests = {name: ShardIndex.load(people / name).digest for name in ("train", "val")} | {split: "another"}
    seed = tmp_path / "run/seed-0"
    for folder in ("best", "evaluation"):
        (seed / folder).mkdir(parents=True)
    Card({"name": "single"}, {"name": "coral"}, {}, 32, data_digest=digests["train"]).save(seed / "best")
    (seed / "evaluation/metrics.json").write_text(json.dumps({"data": {"digest": digests["val"]}}))
    with pytest.raises(
        UserError, match=f"seed-0: {option} held other samples when it was trained; choose another --run"
    ):
        train_seeds(words, 2)


def test_a_launcher_that_is_no_command_line_is_one_line(words):
    with pytest.raises(UserError, match='--launcher "x: No closing quotation'):
        train_seeds(words, 2, '"x')


@pytest.mark.slow
def test_a_training_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("mivolo_lite.distributed.preemption.subprocess", SimpleNamespace(Popen=popen_forked))
    words = ["--run", f"{tmp_path}/run", "--data.train", "nowhere", "--data.val", "nowhere"]
    with pytest.raises(UserError, match="seed-0: the training ended with exit code 2; its own message stands above"):
        train_seeds(words, 2)
