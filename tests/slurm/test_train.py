"""train.sbatch on two nodes: preempted, killed, out of time, on fewer nodes, and ending as if nothing had happened."""

import json
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from tests.slurm.cluster import Job, descendants, parent
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS, BATCH = 60, 10
WAIT = 240
"""Seconds; a start takes five where nothing else runs."""


@dataclass
class Training:
    """A submitted run."""

    job: Job
    run: Path
    logs: Path

    @property
    def head(self) -> str:
        return self.logs.with_suffix(".out").read_text()

    def log(self, rank: int) -> str:
        return (self.logs / f"rank-{rank}.log").read_text()

    def processes(self, rank: int) -> list[int]:
        """A rank's process, then all that share its node: SLURM's step daemon and what it started."""
        process = int(re.findall(rf"rank {rank} .* process (\d+)", self.log(rank))[-1])
        daemon = parent(process)
        return [process, daemon, *(other for other in descendants(daemon) if other != process)]

    def steps(self) -> list[int]:
        metrics = self.run / "metrics.jsonl"
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        return [json.loads(line)["step"] for line in lines if '"train"' in line]

    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in (self.run / "checkpoints").glob("step-*") if path.suffix != ".partial")

    def reach(self, step: int) -> None:
        wait_until(lambda: self.steps()[-1:] >= [step], WAIT, lambda: f"step {step}: {self.head}")

    def finish(self, starts: int) -> None:
        self.job.wait("COMPLETED", WAIT, starts)
        assert self.steps() == list(range(1, STEPS + 1)) and self.checkpoints()[-1] == f"step-{STEPS:09d}"

    def weights(self) -> dict:
        return load_file(self.run / "checkpoints" / f"step-{STEPS:09d}" / "model.safetensors")


@pytest.fixture(scope="module")
def config(people, tmp_path_factory):
    samples = json.loads((people / "train" / "dataset.json").read_text())["samples"]
    options = {
        "data": {"train": str(people / "train"), "val": str(people / "val"), "image_size": 64, "workers": 1}
        | {"block_samples": 8, "window_blocks": 3},
        "model": {"backbone": "test_efficientnet", "drop_rate": 0.3},
        "optim": {"epochs": STEPS * BATCH / samples, "global_batch": BATCH, "ema_decay": 0.9},
        "train": {"save_every": 20, "log_every": 1, "eval_every": 100},
    }
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(options))
    return path


@pytest.fixture(scope="module")
def submit(cluster, submit_folder, config):
    def submit(run: Path, *overrides: str, options=("--nodes=2",), **environment: str) -> Training:
        export = ",".join(["--export=ALL", *(f"{name}={value}" for name, value in environment.items())])
        script = ["launch/slurm/train.sbatch", str(config), "--run", str(run), *overrides]
        number = cluster.run("sbatch", "--parsable", export, *options, *script, cwd=submit_folder)
        return Training(Job(cluster, number), run, submit_folder / f"slurm-{number}")

    return submit


@pytest.fixture(scope="module")
def undisturbed(submit, tmp_path_factory):
    training = submit(tmp_path_factory.mktemp("undisturbed") / "run", PYTHON="env python")  # as a container's words
    training.finish(starts=0)
    return training


def assert_same_weights(training, undisturbed):
    expected, found = undisturbed.weights(), training.weights()
    assert expected.keys() == found.keys() and all(expected[name].equal(found[name]) for name in expected)


def test_two_nodes_train_together_and_the_head_says_what_runs_where(undisturbed):
    assert "node n1: ranks 0 to 0" in undisturbed.head and "node n2: ranks 1 to 1" in undisturbed.head
    assert re.search(r"commit \w+.*Python 3.*torch 2.*accelerate", undisturbed.head)
    assert "rank 0 of 2: 0 of 1 on n1" in undisturbed.log(0) and "x 2 processes x" in undisturbed.log(0)
    assert "rank 1 of 2: 0 of 1 on n2" in undisturbed.log(1)


