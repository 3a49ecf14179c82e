"""The accelerator of processes that evaluate, and what accelerate keeps of an earlier one."""

import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from mivolo_lite.distributed.environment import processes_of, stated_settings
from mivolo_lite.distributed.rendezvous import wait_for_ranks


def join_processes() -> Accelerator:
    """The accelerator of all launched processes. On CPUs, accelerate by default ignores torchrun's.

    Apple's GPU is for one process.

    Raises:
        UserError: the environment describes a launch by half, or a precision that is not known here.
        MachineError: a rank did not come.
    """
    forget_earlier_run()
    processes = processes_of(os.environ)
    stated_settings(os.environ)
    # Rank 0 keeps the store until torch has its own.
    store = None if torch.distributed.is_initialized() else wait_for_ranks(os.environ)
    has_mps = torch.backends.mps.is_available() and processes == 1
    accelerator = Accelerator(cpu=not torch.cuda.is_available() and not has_mps)
    del store
    return accelerator


def forget_earlier_run() -> None:
    """Reset accelerate's state, so that a second run in this process (a sweep, a notebook) has its own precision.

    Without it, whatever followed a training in bf16 was computed in bf16 as well, in silence.
    """
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    GradientState._reset_state()
