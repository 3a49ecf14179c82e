"""The accelerator of processes that evaluate, and what accelerate keeps of an earlier one."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from mivolo_lite.device import usable_device
from mivolo_lite.distributed.environment import processes_of, stated_settings
from mivolo_lite.distributed.heartbeat import Heartbeat, ending_together
from mivolo_lite.distributed.rendezvous import wait_for_ranks


@contextmanager
def joined_processes() -> Iterator[Accelerator]:
    """Around the work of a rank that evaluates. Where another one fails or is lost, it ends as well and says why.

    Raises:
        UserError: as ``join_processes``, and as ``ending_together``.
    """
    with ending_together():
        accelerator = join_processes()
        if accelerator.num_processes == 1:
            yield accelerator
            return
        heartbeat = Heartbeat(accelerator.process_index, accelerator.num_processes)
        yield accelerator
        accelerator.wait_for_everyone()  # rank 0 still writes, and would miss the others
        heartbeat.stop()


def join_processes() -> Accelerator:
    """The accelerator of all launched processes, also of torchrun's on CPUs, which accelerate by default ignores.

    Apple's GPU is used by a single process only.

    Raises:
        UserError: the environment describes a launch incompletely, or a precision or a device that is not known here.
        MachineError: a rank did not come.
    """
    forget_earlier_run()
    processes = processes_of(os.environ)
    stated_settings(os.environ)
    require_device(os.environ)
    store = wait_for_ranks(os.environ)  # rank 0 keeps it until torch has its own
    has_mps = torch.backends.mps.is_available() and processes == 1
    accelerator = Accelerator(cpu=not torch.cuda.is_available() and not has_mps)
    del store
    return accelerator


def require_device(environ: Mapping[str, str]) -> None:
    """Raise UserError where the environment names a device for accelerate that is not usable here."""
    if (name := environ.get("ACCELERATE_TORCH_DEVICE")) is not None:
        usable_device(name, "launch: ACCELERATE_TORCH_DEVICE is")


def forget_earlier_run() -> None:
    """Reset accelerate's state, so that a second run in this process (a sweep, a notebook) has its own precision.

    Without it, whatever followed a training in bf16 was computed in bf16 as well, in silence.
    """
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    GradientState._reset_state()
