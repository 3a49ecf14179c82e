"""The compiled training call: the same steps as without, in whole graphs, and no new ones after the first epoch."""

import copy
import json
import logging
import os

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch._dynamo.utils import counters
from torch.optim import SGD

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.distributed.compilation import compile_forward, without_compilation
from mivolo_lite.distributed.data_parallel import DataParallel
from mivolo_lite.distributed.engine import ENGINES
from mivolo_lite.distributed.launch import Launch
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.loading.batch import Batch
from mivolo_lite.models import MODELS
from mivolo_lite.training.optim import OptimConfig
from mivolo_lite.training.step import OptimizerStep
from tests.models.test_every_model import BUILDERS
from tests.models.tiny import SIDE, TinyMivolo, TinySwinFace
from tests.training.launching import free_port, run_ranks
from tests.training.test_every_model_on_engines import ENVIRONMENT

SIZE = 6
NUMBERS = ((6, 6), (4, 6), (6, 3), (3, 4), (4, 4), (0, 5), (5, 1))
"""Images of the two inputs in the batches of an epoch."""
MOST_GRAPHS = {"mivolo, face and body": 4}
"""One for each combination of an input that all samples have, or some; otherwise one."""


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch):
    monkeypatch.setitem(MODELS, "mivolo_tiny", TinyMivolo)
    monkeypatch.setitem(MODELS, "swinface", TinySwinFace)
    # torch traces its own work at this level, and pytest would keep every line.
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    AcceleratorState._reset_state()


def estimator_of(label):
    torch.manual_seed(0)
    name, options = BUILDERS[label]
    model = {"name": "mivolo_tiny" if name == "mivolo" else name, **options}
    return Estimator(Card(model, {"name": "classification"}, {"min_age": 0, "max_age": 100}, SIDE)).train()


def batch_of(seed, inputs, numbers):
    draw = torch.Generator().manual_seed(seed)

    def some(number):
        pixels = torch.randint(0, 256, (SIZE, 3, SIDE, SIDE), generator=draw, dtype=torch.uint8)
        return Images.of(pixels, torch.randperm(SIZE, generator=draw) < number)

    images = {name: some(number) for name, number in zip(inputs, numbers, strict=False)}
    known = torch.ones(SIZE, dtype=torch.bool)
    return Batch(
        face=images.get("face"),
        body=images.get("body"),
        age=AgeRange.exact(torch.randint(0, 100, (SIZE,), generator=draw)),
        gender=torch.randint(0, 2, (SIZE,), generator=draw),
        gender_known=known,
        sample=torch.arange(SIZE),
        valid=known,
    )


def step_of(estimator, is_compiled, precision="no"):
    if is_compiled:
        compile_forward(estimator, backend="eager")
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    engine = DataParallel(accelerator, estimator, SGD(estimator.parameters(), lr=1e-3), clip_norm=1.0)
    engine.is_compiled = is_compiled
    return OptimizerStep(engine, OptimConfig(), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("label", BUILDERS)
def test_every_model_takes_the_same_steps_in_whole_graphs(label):
    plain = estimator_of(label)
    compiled = copy.deepcopy(plain)
    inputs = plain.inputs
    reference, step = step_of(plain, False), step_of(compiled, True)
    graphs = []
    for _ in range(2):
        for seed, numbers in enumerate(NUMBERS if len(inputs) == 2 else sorted({(most,) for most, _ in NUMBERS})):
            batch = batch_of(seed, inputs, numbers)
            assert torch.equal(reference([batch], seed).losses, step([batch], seed).losses)
        graphs.append(counters["stats"]["unique_graphs"])
    assert not counters["graph_break"]
    assert graphs[0] == graphs[1] and 1 <= graphs[0] <= MOST_GRAPHS.get(label, 2 if label == "mivolo, face" else 1)
    torch.testing.assert_close(compiled.state_dict(), plain.state_dict(), rtol=0, atol=0)


@pytest.mark.slow
def test_also_in_mixed_precision():
    plain = estimator_of("single, a convolutional face")
    compiled = copy.deepcopy(plain)
    reference, step = step_of(plain, False, "bf16"), step_of(compiled, True, "bf16")
    for number in range(3):
        batch = batch_of(number, plain.inputs, (3 + number,))
        assert torch.equal(reference([batch], number).losses, step([batch], number).losses)
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


def work(file, rank, port, results):
    os.environ |= ENVIRONMENT[file] | {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": "2"}
    os.environ |= {"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    torch.set_num_threads(1)
    launch = Launch.from_environment(os.environ, gpus=0)
    accelerator = launch.init_accelerator("no", BatchPlan.resolve(2 * SIZE, None, 2), clip_norm=1.0)
    losses, graphs = [], []
    for is_compiled in (False, True):
        estimator = estimator_of("single, a transformer's body")
        if is_compiled:
            compile_forward(estimator, backend="aot_eager")
        optimizer = SGD(estimator.parameters(), lr=1e-3)
        engine = ENGINES[launch.engine](accelerator, estimator, optimizer, clip_norm=1.0)
        engine.is_compiled = is_compiled
        step = OptimizerStep(engine, OptimConfig(), seed=0)
        for number, numbers in enumerate([(4,), (3,), (6,)]):
            batch = batch_of(10 * number + rank, estimator.inputs, numbers)
            losses.append(float(step([batch], number).losses[0]))
            graphs.append(counters["stats"]["unique_graphs"])
    found = {"losses": losses, "graphs": graphs, "breaks": dict(counters["graph_break"])}
    (results / f"{rank}.json").write_text(json.dumps(found))


@pytest.mark.slow
@pytest.mark.parametrize("file", ["ddp", "zero2"])
def test_two_ranks(file, tmp_path):
    port = free_port()
    run_ranks(work, [(file, rank, port, tmp_path) for rank in range(2)], timeout=300)
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["losses"][3:] == pytest.approx(found["losses"][:3], rel=1e-5)
        assert found["graphs"][2:] == [0, 1, 1, 1] and not found["breaks"]


def test_evaluation_is_not_compiled():
    estimator = estimator_of("single, a transformer's body")
    compile_forward(estimator, backend="eager")
    batch = batch_of(0, estimator.inputs, (5,))
    with without_compilation(), torch.no_grad():
        estimator.eval()(**batch.images())
    assert not counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("engine, stage, name", [("fsdp2", 0, "FSDP2"), ("zero", 3, "DeepSpeed ZeRO-3")])
def test_engines_that_gather_parameters_within_the_forward_pass_say_so(engine, stage, name):
    launch = Launch(engine, 2, True, {"zero_optimization": {"stage": stage}})
    with pytest.raises(UserError, match=f"^train.compile does not work with {name}, .* use ddp or zero2$"):
        launch.require_compilable()
    Launch("zero", 2, True, {"zero_optimization": {"stage": 2}}).require_compilable()
    Launch("ddp", 2, True, {}).require_compilable()
