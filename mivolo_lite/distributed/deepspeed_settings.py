"""DeepSpeed's settings in the environment or in a JSON file, and the configuration made from them."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.distributed.environment import flag, read_number
from mivolo_lite.errors import UserError

PREFIX = "ACCELERATE_DEEPSPEED_"
"""Prefix of accelerate's variables with DeepSpeed's settings."""
_OFFLOADED = ("optimizer", "param")
_BUCKET = 50_000_000
"""Values that ZeRO reduces at once; its default, ten times as many, allocates 2 GB."""
_PERSISTENT = 10_000
"""Parameters of up to this many values stay full on every rank under ZeRO-3."""


def check_deepspeed(environ: Mapping[str, str]) -> None:
    """Raise UserError if accelerate would train without DeepSpeed, or if that is not installed."""
    if flag(environ, "ACCELERATE_USE_CPU"):
        raise UserError(
            "launch: with ACCELERATE_USE_CPU, accelerate would train without the DeepSpeed that was asked for; "
            "unset it (DeepSpeed finds out by itself that there is no GPU)"
        )
    absent = [name for name in ("deepspeed", "transformers") if find_spec(name) is None]
    if absent:
        raise UserError(f'launch: DeepSpeed needs {" and ".join(absent)}; pip install "mivolo-lite[deepspeed]"')


def read_settings(environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """DeepSpeed's settings, and those among them that belong to the run's configuration."""
    path = environ.get(f"{PREFIX}CONFIG_FILE", "none")
    if path == "none":
        settings = {"zero_optimization": _zero_stage(environ)}
    else:
        try:
            settings = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"launch: deepspeed_config_file {path}: {error}") from None
        if not isinstance(settings, dict):
            raise UserError(f"launch: deepspeed_config_file {path}: holds no settings in braces")
    _check_zero_stage(_section(settings, "zero_optimization"))
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
        if _section(settings, precision).get("enabled") is True:
            stated["precision"] = precision
    return settings, stated


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of DeepSpeed's settings, empty if it is missing. Raises UserError if it is not a mapping."""
    section = settings.get(name, {})
    if not isinstance(section, dict):
        raise UserError(f"launch: DeepSpeed's {name} is {section!r}; it takes settings in braces")
    return section


def _zero_stage(environ: Mapping[str, str]) -> dict[str, Any]:
    """DeepSpeed's ``zero_optimization`` for a launch file without a JSON file."""
    zero: dict[str, Any] = {"stage": read_number(environ, f"{PREFIX}ZERO_STAGE", int, "2")}
    for target in _OFFLOADED:
        device = environ.get(f"{PREFIX}OFFLOAD_{target.upper()}_DEVICE", "none")
        if device != "none":
            zero[f"offload_{target}"] = {"device": device}
    return zero


def _check_zero_stage(zero: Mapping[str, Any]) -> None:
    """Raise UserError for a stage, or a device for offloading, that the engine does not have."""
    if zero.get("stage") not in (1, 2, 3):
        raise UserError(f"launch: DeepSpeed's zero_stage is {zero.get('stage')!r}; use 1, 2 or 3, or ddp.yaml for none")
    for target in _OFFLOADED:
        device = _section(zero, f"offload_{target}").get("device", "none")
        if device not in ("none", "cpu") or (target == "param" and device == "cpu" and zero["stage"] != 3):
            raise UserError(
                f"launch: offload_{target}_device {device} is not known for ZeRO-{zero['stage']}; use cpu or none"
            )


def deepspeed_config(
    settings: Mapping[str, Any], on_cpu: bool, precision: str, plan: BatchPlan, clip_norm: float
) -> dict[str, Any]:
    """DeepSpeed's whole configuration, from the settings of the launch file and of the run.

    Mixed precision is torch's autocast with float32 weights, as in the other engines: with bf16 weights, DeepSpeed's
    default, batch statistics and EMA weights would lose small changes to rounding.
    """
    zero = {
        "stage3_gather_16bit_weights_on_model_save": True,
        "reduce_bucket_size": _BUCKET,
        "allgather_bucket_size": _BUCKET,
        "stage3_param_persistence_threshold": _PERSISTENT,
    }
    return {
        # On CPUs torch's own AdamW is on the host already; DeepSpeed's would have to be compiled.
        "zero_force_ds_cpu_optimizer": not on_cpu,
        **settings,
        "zero_optimization": zero | settings["zero_optimization"],
        "train_batch_size": plan.global_batch,
        "train_micro_batch_size_per_gpu": plan.micro_batch,
        "gradient_accumulation_steps": plan.accumulation,
        "gradient_clipping": clip_norm,
        "timers": {"throughput": {"enabled": False}},  # it would wait for the GPU twice in each step
        "fp16": {"enabled": False},
        "bf16": {"enabled": False},
        # The list is of layers whose gradients would be reduced in bf16.
        "torch_autocast": {"enabled": precision != "no", "dtype": "bfloat16", "lower_precision_safe_modules": []},
    }


def skip_shm_compilation() -> None:
    """Keep DeepSpeed on CPUs from compiling a shared-memory backend, which only its inference uses.

    That takes from half a minute to several, and a job killed meanwhile leaves a lock that blocks all later ones.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
