"""Checks of the machines before step 1: a folder that all nodes see, shared memory, and disk space."""

import math
import shutil
import socket
import time
from pathlib import Path
from uuid import uuid4

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from mivolo_lite.errors import UserError
from mivolo_lite.files import write_text
from mivolo_lite.training.run_folder import RunFolder

SHARED_MEMORY = Path("/dev/shm")
_DISK_PATIENCE = 15
"""Seconds for a file of one node to appear on the others, since network file systems cache lookups."""


def require_shared_folder(folder: RunFolder, accelerator: Accelerator) -> None:
    """Raise UserError if a rank does not see the folder of rank 0. All ranks must call it.

    If each node has its own disk under that path, training works, but only rank 0 can resume.
    """
    host = socket.gethostname()
    token, first_host = broadcast_object_list([uuid4().hex, host])
    if accelerator.is_main_process:
        write_text(folder.probe, token)
    accelerator.wait_for_everyone()
    rank = f"rank {accelerator.process_index}" + (f" on {host}" if host != first_host else "")
    blind = gather_object([] if _has_content(folder.probe, token) else [rank])
    if accelerator.is_main_process:
        folder.probe.unlink()
    if blind:
        raise UserError(
            f"--run {folder.path}: {', '.join(blind[:4])} {'and others ' * (len(blind) > 4)}cannot see this folder of "
            f"rank 0 on {first_host}; put it on a disk that all nodes share"
        )


def _has_content(path: Path, content: str) -> bool:
    """Whether a file has this content, within ``_DISK_PATIENCE`` seconds."""
    end = time.monotonic() + _DISK_PATIENCE
    while not (path.is_file() and path.read_text(encoding="utf-8") == content):
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def require_shared_memory(needed: int, processes: int) -> None:
    """Raise UserError if the loaders' batches do not fit into shared memory.

    Args:
        needed: bytes for the training and validation loaders of one process.
        processes: on this machine.
    """
    free = free_shared_memory()
    if needed * processes > free:
        raise UserError(
            f"data.workers: the batches of {processes} processes need {needed * processes / 2**20:.0f} MiB of shared "
            f"memory, {free / 2**20:.0f} MiB are free; use fewer workers or a smaller train.eval_batch, or give a "
            "container more with --shm-size"
        )


def free_shared_memory() -> float:
    """Free bytes of shared memory; infinite if unknown."""
    if not SHARED_MEMORY.is_dir():
        return math.inf
    return shutil.disk_usage(SHARED_MEMORY).free


def require_disk(folder: Path, checkpoint: int) -> None:
    """Raise UserError if the disk has no room for a checkpoint.

    Args:
        folder: of the run.
        checkpoint: its bytes.
    """
    free = shutil.disk_usage(folder).free
    if checkpoint > free:
        raise UserError(
            f"--run {folder}: a checkpoint takes {checkpoint / 2**20:.1f} MiB, the disk has {free / 2**20:.1f} MiB "
            "free; make room or choose another folder"
        )
