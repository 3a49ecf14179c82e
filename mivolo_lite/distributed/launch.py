"""The launch that the environment describes, and its process group.

Accelerate and DeepSpeed fall back silently: a launch for DeepSpeed trains without it, a launch of two processes trains
one, a precision in one file overrules that of another. Here each of these is an error before any data is read.
"""

import os
import warnings
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DeepSpeedPlugin,
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
)

from mivolo_lite.distributed.accelerator import forget_earlier_run, require_device
from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.distributed.deepspeed_settings import (
    PREFIX,
    check_deepspeed,
    deepspeed_config,
    read_settings,
    skip_shm_compilation,
)
from mivolo_lite.distributed.environment import engine_of, flag, processes_of, stated_settings
from mivolo_lite.distributed.heartbeat import Heartbeat
from mivolo_lite.distributed.preemption import preempted
from mivolo_lite.distributed.rendezvous import wait_for_ranks
from mivolo_lite.errors import UserError


@dataclass(frozen=True)
class Launch:
    """The engine, the processes and the device of a training.

    Attributes:
        engine: ``ddp`` (also for one process), ``zero`` or ``fsdp2``.
        processes: over all machines.
        on_cpu: whether to train on CPUs, with gloo.
        zero: DeepSpeed's settings from the launcher: the stage, offloading, everything in a JSON file.
        local_processes: on this machine.
        precision, accumulation, clip_norm, micro_batch, global_batch, dynamo: options of the run that the launcher
            sets; None if it does not.
    """

    engine: str
    processes: int
    on_cpu: bool
    zero: Mapping[str, Any]
    local_processes: int = 1
    precision: str | None = None
    accumulation: int | None = None
    clip_norm: float | None = None
    micro_batch: int | None = None
    global_batch: int | None = None
    dynamo: str | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], gpus: int, mps: bool = False) -> "Launch":
        """Read the environment that ``accelerate launch``, ``torchrun``, ``mpirun`` and the like set.

        Args:
            environ: the environment.
            gpus: number of GPUs that ``torch.cuda`` sees in this process.
            mps: whether there is a GPU of Apple's.

        Raises:
            UserError: it would train differently than launched.
        """
        on_cpu = (gpus == 0 and not mps) or flag(environ, "ACCELERATE_USE_CPU")
        engine, processes = engine_of(environ), processes_of(environ)
        if not on_cpu and not gpus and (processes > 1 or engine != "ddp"):
            raise UserError(
                f"launch: {processes} processes with {engine} were asked for, but torch trains on Apple's GPU in one "
                "process and without an engine; start one, or set ACCELERATE_USE_CPU=true to train on CPUs"
            )
        stated = stated_settings(environ) | {"local_processes": int(environ.get("LOCAL_WORLD_SIZE") or 1)}
        if engine != "zero":
            return cls(engine, processes, on_cpu, {}, **stated)
        check_deepspeed(environ)
        zero, stated_in_json = read_settings(environ)
        for name, value in stated_in_json.items():
            if stated.setdefault(name, value) != value:
                raise UserError(
                    f"launch: the launch file says {name} {stated[name]}, DeepSpeed's JSON file {value}; "
                    "say it in neither, the run's configuration does"
                )
        return cls(engine, processes, on_cpu, zero, **stated)

    def __str__(self) -> str:
        if self.engine == "zero":
            return f"DeepSpeed ZeRO-{self.zero['zero_optimization']['stage']}"
        return self.engine.upper()

    def require_compilable(self) -> None:
        """Raise UserError if an engine gathers parameters in a forward pass, unseen by torch's compiler."""
        if self.engine == "fsdp2" or (self.engine == "zero" and self.zero["zero_optimization"]["stage"] == 3):
            raise UserError(
                f"train.compile does not work with {self}, which gathers parameters in the midst of the forward pass; "
                "set it to false, or use ddp or zero2"
            )

    def resolve(self, precision: str) -> str:
        """The precision for ``auto``: the launch file's, or the fastest of the device."""
        if precision != "auto":
            return precision
        has_bf16 = not self.on_cpu and torch.cuda.is_bf16_supported(including_emulation=False)
        return self.precision or ("bf16" if has_bf16 else "no")

    def check(self, precision: str, plan: BatchPlan, clip_norm: float) -> None:
        """Raise UserError if the launcher contradicts the run's configuration, or an engine does not support it."""
        configured = {
            "precision": ("train.precision", precision),
            "accumulation": ("optim.global_batch and optim.micro_batch: accumulation", plan.accumulation),
            "micro_batch": ("optim.global_batch and optim.micro_batch: micro-batch", plan.micro_batch),
            "global_batch": ("optim.global_batch", plan.global_batch),
            "clip_norm": ("optim.clip_norm", clip_norm),
        }
        for name, (option, value) in configured.items():
            launched = getattr(self, name)
            if launched is not None and launched != value:
                raise UserError(
                    f"launch: the launch file or its environment says {name} {launched}, but the run's configuration "
                    f"{value} ({option}); only the configuration should say it"
                )
        if self.dynamo is not None:
            raise UserError(
                f"launch: the launch file or its environment says dynamo_backend {self.dynamo}; take it out, as from "
                "accelerate's default_config.yaml, and set train.compile in the run's configuration"
            )
        if precision == "fp16" and self.on_cpu:
            raise UserError("train.precision fp16 needs a GPU; use bf16 or no")
        if precision == "fp16" and self.engine != "ddp":
            raise UserError(f"train.precision fp16 does not work with {self.engine}; use bf16 or no")

    def init_accelerator(self, precision: str, plan: BatchPlan, clip_norm: float) -> Accelerator:
        """The accelerator, with the process group of ranks that have met.

        The training step does its own accumulation: it needs the label counts of all micro-batches before the first
        backward pass.

        Raises:
            UserError: the processes or the engine differ from the launch.
        """
        _forget(os.environ)
        forget_earlier_run()
        handlers: list = [DistributedDataParallelKwargs(broadcast_buffers=False)]  # the step keeps buffers equal
        # Newer torch deprecates these names. 2.11 and 2.12 have no replacement of the first; DeepSpeed uses the others.
        for deprecated in ("`broadcast_buffers`", r"`torch\.distributed\.(all_gather_into|reduce_scatter)_tensor`"):
            warnings.filterwarnings("ignore", message=f"{deprecated} is deprecated", category=FutureWarning)
        if self.engine == "zero":
            if self.on_cpu:  # without an explicit backend, accelerate counts one process
                handlers.append(InitProcessGroupKwargs(backend="gloo"))
                skip_shm_compilation()
            config = deepspeed_config(self.zero, self.on_cpu, precision, plan, clip_norm)
            plugin = DeepSpeedPlugin(hf_ds_config=config, zero3_init_flag=False)
            accelerator = Accelerator(mixed_precision="no", deepspeed_plugin=plugin, kwargs_handlers=handlers)
        else:
            accelerator = Accelerator(cpu=self.on_cpu, mixed_precision=precision, kwargs_handlers=handlers)
        has_deepspeed = accelerator.distributed_type == DistributedType.DEEPSPEED
        if accelerator.num_processes != self.processes or has_deepspeed != (self.engine == "zero"):
            raise UserError(
                f"launch: {self.processes} processes with {self.engine} were asked for, but "
                f"{accelerator.num_processes} came together as {accelerator.distributed_type.value}; "
                "start them with a file of launch/accelerate/"
            )
        return accelerator