def test_a_warned_job_saves_requeues_itself_and_ends_with_the_same_weights(submit, undisturbed, tmp_path):
    training = submit(tmp_path / "run", STAGE_DIR=str(tmp_path / "local"))
    training.reach(25)
    training.job.signal("TERM")
    signalled = training.steps()[-1]  # steps go on while the command hands the warning to SLURM
    training.job.wait("PENDING", WAIT, starts=1)
    saved = int(training.checkpoints()[-1][5:])
    assert 25 <= saved < signalled + 10 and training.head.count("requeued: preempted") == 1
    training.job.go_on()
    training.finish(starts=1)
    assert f"resumed at step {saved}" in training.log(0)
    assert_same_weights(training, undisturbed)
    (copy,) = (tmp_path / "local").iterdir()
    assert yaml.safe_load((training.run / "config.yaml").read_text())["data"]["train"] == str(copy)


def test_a_killed_rank_and_a_silent_node_end_the_step_and_the_requeued_job_finishes(
    submit, cluster, undisturbed, tmp_path
):
    training = submit(tmp_path / "run", "--train.save_every", "10")
    training.reach(12)
    os.kill(training.processes(1)[0], signal.SIGKILL)
    wait_until(lambda: "ended with exit code 137" in training.head, 60, lambda: training.head)
    training.job.go_on()

    training.reach(32)
    node = [*training.processes(1), cluster.node("n2").pid]
    for process in node:
        os.kill(process, signal.SIGSTOP)  # nothing is closed, as when the power goes
    wait_until(lambda: training.head.count("ended with exit code") == 2, 60, lambda: training.head)
    assert "no sign of life from rank 1 for 25 seconds" in training.log(0)
    for process in node[:-1]:
        os.kill(process, signal.SIGKILL)
    os.kill(node[-1], signal.SIGCONT)  # the node is up again, and knows of no step
    training.job.go_on()
    training.finish(starts=2)
    assert "resumed at step 10" in training.log(0) and "resumed at step 30" in training.log(0)
    assert_same_weights(training, undisturbed)


def test_before_its_time_limit_a_job_saves_and_goes_on_later_on_fewer_nodes_until_it_is_cancelled(submit, tmp_path):
    options = ("--nodes=2", "--time=60", "--signal=USR2@20")
    training = submit(tmp_path / "run", "--optim.epochs", "1000", options=options, PYTHON="python -m tests.slowly")
    training.reach(1)
    # SLURM looks at time limits every 30 seconds, and warns up to as much too early: a limit that was given before the
    # start could end before the first step.
    training.job.update(TimeLimit=f"{(training.job.seconds() + 30) // 60 + 1}")
    training.job.wait("PENDING", WAIT, starts=1)
    saved = int(training.checkpoints()[-1][5:])
    assert "requeued: preempted" in training.head
    training.job.update(NumNodes="1", NumTasks="1", TimeLimit="60")
    training.job.go_on()
    training.reach(saved + 5)
    training.job.cluster.run("scancel", training.job.number)
    training.job.wait("CANCELLED", WAIT)
    assert f"resumed at step {saved}" in training.log(0) and "x 1 processes x" in training.log(0)
    assert training.steps() == list(range(1, training.steps()[-1] + 1))
    assert training.head.count("requeued") == 1


def test_a_job_that_dies_without_progress_is_not_requeued_for_ever(submit, tmp_path):
    training = submit(tmp_path / "run", RETRIES="1", GLOO_SOCKET_IFNAME="nowhere")  # no rank can meet another
    training.job.wait("PENDING", WAIT, starts=1)
    training.job.go_on()
    training.job.wait("FAILED", WAIT, starts=1)
    assert training.head.count("requeued: failed") == 1 and "failed too often" in training.head


def test_a_mistake_in_the_configuration_ends_the_job_at_once(submit, tmp_path):
    training = submit(tmp_path / "run", "--optim.speed", "3", options=("--nodes=1",))
    training.job.wait("FAILED", WAIT, starts=0)
    assert training.job.field("ExitCode") == "2:0" and not (tmp_path / "run").exists()
    assert "train.sbatch: command line: optim.speed is not an option" in training.head
