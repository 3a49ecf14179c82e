"""Options of a run beyond its data, model, method and optimizer."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from mivolo_lite.ranges import Minutes, float_range, int_range
from mivolo_lite.training.trackers import TrackerName


@dataclass
class TrainConfig:
    """Options of a run beyond its data, model, method and optimizer.

    Attributes:
        seed: of the initial weights, the order, the augmentation and the dropout.
        precision: ``bf16`` or ``fp16`` mixed precision, or ``no`` for float32. ``auto`` is what the launch file says;
            without that, bf16 on GPUs that have it and float32 elsewhere.
        channels_last: memory format of images and kernels; faster on most devices.
        sync_batchnorm: batch statistics over all processes instead of each one's own samples; needs GPUs,
            and lets each layer of each step wait for its GPU.
        compile: compile the model's training call with ``torch.compile``, which may take minutes at the first step; not
            with ZeRO-3 and FSDP2.
        freeze: parts of the model that do not learn: ``backbone``, ``stem``, of a model with two inputs ``face`` and
            ``body``, or modules of the backbone by timm's names (``blocks.0``, ``layer1``).
        freeze_epochs: passes over the data after which they learn as well; null for never, for which the backward pass
            ends above them and takes less time and memory.
        grad_checkpointing: activation checkpointing: the backward pass computes the activations of each block of a
            backbone again instead of keeping them; less memory, about a third more time.
        eval_every: epochs between evaluations.
        patience: evaluations without a lower error after which the run ends; null for never. The schedule of the
            learning rate stays that of all epochs.
        eval_batch: images of one forward pass of evaluation in one process.
        save_every: steps between checkpoints, or minutes as in ``10min``; one is also saved with each evaluation.
        keep: checkpoints kept, the latest ones.
        log_every: steps between lines of the log.
        trackers: experiment trackers that get the metrics, of tensorboard, wandb and mlflow; ``auto`` is TensorBoard
            where that is installed, ``[]`` is none.
        profile: steps to trace with torch's profiler, after the first five, into the run's folder; 0 for none.
        max_broken: how many training images may turn out undecodable before the run stops, over all processes: below 1
            a share of the samples (10 images are always tolerated), otherwise a number.
    """

    seed: Annotated[int, int_range(0, 2**32 - 1)] = 0
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    sync_batchnorm: bool = False
    compile: bool = False
    freeze: list[str] = field(default_factory=list)
    freeze_epochs: Annotated[float, float_range(0)] | None = None
    grad_checkpointing: bool = False
    eval_every: Annotated[float, float_range(0, low_open=True)] = 1.0
    patience: Annotated[int, int_range(1)] | None = None
    eval_batch: Annotated[int, int_range(1, 10**6)] = 128
    save_every: Annotated[int, int_range(1)] | Minutes = 1000
    keep: Annotated[int, int_range(1)] = 2
    log_every: Annotated[int, int_range(1)] = 10
    trackers: list[TrackerName] = field(default_factory=lambda: ["auto"])
    profile: Annotated[int, int_range(0, 1000)] = 0
    max_broken: Annotated[float, float_range(0)] = 0.01
