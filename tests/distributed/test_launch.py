"""A launch trains as it was asked for, or stops within seconds with one line that says why."""

import json

import pytest
import torch

from mivolo_lite.cli import main
from mivolo_lite.distributed.accelerator import join_processes
from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.distributed.deepspeed_settings import deepspeed_config
from mivolo_lite.distributed.launch import Launch, setup
from mivolo_lite.errors import MachineError, UserError
from tests.training.forked_ranks import run_launched
from tests.training.launching import TRAIN, accelerate, arguments, finish, free_port, torchrun

TWO = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
DEEPSPEED = TWO | {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}
FSDP = TWO | {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
PLAN = BatchPlan(global_batch=32, micro_batch=8, world_size=2, accumulation=2)


def check(environment, gpus=0, precision="no"):
    launch = Launch.from_environment(environment, gpus)
    launch.check(precision, PLAN, clip_norm=5.0)
    return launch


@pytest.mark.parametrize(
    "environment, gpus, engine, processes, on_cpu",
    [
        ({}, 0, "ddp", 1, True),
        ({}, 1, "ddp", 1, False),
        (TWO, 0, "ddp", 2, True),
        (TWO, 8, "ddp", 2, False),
        (TWO | {"ACCELERATE_USE_CPU": "true"}, 8, "ddp", 2, True),
        ({"OMPI_COMM_WORLD_SIZE": "4", "MASTER_ADDR": "n1"}, 0, "ddp", 4, True),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 0, "ddp", 4, True),
        (DEEPSPEED, 0, "zero", 2, True),
        (DEEPSPEED, 2, "zero", 2, False),
        (FSDP, 0, "fsdp2", 2, True),
        (FSDP, 2, "fsdp2", 2, False),
    ],
)
def test_what_was_asked_for(environment, gpus, engine, processes, on_cpu):
    launch = check(environment, gpus)
    assert (launch.engine, launch.processes, launch.on_cpu) == (engine, processes, on_cpu)


