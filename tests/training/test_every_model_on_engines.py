"""Every model takes the steps on sharded parameters that it takes in one process."""

import os

import pytest
import torch
from torch.optim import SGD

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.distributed.engine import ENGINES
from mivolo_lite.distributed.launch import Launch
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.loading.batch import Batch
from mivolo_lite.models import MODELS
from mivolo_lite.training.optim import OptimConfig
from mivolo_lite.training.step import OptimizerStep
from tests.models.test_every_model import BUILDERS
from tests.models.tiny import SIDE, TinyMivolo, TinySwinFace
from tests.training.launching import free_port, run_ranks

SIZE, STEPS = 4, 2
CHECKPOINTED = ("single, a transformer's body", "dual, maps", "mivolo, face and body", "swinface")
"""Once more with activation checkpointing, where the backward pass calls the blocks that engines gather."""
ENVIRONMENT = {
    "ddp": {},
    "fsdp2": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
    "zero2": {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
    "zero3": {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
}


def batch_of(seed, rows, inputs):
    draw = torch.Generator().manual_seed(seed)
    images = {
        name: torch.randint(0, 256, (SIZE, 3, SIDE, SIDE), generator=draw, dtype=torch.uint8)
        for name in ("face", "body")
    }
    age, gender = torch.randint(0, 100, (SIZE,), generator=draw), torch.randint(0, 2, (SIZE,), generator=draw)
    present = torch.tensor([True, True, False, True])
    known = torch.ones(SIZE, dtype=torch.bool)
    return Batch(
        face=Images.of(images["face"][rows]) if "face" in inputs else None,
        body=Images.of(images["body"][rows], (present if len(inputs) == 2 else known)[rows]) if "body" in inputs else
        None, age=AgeRange.exact(age[rows]),
        gender=gender[rows],
        gender_known=known[rows],
        sample=torch.arange(SIZE)[rows],
        valid=known[rows],
    )  # fmt: skip


def learn(engine, accelerator, which, rows, checkpointing=False):
    """The weights after some steps, on the main process."""
    name, options = BUILDERS[which]
    torch.manual_seed(0)
    # Dropout is sampled by rank: without it, both ranks are one process.
    options = options | ({"subnet_drop_rate": 0} if name in ("multilevel", "swinface") else {})
    options = options | ({"drop_path_rate": 0.0} if name == "swinface" else {})
    model = {"name": "mivolo_tiny" if name == "mivolo" else name, **options}
    estimator = Estimator(Card(model, {"name": "classification"}, {"min_age": 0, "max_age": 100}, SIDE)).eval()
    estimator.model.set_grad_checkpointing(checkpointing)
    sharded = ENGINES[engine](accelerator, estimator, SGD(estimator.parameters(), lr=0.01), clip_norm=1.0)
    step = OptimizerStep(sharded, OptimConfig(), seed=0)
    for number in range(STEPS):
        step([batch_of(number, rows, estimator.inputs)], number)
    with sharded.full_estimator() as full:
        assert set(full.inputs) == set(estimator.inputs)
    return sharded.weights()


def work(file, rank, processes, port, results):
    os.environ |= ENVIRONMENT[file] | {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{processes}"}
    os.environ |= {"LOCAL_WORLD_SIZE": f"{processes}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    torch.set_num_threads(1)
    MODELS.update(mivolo_tiny=TinyMivolo, swinface=TinySwinFace)
    launch = Launch.from_environment(os.environ, gpus=0)
    plan = BatchPlan.resolve(SIZE, None, processes)
    accelerator = launch.init_accelerator("no", plan, clip_norm=1.0)
    share = SIZE // processes
    rows = slice(rank * share, (rank + 1) * share)
    weights = {which: learn(launch.engine, accelerator, which, rows) for which in BUILDERS}
    again = {which: learn(launch.engine, accelerator, which, rows, True) for which in CHECKPOINTED}
    if rank == 0:
        torch.save((weights, again), results)


def run(file, processes, folder):
    port = free_port()
    run_ranks(work, [(file, rank, processes, port, folder / f"{file}.pt") for rank in range(processes)], timeout=300)
    return torch.load(folder / f"{file}.pt", weights_only=True)


@pytest.fixture(scope="module")
def of_one_process(tmp_path_factory):
    return run("ddp", 1, tmp_path_factory.mktemp("one"))


@pytest.mark.slow
@pytest.mark.parametrize("file", ["fsdp2", "zero3"])
def test_every_model(file, of_one_process, tmp_path):
    found, again = run(file, 2, tmp_path)
    assert found.keys() == BUILDERS.keys() and again.keys() == set(CHECKPOINTED)
    for which, weights in [*found.items(), *again.items()]:
        expected = of_one_process[0][which]
        assert weights.keys() == expected.keys()
        far = [
            name
            for name, value in expected.items()
            # Each rank gathers its own batch statistics.
            if "running_" not in name and not torch.allclose(weights[name], value, rtol=1e-3, atol=2e-5)
        ]
        assert not far, (which, far)


@pytest.mark.slow
def test_activation_checkpointing_changes_nothing(of_one_process):
    weights, again = of_one_process
    torch.testing.assert_close(again, {which: weights[which] for which in again}, rtol=1e-5, atol=1e-6)
