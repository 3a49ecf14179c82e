"""The accelerator for evaluation, and a reset of accelerate's state from an earlier run."""

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
    """A context for a rank that evaluates. If another rank fails or is lost, this one ends as well, with the reason.

    Raises:
        UserError: as for ``join_processes`` and ``ending_together``.
    """
    with ending_together():
        accelerator = join_processes()
        if accelerator.num_processes == 1:
            yield accelerator
            return
        heartbeat = Heartbeat(accelerator.process_index, accelerator.num_processes)
        yield accelerator
        accelerator.wait_for_everyone()  # rank 0 is still writing, and would miss the others
        heartbeat.stop()


def join_processes() -> Accelerator:
    """The accelerator of all launched processes, also of torchrun's on CPUs, which accelerate ignores by default.

    Apple's GPU (MPS) is used only by a single process.

    Raises:
        UserError: the environment describes a launch incompletely, or has an unknown precision or device.
        MachineError: a rank did not join.
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
    """Raise UserError if the environment names a device for accelerate that cannot be used here."""
    if (name := environ.get("ACCELERATE_TORCH_DEVICE")) is not None:
        usable_device(name, "launch: ACCELERATE_TORCH_DEVICE is")


def forget_earlier_run() -> None:
    """Reset accelerate's state, so that a second run in this process (a sweep, a notebook) has its own precision.

    Otherwise everything after a training in bf16 would silently run in bf16 as well.
    """
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    GradientState._reset_state()