@pytest.mark.parametrize(
    "environment, gpus, message",
    [
        (DEEPSPEED | {"ACCELERATE_USE_CPU": "true"}, 0, "ACCELERATE_USE_CPU"),
        ({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}, 0, "started alone"),
        ({"MASTER_ADDR": "n1", "MASTER_PORT": "29500"}, 0, "unset MASTER_ADDR"),
        ({"WORLD_SIZE": ""}, 0, "WORLD_SIZE is ''"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, 0, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "0"}, 0, "WORLD_SIZE is '0'"),
        ({"WORLD_SIZE": "4", "RANK": "0"}, 0, "WORLD_SIZE is 4, but MASTER_ADDR not set"),
        ({"WORLD_SIZE": "4", "MASTER_ADDR": "n1"}, 0, "WORLD_SIZE is 4, but RANK not set"),
        ({"WORLD_SIZE": "1", "LOCAL_RANK": "0"}, 0, "WORLD_SIZE is 1, but RANK and MASTER_ADDR not set"),
        ({"LOCAL_RANK": "0"}, 0, "LOCAL_RANK is set, but not WORLD_SIZE"),
        ({"RANK": "1"}, 0, "RANK is set, but not WORLD_SIZE"),
        (TWO | {"RANK": "2"}, 0, "RANK is 2, but there are 2 processes"),
        (TWO | {"LOCAL_RANK": ""}, 0, "LOCAL_RANK is ''"),
        (TWO | {"MASTER_PORT": "http"}, 0, "MASTER_PORT is 'http'"),
        (TWO | {"MASTER_PORT": "99999"}, 0, "MASTER_PORT is 99999"),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, 0, "MASTER_ADDR is not set"),
        ({"ACCELERATE_DYNAMO_BACKEND": "EAGER"}, 0, "dynamo_backend eager"),
        ({"ACCELERATE_MIXED_PRECISION": "fp8"}, 0, "mixed_precision fp8"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "two"}, 0, "GRADIENT_ACCUMULATION_STEPS is 'two'"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, 0, "WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "2", "ACCELERATE_USE_DEEPSPEED": "true"}, 0, "LOCAL_RANK"),
        (DEEPSPEED | {"ACCELERATE_USE_FSDP": "true"}, 0, "DEEPSPEED and FSDP"),
        (TWO | {"ACCELERATE_USE_MEGATRON_LM": "true"}, 2, "MEGATRON_LM"),
        (FSDP | {"FSDP_VERSION": "1"}, 2, "fsdp_version"),
        (FSDP | {"FSDP_OFFLOAD_PARAMS": "true"}, 2, "fsdp_offload_params"),
        (DEEPSPEED | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"}, 0, "zero_stage"),
        (DEEPSPEED | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "two"}, 0, "ZERO_STAGE is 'two'"),
        (DEEPSPEED | {"ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "nvme"}, 0, "offload_optimizer_device"),
        (DEEPSPEED | {"ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "cpu"}, 0, "offload_param_device"),
        (DEEPSPEED | {"ACCELERATE_MIXED_PRECISION": "bf16"}, 0, "train.precision"),
        (DEEPSPEED | {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, 0, "accumulation 4"),
        (DEEPSPEED | {"ACCELERATE_GRADIENT_CLIPPING": "1.0"}, 0, "optim.clip_norm"),
        (TWO | {"ACCELERATE_MIXED_PRECISION": "fp16"}, 2, "train.precision"),
    ],
)
def test_another_launch_than_asked_for_is_an_error(environment, gpus, message):
    with pytest.raises(UserError, match=message):
        check(environment, gpus)


@pytest.mark.parametrize(
    "environment, error, message",
    [
        ({"WORLD_SIZE": "2"}, UserError, "RANK and MASTER_ADDR not set"),
        ({"WORLD_SIZE": "two"}, UserError, "WORLD_SIZE is 'two'"),
        ({"ACCELERATE_MIXED_PRECISION": "fp8"}, UserError, "mixed_precision fp8"),
        ({"ACCELERATE_TORCH_DEVICE": "hpu"}, UserError, "ACCELERATE_TORCH_DEVICE is hpu: not usable here"),
        ({"ACCELERATE_TORCH_DEVICE": ""}, UserError, "ACCELERATE_TORCH_DEVICE is : not usable here"),
        (TWO | {"MIVOLO_RENDEZVOUS_TIMEOUT": "0.5"}, MachineError, "rank 1 of 2 did not come"),
    ],
)
@pytest.mark.parametrize("join", [join_processes, lambda: setup("no", 4, None, 0.0)])
def test_ranks_that_evaluate_or_train_are_launched_whole(join, environment, error, message, monkeypatch):
    for name, value in (environment | {"MASTER_PORT": str(free_port())}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(error, match=message):
        join()


def test_apples_gpu_trains_in_one_process():
    assert not Launch.from_environment({}, 0, mps=True).on_cpu
    assert Launch.from_environment({}, 0, mps=True).resolve("auto") == "no"
    assert Launch.from_environment(TWO | {"ACCELERATE_USE_CPU": "true"}, 0, mps=True).on_cpu
    for environment, words in ((TWO, "2 processes with ddp"), (FSDP, "2 processes with fsdp2")):
        with pytest.raises(UserError, match=f"^launch: {words} were asked for, but torch trains on Apple's GPU in one"):
            Launch.from_environment(environment, 0, mps=True)


def test_what_a_launch_file_repeats_is_no_error():
    said = {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "2"}
    check(DEEPSPEED | said | {"ACCELERATE_GRADIENT_CLIPPING": "5.0"}, precision="bf16")


@pytest.mark.parametrize(
    "environment, gpus, has_bf16, resolved",
    [
        ({}, 0, True, "no"),
        ({}, 1, True, "bf16"),
        ({}, 1, False, "no"),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, 1, True, "fp16"),
    ],
)
def test_auto_is_the_launch_files_precision_or_what_the_device_is_fastest_in(
    environment, gpus, has_bf16, resolved, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    launch = Launch.from_environment(environment, gpus)
    assert launch.resolve("auto") == resolved and launch.resolve("bf16") == "bf16"


def test_a_precision_of_no_in_the_launch_file_disagrees_with_bf16():
    fields = {"ACCELERATE_CONFIG_DS_FIELDS": "zero_stage,mixed_precision", "ACCELERATE_MIXED_PRECISION": "no"}
    with pytest.raises(UserError, match="train.precision"):
        check(DEEPSPEED | fields, precision="bf16")


@pytest.mark.parametrize("engine, gpus", [(TWO, 0), (DEEPSPEED, 2), (FSDP, 2)])
def test_fp16_where_it_does_not_work_is_an_error(engine, gpus):
    with pytest.raises(UserError, match="fp16"):
        check(engine, gpus, precision="fp16")


def json_file(path, **settings) -> str:
    """DeepSpeed's own settings, of stage 2 where they do not say otherwise."""
    path.write_text(json.dumps({"zero_optimization": {"stage": 2}} | settings))
    return str(path)


@pytest.mark.parametrize(
    "settings, precision, message",
    [
        ({"bf16": {"enabled": True}}, "no", "precision bf16"),
        ({"bf16": {"enabled": True}}, "fp16", "precision bf16"),
        ({"gradient_accumulation_steps": 4}, "no", "accumulation 4"),
        ({"train_micro_batch_size_per_gpu": 16}, "no", "micro_batch 16"),
        ({"train_batch_size": 16}, "no", "global_batch 16"),
        ({"gradient_clipping": 1.0}, "no", "clip_norm 1.0"),
        ({"optimizer": {"type": "Adam"}}, "no", "optimizer"),
        ({"zero_optimization": {}}, "no", "zero_stage"),
        ({"zero_optimization": True}, "no", "zero_optimization is True"),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": "cpu"}}, "no", "offload_optimizer is 'cpu'"),
        ({"bf16": True}, "no", "bf16 is True"),
    ],
)
def test_a_json_file_that_disagrees_is_an_error(settings, precision, message, tmp_path):
    path = json_file(tmp_path / "ds.json", **settings)
    with pytest.raises(UserError, match=message):
        check(DEEPSPEED | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": path}, precision=precision)


def test_a_json_file_of_something_else_is_an_error(tmp_path):
    (tmp_path / "ds.json").write_text("[]")
    with pytest.raises(UserError, match="no settings in braces"):
        check(DEEPSPEED | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": str(tmp_path / "ds.json")})


def test_the_configuration_reaches_deepspeed_also_past_auto_in_json(tmp_path):
    path = tmp_path / "ds.json"
    auto = {"bf16": {"enabled": "auto"}, "train_micro_batch_size_per_gpu": "auto", "gradient_clipping": "auto"}
    path.write_text(json.dumps({"zero_optimization": {"stage": 3, "reduce_bucket_size": 7}, "prescale": 1} | auto))
    launch = check(DEEPSPEED | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": str(path)}, precision="bf16")
    settings = deepspeed_config(launch.zero, launch.on_cpu, "bf16", PLAN, clip_norm=5.0)
    assert settings["torch_autocast"]["enabled"] and not settings["bf16"]["enabled"]
    assert settings["train_micro_batch_size_per_gpu"] == 8 and settings["gradient_accumulation_steps"] == 2
    assert settings["train_batch_size"] == 32 and settings["gradient_clipping"] == 5.0
    assert settings["zero_optimization"]["stage"] == 3 and settings["zero_optimization"]["reduce_bucket_size"] == 7
    assert settings["prescale"] == 1


def launch_file(path, kind, **more):
    path.write_text(
        json.dumps(
            {
                "compute_environment": "LOCAL_MACHINE",
                "distributed_type": kind,
                "num_machines": 1,
                "num_processes": 2,
                "machine_rank": 0,
                **more,
            }
        )
    )
    return path


def deepspeed_file(path, **fields):
    return launch_file(path, "DEEPSPEED", deepspeed_config=fields)


@pytest.mark.slow
@pytest.mark.parametrize(
    "file, options, environment, message",
    [
        ("zero2", [], {"ACCELERATE_USE_CPU": "true"}, "ACCELERATE_USE_CPU"),
        ("zero2", ["--cpu"], {}, "started alone"),
        (lambda tmp: launch_file(tmp / "f.json", "MULTI_CPU"), [], {}, "started alone"),
        (lambda tmp: launch_file(tmp / "f.json", "MULTI_GPU", mixed_precision="bf16"), [], {}, "train.precision"),
        (
            lambda tmp: deepspeed_file(tmp / "f.json", zero_stage=2, gradient_accumulation_steps=4),
            [],
            {},
            "accumulation 4",
        ),
        (
            lambda tmp: deepspeed_file(tmp / "f.json", zero_stage=2),
            ["--mixed_precision", "bf16"],
            {},
            "train.precision",
        ),
        (
            lambda tmp: deepspeed_file(
                tmp / "f.json", deepspeed_config_file=json_file(tmp / "ds.json", bf16={"enabled": True})
            ),
            [],
            {},
            "train.precision",
        ),
        (
            lambda tmp: deepspeed_file(
                tmp / "f.json", deepspeed_config_file=json_file(tmp / "ds.json", gradient_accumulation_steps=4)
            ),
            [],
            {},
            "accumulation 4",
        ),
        ("ddp", [], {}, "on GPUs alone"),
    ],
    ids=[
        "use-cpu",
        "cpu-flag",
        "multi-cpu",
        "precision",
        "accumulation",
        "precision-flag",
        "json-precision",
        "json-accumulation",
        "sync-batchnorm",
    ],
)
def test_a_launch_that_would_fall_back_stops(file, options, environment, message, tmp_path):
    """The run's data does not exist: whoever gets as far as to look for it was not stopped by the launch."""
    data = {"run": tmp_path / "run", "data.train": tmp_path / "nothing", "data.val": tmp_path / "nothing"}
    words = ["train", *arguments(data | {"train.precision": "no", "train.sync_batchnorm": message == "on GPUs alone"})]
    file = file if isinstance(file, str) else file(tmp_path)
    codes, output = run_launched(file, 2, main, (words,), tmp_path, 200, options=options, **environment)
    said = [line for line in output.splitlines() if line.startswith("mivolo-lite: ")]
    assert any(codes) and said and all(message in line for line in said), output


def test_an_empty_dynamo_backend_is_none():
    check({"ACCELERATE_DYNAMO_BACKEND": "NO"})


def test_a_second_run_in_one_process_chooses_its_precision(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    for precision in ("no", "bf16"):
        _, _, accelerator, heartbeat = setup(precision, global_batch=8, micro_batch=None, clip_norm=0.0)
        heartbeat.stop()
        assert accelerator.mixed_precision == precision


def test_what_was_taken_out_of_the_environment_counts_for_a_second_run(monkeypatch):
    monkeypatch.setattr("mivolo_lite.distributed.launch._forgotten", {})
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setenv("ACCELERATE_GRADIENT_CLIPPING", "1.0")
    setup("no", global_batch=8, micro_batch=None, clip_norm=1.0)[-1].stop()
    with pytest.raises(UserError, match="clip_norm 1.0"):
        setup("no", global_batch=8, micro_batch=None, clip_norm=2.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch, engine",
    [
        (lambda *words: torchrun(2, *words), "DDP"),
        (lambda *words: accelerate("zero3", *words, processes=2), "DeepSpeed ZeRO-3"),
    ],
    ids=["torchrun", "zero3"],
)
def test_launched_processes_work_together(launch, engine, people, tmp_path):
    options = {"model.backbone": "test_vit", "data.image_size": 32, "data.workers": 0, "optim.global_batch": 20}
    data = {"run": tmp_path / "run", "data.train": people / "train", "data.val": people / "val", "optim.epochs": 1}
    code, output = finish(launch(TRAIN, *arguments(options | data)))
    assert code == 0, output
    assert f"20 = 10 x 2 processes x 1 micro-batches on cpu, {engine}" in output
    assert "is deprecated" not in output  # torch renames what DeepSpeed calls; no user can mend it
    assert (tmp_path / "run" / "best" / "model.safetensors").exists()
