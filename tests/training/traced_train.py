"""Training that writes down the samples of each step and the batch statistics before it, and that dies after a given
step. Batch norm of ``model: multilevel`` keeps the statistics it was made with.
"""

import json
import os
import signal
from pathlib import Path

from torch import nn

from mivolo_lite.config import read_run_config
from mivolo_lite.training.loop import Trainer
from tests.models import tiny  # noqa: F401, timm's list has its models


class TracedTrainer(Trainer):
    trace: Path
    stop: int

    def _build(self):
        super()._build()
        if self.config.model.name == "multilevel":
            # Its subnets normalise over a rank's own samples, and torch has no synchronised batch norm on CPUs.
            for layer in self.estimator.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval().train = lambda mode=True: None

    def _steps(self):
        rank = self.accelerator.process_index
        with open(self.trace / f"{rank}.jsonl", "a") as file:
            for batches in super()._steps():
                samples = [number for batch in batches for number in batch.sample.tolist()]
                statistics = sum(float(buffer.double().sum()) for buffer in self.estimator.buffers())
                record = {"step": self.state.step, "samples": samples, "statistics": statistics}
                file.write(json.dumps(record) + "\n")
                file.flush()
                yield batches
                if self.state.step == self.stop:
                    self.checkpointer.wait()  # it dies with the checkpoint of this step on the disk
                    self.accelerator.wait_for_everyone()
                    os.kill(os.getpid(), signal.SIGKILL)


def train(trace: Path, stop: int, words: list[str]) -> None:
    """A rank's part of a run; ``stop`` 0 is never."""
    TracedTrainer.trace, TracedTrainer.stop = trace, stop
    TracedTrainer(read_run_config(words)).train()
