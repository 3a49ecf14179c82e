"""The launch that the environment describes, and the process group made from it.

Accelerate and DeepSpeed fall back in silence: a launch for DeepSpeed trains without it, a launch of two processes
trains one, a precision in one file overrules that of another. Here each of these is an error before any data is read.
"""

import json
import os
import warnings
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DeepSpeedPlugin,
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
)

from mivolo_lite.distributed.accelerator import forget_earlier_run
from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.distributed.heartbeat import Heartbeat
from mivolo_lite.distributed.preemption import preempted
from mivolo_lite.distributed.rendezvous import wait_for_ranks
from mivolo_lite.errors import UserError

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_DEEPSPEED = "ACCELERATE_DEEPSPEED_"
_OFFLOADED = ("optimizer", "param")
_BUCKET = 50_000_000
"""Values that ZeRO reduces at once; its own default, ten times as many, allocates 2 GB."""
_PERSISTENT = 10_000
"""Parameters up to this size stay full on every rank under ZeRO-3."""


@dataclass(frozen=True)
class Launch:
    """Which engine is to train, in how many processes, where.

    Attributes:
        engine: ``ddp`` (also for one process), ``zero`` or ``fsdp2``.
        processes: over all machines.
        local_processes: on this machine.
        on_cpu: whether to train on CPUs, with gloo.
        zero: DeepSpeed's settings that the launcher chose: the stage, offloading, whatever a JSON file says.
        precision, accumulation, clip_norm, micro_batch, global_batch, dynamo: what the launcher says of the run, where
            it does.
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
        """Read what ``accelerate launch``, ``torchrun``, ``mpirun`` and the like leave in the environment.

        Args:
            environ: the environment.
            gpus: NVIDIA's, or others that torch calls so, that this process sees.
            mps: whether there is Apple's.

        Raises:
            UserError: it would train differently than launched.
        """
        on_cpu = (gpus == 0 and not mps) or _flag(environ, "ACCELERATE_USE_CPU")
        engine, processes = _engine(environ), _processes(environ)
        if not on_cpu and not gpus and (processes > 1 or engine != "ddp"):
            raise UserError(
                f"launch: {processes} processes with {engine} were asked for, but torch trains on Apple's GPU in one "
                "process and without an engine; start one, or set ACCELERATE_USE_CPU=true to train on CPUs"
            )
        stated = _stated_settings(environ) | {"local_processes": int(environ.get("LOCAL_WORLD_SIZE") or 1)}
        if engine != "zero":
            return cls(engine, processes, on_cpu, {}, **stated)
        _check_deepspeed(environ)
        zero, stated_in_json = _deepspeed_settings(environ)
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
        """Raise UserError where an engine gathers parameters in the midst of a forward pass, out of torch's sight."""
        if self.engine == "fsdp2" or (self.engine == "zero" and self.zero["zero_optimization"]["stage"] == 3):
            raise UserError(
                f"train.compile does not work with {self}, which gathers parameters in the midst of the forward pass; "
                "set it to false, or use ddp or zero2"
            )

    def resolve(self, precision: str) -> str:
        """What ``auto`` means here: the launch file's precision, or the fastest that the device has."""
        if precision != "auto":
            return precision
        has_bf16 = not self.on_cpu and torch.cuda.is_bf16_supported(including_emulation=False)
        return self.precision or ("bf16" if has_bf16 else "no")

    def check(self, precision: str, plan: BatchPlan, clip_norm: float) -> None:
        """Raise UserError where the launcher contradicts the run's configuration, or an engine does not support it."""
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

        Accumulation is the training step's own business: it needs the label counts of all micro-batches before the
        first backward pass.

        Raises:
            UserError: the processes or the engine differ from what was launched.
        """
        _forget(os.environ)
        forget_earlier_run()
        handlers: list = [DistributedDataParallelKwargs(broadcast_buffers=False)]  # the step keeps buffers equal
        # new names of torch's: of the first, 2.11 and 2.12 have the old one alone; DeepSpeed uses the others, often
        for renamed in ("`broadcast_buffers`", r"`torch\.distributed\.(all_gather_into|reduce_scatter)_tensor`"):
            warnings.filterwarnings("ignore", message=f"{renamed} is deprecated", category=FutureWarning)
        if self.engine == "zero":
            if self.on_cpu:  # without a backend of its own, accelerate counts one process
                handlers.append(InitProcessGroupKwargs(backend="gloo"))
                _skip_shm_compilation()
            plugin = DeepSpeedPlugin(hf_ds_config=self._deepspeed(precision, plan, clip_norm), zero3_init_flag=False)
            accelerator = Accelerator(mixed_precision="no", deepspeed_plugin=plugin, kwargs_handlers=handlers)
        else:
            accelerator = Accelerator(cpu=self.on_cpu, mixed_precision=precision, kwargs_handlers=handlers)
        started = accelerator.distributed_type == DistributedType.DEEPSPEED
        if accelerator.num_processes != self.processes or started != (self.engine == "zero"):
            raise UserError(
                f"launch: {self.processes} processes with {self.engine} were asked for, but "
                f"{accelerator.num_processes} came together as {accelerator.distributed_type.value}; "
                "start them with a file of launch/accelerate/"
            )
        return accelerator

    def _deepspeed(self, precision: str, plan: BatchPlan, clip_norm: float) -> dict[str, Any]:
        """DeepSpeed's whole configuration.

        Mixed precision is torch's autocast with float32 weights, as in the other engines: with bf16 weights,
        DeepSpeed's own way, batch statistics and EMA weights would lose their small changes to rounding.
        """
        zero = {
            "stage3_gather_16bit_weights_on_model_save": True,
            "reduce_bucket_size": _BUCKET,
            "allgather_bucket_size": _BUCKET,
            "stage3_param_persistence_threshold": _PERSISTENT,
        }
        return {
            # On CPUs torch's own AdamW is on the host already; DeepSpeed's would be compiled first.
            "zero_force_ds_cpu_optimizer": not self.on_cpu,
            **self.zero,
            "zero_optimization": zero | self.zero["zero_optimization"],
            "train_batch_size": plan.global_batch,
            "train_micro_batch_size_per_gpu": plan.micro_batch,
            "gradient_accumulation_steps": plan.accumulation,
            "gradient_clipping": clip_norm,
            "timers": {"throughput": {"enabled": False}},  # it would wait for the GPU twice a step
            "fp16": {"enabled": False},
            "bf16": {"enabled": False},
            # The list names layers whose gradients would travel in bf16.
            "torch_autocast": {"enabled": precision != "no", "dtype": "bfloat16", "lower_precision_safe_modules": []},
        }


def setup(
    precision: str, global_batch: int, micro_batch: int | None, clip_norm: float
) -> tuple[Launch, BatchPlan, Accelerator, Heartbeat]:
    """The launch, the batch plan, the accelerator and the heartbeat of this process.

    Raises:
        UserError: it would train differently than launched.
        MachineError: a rank did not come.
    """
    environ = os.environ | _forgotten
    launch = Launch.from_environment(environ, torch.cuda.device_count(), torch.backends.mps.is_available())
    plan = BatchPlan.resolve(global_batch, micro_batch, launch.processes)
    precision = launch.resolve(precision)
    launch.check(precision, plan, clip_norm)
    if not launch.on_cpu and torch.cuda.is_available():
        # TF32 for what stays float32, and the fastest convolutions: without them a step takes twice as long.
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    # The ranks look after each other before torch joins them: one that is lost meanwhile would be waited for.
    store = None if torch.distributed.is_initialized() else wait_for_ranks(environ, should_stop=preempted)
    early = store and Heartbeat(int(environ["RANK"]), launch.processes, store=store)
    accelerator = launch.init_accelerator(precision, plan, clip_norm)
    return launch, plan, accelerator, early or Heartbeat(accelerator.process_index, accelerator.num_processes)


_forgotten: dict[str, str] = {}


def _forget(environ: MutableMapping[str, str]) -> None:
    """Take out of the environment what was read here, and what accelerate would act upon as well.

    A second run in this process is launched as the first was, so it is kept.
    """
    decided = ("ACCELERATE_CONFIG_DS_FIELDS", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_GRADIENT_CLIPPING")
    # accelerate cannot shard on CPUs; torch itself can, and does it everywhere (see engine.py)
    for name in [*decided, "ACCELERATE_USE_FSDP", *(name for name in environ if name.startswith(_DEEPSPEED))]:
        if name in environ:
            _forgotten[name] = environ.pop(name)


def _skip_shm_compilation() -> None:
    """Keep DeepSpeed on CPUs from compiling a way to communicate in shared memory, which only its inference uses.

    That takes half a minute to several ones, and a job killed meanwhile leaves a lock that all later ones wait for.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _flag(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").lower() in ("1", "true", "yes", "y", "t", "on")


def _processes(environ: Mapping[str, str]) -> int:
    _check_numbers(environ)
    sizes = [int(environ[name]) for name in _SIZES if name in environ]
    if not sizes:
        _check_alone(environ)
        return 1
    if "WORLD_SIZE" in environ:
        _check_rank(environ, sizes[0])
    return sizes[0]


def _check_alone(environ: Mapping[str, str]) -> None:
    """Raise UserError where this process was started alone, though several were asked for."""
    for name in ("RANK", "LOCAL_RANK"):
        if name in environ:
            raise UserError(
                f"launch: {name} is set, but not WORLD_SIZE; unset it for one process, or start several with a file of "
                "launch/accelerate/"
            )
    if "MASTER_ADDR" in environ:  # accelerate sets it where it means to start several
        raise UserError(
            "launch: several processes were asked for (MASTER_ADDR is set), but this one was started alone: "
            "accelerate does so with --cpu and with distributed_type MULTI_CPU or NO; start them with a file of "
            "launch/accelerate/, without --cpu; or unset MASTER_ADDR for one process"
        )
    if int(environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        raise UserError(
            "launch: srun started several tasks, but none was told its rank (WORLD_SIZE is not set); "
            "use launch/slurm/train.sbatch"
        )


def _check_numbers(environ: Mapping[str, str]) -> None:
    """Raise UserError where a variable that numbers the ranks has no number."""
    for name in (*_SIZES, "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        text = environ.get(name, "0")
        if not (text.isdecimal() and text.isascii()) or (name in _SIZES and text == "0" and name in environ):
            raise UserError(
                f"launch: {name} is {text!r} in the environment, no number of a rank; unset it, or start the processes "
                "with a file of launch/accelerate/"
            )


def _check_rank(environ: Mapping[str, str], processes: int) -> None:
    """Raise UserError where a rank's own number, or the place where the ranks meet, is missing or impossible."""
    joins = processes > 1 or "LOCAL_RANK" in environ
    missing = [name for name in ("RANK", "MASTER_ADDR") if joins and not environ.get(name)]
    if missing:
        raise UserError(
            f"launch: WORLD_SIZE is {processes}, but {' and '.join(missing)} not set; unset it for one process, or "
            "start several with a file of launch/accelerate/"
        )
    local = int(environ.get("LOCAL_WORLD_SIZE", processes))
    for name, count in (("RANK", processes), ("LOCAL_RANK", local)):
        if int(environ.get(name, 0)) >= count:
            raise UserError(f"launch: {name} is {environ[name]}, but there are {count} processes, numbered from 0")


def _engine(environ: Mapping[str, str]) -> str:
    requested = [
        name
        for name in ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG", "SAGEMAKER")
        if _flag(environ, f"ACCELERATE_USE_{name}")
    ]
    if not requested:
        return "ddp"
    if requested not in (["DEEPSPEED"], ["FSDP"]):
        raise UserError(
            f"launch: {' and '.join(requested)} cannot train here; use one process, DDP, DeepSpeed or FSDP2: a file of "
            "launch/accelerate/"
        )
    if "LOCAL_RANK" not in environ:
        raise UserError(
            f"launch: ACCELERATE_USE_{requested[0]} is set, but not LOCAL_RANK, without which accelerate ignores it; "
            "start the processes with accelerate launch"
        )
    if requested == ["DEEPSPEED"]:
        return "zero"
    if environ.get("FSDP_VERSION", "1") != "2":
        raise UserError("launch: fsdp_version must be 2; use launch/accelerate/fsdp2.yaml")
    offload = _flag(environ, "FSDP_OFFLOAD_PARAMS")
    if offload or _flag(environ, "FSDP_ACTIVATION_CHECKPOINTING"):
        name = "fsdp_offload_params" if offload else "fsdp_activation_checkpointing"
        raise UserError(f"launch: {name} is not known here; leave it out, or use launch/accelerate/zero3_offload.yaml")
    return "fsdp2"


def _check_deepspeed(environ: Mapping[str, str]) -> None:
    if _flag(environ, "ACCELERATE_USE_CPU"):
        raise UserError(
            "launch: with ACCELERATE_USE_CPU, accelerate would train without the DeepSpeed that was asked for; "
            "unset it (DeepSpeed finds out by itself that there is no GPU)"
        )
    absent = [name for name in ("deepspeed", "transformers") if find_spec(name) is None]
    if absent:
        raise UserError(f'launch: DeepSpeed needs {" and ".join(absent)}; pip install "mivolo-lite[deepspeed]"')


def _stated_settings(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the launch file says about settings that the run's configuration decides."""
    stated: dict[str, Any] = {}
    precision = environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    # Accelerate writes `no` where nobody said anything, unless it keeps a list of what the file does say.
    if precision != "no" or "mixed_precision" in environ.get("ACCELERATE_CONFIG_DS_FIELDS", "").split(","):
        stated["precision"] = precision
    dynamo = environ.get("ACCELERATE_DYNAMO_BACKEND", "NO").lower()
    if dynamo not in ("no", ""):
        stated["dynamo"] = dynamo
    for name, key, kind in (
        ("accumulation", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS", int),
        ("clip_norm", "ACCELERATE_GRADIENT_CLIPPING", float),
    ):
        if environ.get(key, "auto") not in ("auto", "none"):
            stated[name] = kind(environ[key])
    return stated


def _deepspeed_settings(environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """DeepSpeed's settings, and what they say about settings that the run's configuration decides."""
    path = environ.get(f"{_DEEPSPEED}CONFIG_FILE", "none")
    if path == "none":
        settings = {"zero_optimization": _zero_stage(environ)}
    else:
        try:
            settings = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"launch: deepspeed_config_file {path}: {error}") from None
    _check_zero_stage(settings.get("zero_optimization", {}))
    for section in ("optimizer", "scheduler"):
        if section in settings:
            raise UserError(f"launch: {path} has an {section!r}; the run's configuration (optim) says what it is")
    stated: dict[str, Any] = {
        name: settings[key]
        for name, key in (
            ("accumulation", "gradient_accumulation_steps"),
            ("clip_norm", "gradient_clipping"),
            ("micro_batch", "train_micro_batch_size_per_gpu"),
            ("global_batch", "train_batch_size"),
        )
        if settings.get(key, "auto") != "auto"
    }
    for precision in ("bf16", "fp16"):
        if settings.get(precision, {}).get("enabled") is True:
            stated["precision"] = precision
    return settings, stated


def _zero_stage(environ: Mapping[str, str]) -> dict[str, Any]:
    """DeepSpeed's ``zero_optimization`` of a launch file without a JSON file."""
    zero: dict[str, Any] = {"stage": int(environ.get(f"{_DEEPSPEED}ZERO_STAGE", "2"))}
    for target in _OFFLOADED:
        device = environ.get(f"{_DEEPSPEED}OFFLOAD_{target.upper()}_DEVICE", "none")
        if device != "none":
            zero[f"offload_{target}"] = {"device": device}
    return zero


def _check_zero_stage(zero: Mapping[str, Any]) -> None:
    """Raise UserError for a stage, or a device to offload to, that the engine does not have."""
    if zero.get("stage") not in (1, 2, 3):
        raise UserError(f"launch: DeepSpeed's zero_stage is {zero.get('stage')}; use 1, 2 or 3, or ddp.yaml for none")
    for target in _OFFLOADED:
        device = zero.get(f"offload_{target}", {}).get("device", "none")
        if device not in ("none", "cpu") or (target == "param" and device == "cpu" and zero["stage"] != 3):
            raise UserError(
                f"launch: offload_{target}_device {device} is not known for ZeRO-{zero['stage']}; use cpu or none"
            )
