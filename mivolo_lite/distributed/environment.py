"""Reads the launchers' environment: the engine, the number of processes, and settings of the run.

It is an error if a missing or contradictory variable would start another training than the launched one.
"""

from collections.abc import Mapping
from typing import Any

from mivolo_lite.errors import UserError

_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""The number of processes from launchers: torchrun and accelerate, and those of MPI."""

_LOCAL_SIZES = ("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")
"""The number of processes on this machine."""

_LAST_PORT = 65535
_PRECISIONS = ("no", "bf16", "fp16")


def flag(environ: Mapping[str, str], name: str) -> bool:
    """Whether a variable is true."""
    return environ.get(name, "").lower() in ("1", "true", "yes", "y", "t", "on")


def engine_of(environ: Mapping[str, str]) -> str:
    """``ddp``, ``zero`` or ``fsdp2``. Raises UserError for another engine, and for unsupported options."""
    requested = [
        name
        for name in ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG", "SAGEMAKER")
        if flag(environ, f"ACCELERATE_USE_{name}")
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
    offload = flag(environ, "FSDP_OFFLOAD_PARAMS")
    if offload or flag(environ, "FSDP_ACTIVATION_CHECKPOINTING"):
        name = "fsdp_offload_params" if offload else "fsdp_activation_checkpointing"
        raise UserError(f"launch: {name} is not known here; leave it out, or use launch/accelerate/zero3_offload.yaml")
    return "fsdp2"


def processes_of(environ: Mapping[str, str]) -> int:
    """The number of training processes. Raises UserError if this one cannot be one of them."""
    _check_numbers(environ)
    sizes = [int(environ[name]) for name in _WORLD_SIZES if name in environ]
    if not sizes:
        _check_alone(environ)
        return 1
    if "WORLD_SIZE" in environ:
        _check_rank(environ, sizes[0])
    else:
        _check_mpi(environ, sizes[0])
    return sizes[0]


def _check_mpi(environ: Mapping[str, str], processes: int) -> None:
    """Raise UserError if MPI's ranks on several machines have no address to meet at."""
    local = next((environ[name] for name in _LOCAL_SIZES if name in environ), "1")
    if str(processes) != local and not environ.get("MASTER_ADDR"):
        raise UserError(
            f"launch: MPI started {processes} processes on several machines, but MASTER_ADDR is not set; set it to the "
            "first machine's name, as by mpirun -x MASTER_ADDR=NAME, or start them with a file of launch/accelerate/"
        )


def _check_alone(environ: Mapping[str, str]) -> None:
    """Raise UserError if this process was started alone, but several were requested."""
    for name in ("RANK", "LOCAL_RANK"):
        if name in environ:
            raise UserError(
                f"launch: {name} is set, but not WORLD_SIZE; unset it for one process, or start several with a file of "
                "launch/accelerate/"
            )
    if "MASTER_ADDR" in environ:  # accelerate sets it to start several
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
    """Raise UserError if a variable of ranks or sizes is no number."""
    for name in (*_WORLD_SIZES, "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        text = environ.get(name, "1")
        if not (text.isdecimal() and text.isascii()) or name in _WORLD_SIZES and text == "0":
            raise UserError(
                f"launch: {name} is {text!r} in the environment, no number of a rank; unset it, or start the processes "
                "with a file of launch/accelerate/"
            )
    if int(environ.get("MASTER_PORT", 0)) > _LAST_PORT:
        raise UserError(f"launch: MASTER_PORT is {environ['MASTER_PORT']}, but ports end at {_LAST_PORT}; choose one")


def _check_rank(environ: Mapping[str, str], processes: int) -> None:
    """Raise UserError if this rank's number, or the address where the ranks meet, is missing or impossible."""
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


def stated_settings(environ: Mapping[str, str]) -> dict[str, Any]:
    """The launch file's settings that belong to the run's configuration."""
    stated: dict[str, Any] = {}
    precision = environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision not in _PRECISIONS:
        raise UserError(
            f"launch: the launch file or its environment says mixed_precision {precision}, which is not known here; "
            f"use {', '.join(_PRECISIONS)}"
        )
    # Accelerate writes `no` if the file has no precision, unless it lists the file's settings.
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
            stated[name] = read_number(environ, key, kind)
    return stated


def read_number(environ: Mapping[str, str], name: str, kind: type, default: str = "") -> Any:
    """A variable's number. Raises UserError if it is none."""
    text = environ.get(name, default)
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"launch: {name} is {text!r} in the environment, no number; take it out") from None
