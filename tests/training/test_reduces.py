"""What two ranks wait for in a step: one reduce, whatever it is that they share."""

import json
import os
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist

from mivolo_lite.distributed import preemption
from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.distributed.engine import ENGINES
from mivolo_lite.distributed.flat_reduce import FlatReduce
from mivolo_lite.distributed.launch import Launch
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.training.dro import DroConfig, GroupDro
from mivolo_lite.training.optim import OptimConfig, build_optimizer
from mivolo_lite.training.step import OptimizerStep
from tests.training.launching import free_port, run_ranks
from tests.training.test_step import batch_of

COLLECTIVES = ("all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "broadcast", "barrier")
STEPS, SIZE, SIDE = 3, 6, 32


def count_waits(monkeypatch):
    """The names of the collectives that are waited for from now on."""
    waited = []

    def counted(name, collective):
        def call(*arguments, **options):
            if not options.get("async_op"):
                waited.append(name)
            return collective(*arguments, **options)

        return call

    for name in COLLECTIVES:
        monkeypatch.setattr(dist, name, counted(name, getattr(dist, name)))
    return waited


def work(rank, port, folder):
    os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    torch.set_num_threads(1)
    warnings.filterwarnings("error", message="`broadcast_buffers`", category=FutureWarning)  # no user can mend it
    launch = Launch.from_environment(os.environ, gpus=0)
    accelerator = launch.init_accelerator("no", BatchPlan.resolve(2 * SIZE, None, 2), clip_norm=1.0)
    torch.manual_seed(0)
    model = {"name": "single", "backbone": "test_efficientnet"}
    estimator = Estimator(Card(model, {"name": "classification"}, {"min_age": 0, "max_age": 100}, SIDE)).train()
    optimizer = build_optimizer(estimator, OptimConfig())
    engine = ENGINES[launch.engine](accelerator, estimator, optimizer, clip_norm=1.0)
    nothing, group = np.zeros(SIZE), np.arange(SIZE) % 2
    columns = {"age_lo": nothing, "age_hi": nothing, "gender": nothing, "group": group}
    dro = GroupDro(columns, ["a", "b"], None, DroConfig("group", fewest=2), "cpu")
    step = OptimizerStep(engine, OptimConfig(), 0, None, dro)
    stops, counts = [], []
    with pytest.MonkeyPatch.context() as patch:
        waited = count_waits(patch)
        for number in range(STEPS):
            batches = [batch_of(SIZE, seed, SIDE) for seed in (10 * number + rank, 10 * number + 5 + rank)]
            if number == 1 and rank == 1:
                preemption._received.append(15)
            stops.append(step(batches, number).should_stop)
            counts.append(len(waited))
    statistics = [float(statistic.double().sum()) for statistic in step.statistics]
    first, second = FlatReduce([torch.full((2, 3), 1.0 + rank), torch.tensor(10.0)], 2).wait()
    found = {
        "counts": counts, "stops": stops, "statistics": statistics, "dro": dro.log_weight.tolist(),
        "weights": float(sum(parameter.double().sum() for parameter in estimator.parameters())),
        "flat": [first.tolist(), second.item()],
    }  # fmt: skip
    (folder / f"{rank}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_a_step_waits_for_one_reduce_and_ranks_stay_equal(tmp_path):
    """Label counts and preemption; losses, batch statistics and subgroups travel during the backward pass."""
    port = free_port()
    run_ranks(work, [(rank, port, tmp_path) for rank in range(2)], timeout=120)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second and len(first["statistics"]) > 4
    assert first["counts"] == [1, 2, 3]
    assert first["stops"] == [False, True, True]
    assert first["flat"] == [[[3.0] * 3] * 2, 20.0]
    assert any(first["dro"])


def test_alone_a_rank_shares_with_nobody():
    shared = [torch.rand(2, 3), torch.empty(0), torch.tensor(2.0)]
    assert all(torch.equal(*pair) for pair in zip(FlatReduce(shared, 1).wait(), shared, strict=True))