def setup(
    precision: str, global_batch: int, micro_batch: int | None, clip_norm: float
) -> tuple[Launch, BatchPlan, Accelerator, Heartbeat]:
    """The launch, the batch plan, the accelerator and the heartbeat of this process.

    Raises:
        UserError: it would train differently than launched.
        MachineError: a rank did not join.
    """
    environ = os.environ | _forgotten
    launch = Launch.from_environment(environ, torch.cuda.device_count(), torch.backends.mps.is_available())
    require_device(environ)
    plan = BatchPlan.resolve(global_batch, micro_batch, launch.processes)
    precision = launch.resolve(precision)
    launch.check(precision, plan, clip_norm)
    if not launch.on_cpu and torch.cuda.is_available():
        # TF32 for the remaining float32, and the fastest convolutions: without them a step takes twice as long.
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    # The heartbeat starts before torch joins the ranks; otherwise they would wait for one that is lost meanwhile.
    store = wait_for_ranks(environ, should_stop=preempted)
    heartbeat = None if store is None else Heartbeat(int(environ["RANK"]), launch.processes, store=store)
    accelerator = launch.init_accelerator(precision, plan, clip_norm)
    return launch, plan, accelerator, heartbeat or Heartbeat(accelerator.process_index, accelerator.num_processes)


_forgotten: dict[str, str] = {}


def _forget(environ: MutableMapping[str, str]) -> None:
    """Remove from the environment what was read here and accelerate would act on as well.

    It is kept, since a second run in this process has the same launch.
    """
    decided = ("ACCELERATE_CONFIG_DS_FIELDS", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_GRADIENT_CLIPPING")
    # accelerate cannot shard on CPUs. torch can, and so shards on all devices (see fsdp2.py).
    for name in [*decided, "ACCELERATE_USE_FSDP", *(name for name in environ if name.startswith(PREFIX))]:
        if name in environ:
            _forgotten[name] = environ.pop(name)
