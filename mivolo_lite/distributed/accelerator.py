"""The accelerator of processes that evaluate, and what accelerate keeps of an earlier one."""

import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState


def join_processes() -> Accelerator:
    """The accelerator of all launched processes. On CPUs, accelerate by default ignores torchrun's.

    Apple's GPU is for one process.
    """
    forget_earlier_run()
    has_mps = torch.backends.mps.is_available() and os.environ.get("WORLD_SIZE", "1") == "1"
    return Accelerator(cpu=not torch.cuda.is_available() and not has_mps)


def forget_earlier_run() -> None:
    """Reset accelerate's state, so that a second run in this process (a sweep, a notebook) has its own precision.

    Without it, whatever followed a training in bf16 was computed in bf16 as well, in silence.
    """
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    GradientState._reset_state()
