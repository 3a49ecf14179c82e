"""One batch, four micro-batches and two processes are the same training, whatever the method."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from mivolo_lite.distributed.data_parallel import DataParallel
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.training.optim import OptimConfig
from mivolo_lite.training.step import OptimizerStep
from tests.methods.test_every_method import VARIANTS
from tests.models import tiny  # noqa: F401, timm's list has its models
from tests.training.launching import free_port, run_ranks
from tests.training.test_step import batch_of, part

SIZE, STEPS = 16, 3
REFIT = {"refit_every": 2, "refit_samples": 24, "outputs": 32, "depth": 4}


def learn(variant, rows, steps=STEPS):
    """The state after some steps, in which this process has these micro-batches of every batch."""
    name, options = VARIANTS[variant]
    options = options | (REFIT if name == "forest" else {})
    torch.manual_seed(0)
    model = {"name": "single", "backbone": "test_vit_short"}  # no batch statistics
    card = Card(model, {"name": name, **options}, {"min_age": 0, "max_age": 100}, image_size=32)
    estimator = Estimator(card)
    estimator.method.fit_prior(torch.ones(101))
    optimizer = torch.optim.SGD(estimator.parameters(), lr=0.05)
    engine = DataParallel(Accelerator(cpu=True), estimator, optimizer, clip_norm=1.0)
    step = OptimizerStep(engine, OptimConfig(), seed=0)
    for number in range(steps):
        batch = batch_of(SIZE, seed=number, side=32)
        step([part(batch, these) for these in rows], number)
    return estimator.state_dict()


def worker(rank, port, results):
    import os

    os.environ |= {"RANK": f"{rank}", "WORLD_SIZE": "2", "LOCAL_RANK": f"{rank}", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = f"{port}"
    torch.set_num_threads(1)
    mine = [slice(rank, SIZE, 2)]  # a rank's samples are not neighbours
    torch.save({variant: learn(variant, mine) for variant in VARIANTS}, results / f"{rank}.pt")


@pytest.fixture(autouse=True)
def nothing_left_of_other_runs():
    """Accelerate keeps the precision of the process's first run: bf16 of another test would round what is compared."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    """Their states by variant, as both have them."""
    folder = tmp_path_factory.mktemp("two")
    port = free_port()
    run_ranks(worker, [(rank, port, folder) for rank in range(2)], timeout=240)
    states = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for variant, state in states[0].items():
        assert all(state[name].equal(states[1][variant][name]) for name in state), variant
    return states[0]


def distance(one, other, names):
    return float(sum((one[name].double() - other[name].double()).square().sum() for name in names)) ** 0.5


def assert_same(found, expected, start):
    """Apart by a ten thousandth of how far the steps moved them; the leaves of a forest by themselves."""
    weights = [name for name, value in expected.items() if value.is_floating_point() and ".ring_" not in name]
    leaves = [name for name in weights if ".leaf_" in name]
    for names in ([name for name in weights if name not in leaves], leaves):
        assert distance(found, expected, names) <= 1e-4 * distance(expected, start, names)
    counts = [name for name, value in expected.items() if not value.is_floating_point()]
    assert all(found[name].equal(expected[name]) for name in counts)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_micro_batches_and_processes_change_nothing(variant, of_two_processes):
    start, full = learn(variant, [], steps=0), learn(variant, [slice(0, SIZE)])
    assert_same(learn(variant, [slice(first, first + 4) for first in range(0, SIZE, 4)]), full, start)
    assert_same(of_two_processes[variant], full, start)
