"""Starting the processes' engine, and refusing one that is not the one asked for."""

import os

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from mivolo_lite.errors import UserError


def start_accelerator(precision: str) -> Accelerator:
    """Accelerate as the launcher asked for it, on GPUs or, with gloo, on CPUs.

    Accumulation is the training step's own business: it needs the label counts of all micro-batches before the first
    backward pass.

    Raises:
        UserError: fewer processes came together than were launched, or the device has no such precision.
    """
    if precision == "fp16" and not torch.cuda.is_available():
        raise UserError("train.precision fp16 needs a GPU; use bf16 or no")
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=precision)
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise UserError(
            f"launch: {launched} processes were started but {accelerator.num_processes} work together; "
            "start them with `accelerate launch --multi_gpu` or a launch file of type MULTI_GPU"
        )
    return accelerator


def seed_everything(seed: int) -> None:
    """The initial weights: equal on every rank."""
    set_seed(seed)
