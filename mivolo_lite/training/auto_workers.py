"""The number of loader workers of each rank if ``data.workers`` is ``auto``."""

from dataclasses import replace

from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.distributed.cpus import rank_cpus
from mivolo_lite.distributed.launch import Launch
from mivolo_lite.loading.batch import INPUTS
from mivolo_lite.loading.config import DataConfig
from mivolo_lite.loading.workers import PREFETCHED
from mivolo_lite.training.resource_checks import free_shared_memory

MOST = 16
"""More are rarely needed: 16 deliver 16,000 images/s, and each keeps batches in shared memory."""


def with_workers(data: DataConfig, launch: Launch, plan: BatchPlan, eval_batch: int) -> DataConfig:
    """The data options with ``workers`` as a number. All ranks must call it."""
    if data.workers != "auto":
        return data
    memory = free_shared_memory() / launch.local_processes
    samples = plan.micro_batch + eval_batch
    return replace(data, workers=auto_workers(rank_cpus(), launch.on_cpu, memory, samples, data.image_size))


def auto_workers(cpus: float, on_cpu: bool, shared_memory: float, samples: int, image_size: int) -> int:
    """Loader workers of a rank.

    A rank with a GPU keeps one CPU for itself. A rank that trains on CPUs needs them for that: one worker delivers many
    times the images that the model can process.

    Args:
        cpus: of the rank.
        on_cpu: whether it trains on CPUs.
        shared_memory: free bytes for its batches.
        samples: in a training batch plus an evaluation batch.
        image_size: side of their images in pixels.
    """
    if on_cpu:
        return 1
    slot = samples * len(INPUTS) * 3 * image_size**2
    fitting = (shared_memory / slot - 1) / PREFETCHED
    return max(1, int(min(cpus - 1, fitting, MOST)))
