"""torchrun on nodes that come and go: the run resumes on those that there are, and no sample is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from mivolo_lite.cli import main
from tests.ports import free_ports
from tests.training.launching import INHERITED, REPOSITORY, TRAIN, arguments, lines
from tests.waiting import wait_until

SLOWLY = REPOSITORY / "tests" / "slowly.py"
STEPS = 80


class Node:
    """A node: a torchrun agent and its rank.

    Args:
        log: of both.
        port: of the rendezvous, which the first node holds.
        training: the words after ``train.py``.
    """

    def __init__(self, log: Path, port: int, training: list[str]):
        self.log = log
        options = ["--nnodes=1:2", "--nproc_per_node=1", "--max-restarts=3", "--monitor-interval=0.2"]
        options += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-conf=last_call_timeout=1"]
        command = [sys.executable, "-m", "torch.distributed.run", *options, "--local-addr=127.0.0.1", "--", str(SLOWLY)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(INHERITED)}
        clean |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        with open(log, "w") as file:
            self.agent = subprocess.Popen([*command, str(TRAIN), *training], env=clean, stdout=file, stderr=file)

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    def kill(self) -> None:
        """As when the power goes."""
        if self.agent.poll() is None:
            for process in [*psutil.Process(self.agent.pid).children(recursive=True), self.agent]:
                process.kill()
            self.agent.wait()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_grows_to_a_node_that_joins_and_shrinks_when_it_is_lost(people, tmp_path):
    options = {"data.train": people / "train", "data.val": people / "val", "data.image_size": 32, "data.workers": 0}
    samples = json.loads((people / "train" / "dataset.json").read_text())["samples"]
    options |= {"model.backbone": "test_vit", "optim.global_batch": 10, "optim.epochs": STEPS * 10 / samples}
    # AdamW divides what rounding leaves of a gradient by its own size
    options |= {"optim.name": "sgd", "optim.lr": 1e-2}
    options |= {"train.save_every": 5, "train.eval_every": 100, "train.log_every": 1}
    run, port = tmp_path / "run", free_ports(1)[0]
    training = arguments(options | {"run": run, "resume": "auto"})
    nodes = []

    def join(name: str) -> Node:
        nodes.append(Node(tmp_path / f"{name}.log", port, training))
        return nodes[-1]

    def logged() -> list[int]:
        path = run / "metrics.jsonl"
        return [record["step"] for record in lines(path, "train")] if path.exists() else []

    def reach(step: int) -> None:
        wait_until(lambda: logged()[-1:] >= [step], 240, lambda: "\n".join(node.log.read_text() for node in nodes))

    try:
        first = join("first")
        reach(6)
        second = join("second")
        wait_until(lambda: any(node.said("x 2 processes") for node in nodes), 240, lambda: second.log.read_text())
        reach(logged()[-1] + 6)
        second.kill()
        assert first.agent.wait(300) == 0, first.log.read_text()
    finally:
        for node in nodes:
            node.kill()
    assert logged() == list(range(1, STEPS + 1))
    assert first.log.read_text().count("x 1 processes") == 2 and first.said("preempted: saved at step")
    main(["train", *arguments(options | {"run": tmp_path / "undisturbed"})])
    name = f"checkpoints/step-{STEPS:09d}/model.safetensors"
    expected, found = load_file(tmp_path / "undisturbed" / name), load_file(run / name)
    for weight in expected:
        torch.testing.assert_close(found[weight], expected[weight], rtol=1e-3, atol=1e-4)
