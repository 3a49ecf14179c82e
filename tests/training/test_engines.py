"""One run on every engine, at several world sizes, killed and resumed at others: the same losses, the same weights."""

import json
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.people import PeopleSource
from tests.training import traced_train
from tests.training.forked_ranks import run_launched
from tests.training.launching import arguments, lines

STEPS, BATCH = 24, 8
OPTIONS = {
    "model.backbone": "test_vit_short",  # no batch statistics
    "data.image_size": 32,
    "data.workers": 0,
    "data.block_samples": 8,
    "data.window_blocks": 3,
    "optim.global_batch": BATCH,
    "optim.ema_decay": 0.9,
    "optim.clip_norm": 1.0,
    "optim.balance.by": "gender",
    "optim.dro.by": "age",
    "optim.dro.fewest": 5,
    "optim.dro.step_size": 0.1,
    "train.save_every": 5,
    "train.log_every": 1,
    "train.eval_every": 100,
    "tasks": '[{"name": "recognition", "kind": "embedding", "scale": 16, "weight": 0.1}]',
}

pytestmark = pytest.mark.slow


class NamedPeople(PeopleSource):
    """Synthetic people of whom every seventh has no name and the others share eleven."""

    def read(self, item):
        image = super().read(item)
        if int(item) % 7:
            image.samples[0].labels.extra["identity"] = f"{int(item) % 11}"
        return image


@dataclass(frozen=True)
class Run:
    """What a finished run left."""

    folder: Path
    traces: list[Path]

    def values(self, name: str) -> np.ndarray:
        """A number of each step of the log."""
        return np.array([record[name] for record in lines(self.folder / "metrics.jsonl", "train")])

    def checkpoint(self, name: str) -> dict:
        return load_file(self.folder / "checkpoints" / f"step-{STEPS:09d}" / name)

    def subgroups(self) -> dict[str, float]:
        """The weights of the subgroups at the end."""
        state = self.folder / "checkpoints" / f"step-{STEPS:09d}" / "state.json"
        return json.loads(state.read_text())["state"]["subgroups"]

    def traced(self, name: str) -> dict[int, list]:
        """What each step used, or was like, in all ranks and over all attempts."""
        steps: dict[int, list] = {}
        for trace in self.traces:
            for file in trace.glob("*.jsonl"):
                for record in map(json.loads, file.read_text().splitlines()):
                    steps.setdefault(record["step"], []).append(record[name])
        return steps

    def samples(self) -> dict[int, list[int]]:
        """The samples of each step."""
        return {step: sorted(sum(samples, [])) for step, samples in self.traced("samples").items()}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("named") / "people"
    pack(NamedPeople(count=80), folder, {"train": 0.75, "val": 0.25})
    return folder


@pytest.fixture(scope="module")
def trained(people, tmp_path_factory):
    """``trained((file, processes, last step), ...)``: a run that was killed after each last step but the final one."""
    count = json.loads((people / "train" / "dataset.json").read_text())["samples"]
    data = {"data.train": people / "train", "data.val": people / "val", "optim.epochs": STEPS * BATCH / count}

    def train(*attempts, **changed) -> Run:
        folder = tmp_path_factory.mktemp("run")
        run = Run(folder / "run", [])
        for number, (file, processes, last) in enumerate(attempts):
            trace = folder / f"trace{number}"
            trace.mkdir()
            done = last == STEPS
            options = OPTIONS | data | changed | {"run": run.folder, "resume": "auto"}
            words = (trace, 0 if done else last, arguments(options))
            codes, output = run_launched(file, processes, traced_train.train, words, trace)
            assert codes == [0 if done else -signal.SIGKILL] * processes, output
            if not done:
                assert (run.folder / "checkpoints" / f"step-{last:09d}").exists(), output
            run.traces.append(trace)
        return run

    return train


@pytest.fixture(scope="module")
def one_process(trained):
    return trained(("single", 1, STEPS))


def distance(found: dict, expected: dict) -> float:
    """Relative to the size of the full. Tensor by tensor, the attention's key biases would stand out: softmax cancels
    them, so that their gradients are rounding errors, out of which AdamW makes whole steps."""
    assert found.keys() == expected.keys()
    differences = torch.stack([(found[name] - expected[name]).double().norm() for name in expected])
    return float(differences.norm() / torch.stack([tensor.double().norm() for tensor in expected.values()]).norm())


def assert_same(run: Run, reference: Run) -> None:
    assert len(run.values("loss")) == STEPS
    for value in ("loss", "grad_norm"):
        np.testing.assert_allclose(run.values(value), reference.values(value), rtol=1e-5)
    for name in ("model", "ema", "optimizer"):
        found, expected = (each.checkpoint(f"{name}.safetensors") for each in (run, reference))
        assert found.pop("step", 0) == expected.pop("step", 0)
        assert distance(found, expected) < 1e-5
    assert run.subgroups() == pytest.approx(reference.subgroups(), abs=1e-5)
    assert max(map(abs, reference.subgroups().values())) > 0.01
    assert run.samples() == reference.samples()
    best = [load_file(each.folder / "best" / "model.safetensors") for each in (run, reference)]
    assert distance(*best) < 1e-5


def test_two_processes(trained, one_process):
    assert_same(trained(("ddp", 2, STEPS)), one_process)


def test_another_optimizer_and_schedule_on_changing_processes(trained):
    """Momentum SGD, whose steps are as small as its gradients."""
    changed = {"optim.name": "momentum", "optim.lr": 0.01, "optim.schedule": "step", "optim.decay_epochs": 2}
    one = trained(("single", 1, STEPS), **changed)
    assert_same(trained(("ddp", 2, 15), ("single", 1, STEPS), **changed), one)
    assert min(one.values("lr")) < 2e-3 and any(
        name.startswith("momentum_buffer.") for name in one.checkpoint("optimizer.safetensors")
    )


def test_accumulation(trained, one_process):
    assert_same(trained(("single", 1, STEPS), **{"optim.micro_batch": BATCH // 2}), one_process)


@pytest.mark.parametrize(
    "attempts",
    [
        [("ddp", 2, 5), ("single", 1, 10), ("ddp", 2, STEPS)],
        [("zero2", 2, 5), ("zero2", 1, 10), ("zero2", 2, STEPS)],
        [("zero1", 2, STEPS)],
        [("zero3", 2, 5), ("zero3", 1, 10), ("zero3", 2, STEPS)],
        [("fsdp2", 2, 5), ("fsdp2", 1, 10), ("fsdp2", 2, STEPS)],
        [("zero2_offload", 2, 5), ("zero3_offload", 2, STEPS)],
        [("zero3", 1, 5), ("fsdp2", 2, 10), ("zero2", 2, 15), ("ddp", 2, STEPS)],
    ],
    ids=["ddp", "zero2", "zero1", "zero3", "fsdp2", "offload", "from-one-engine-to-another"],
)
def test_killed_and_resumed_at_another_world_size(attempts, trained, one_process):
    assert_same(trained(*attempts, **{"optim.micro_batch": 2}), one_process)  # accumulates over 2 or 4


def test_what_is_frozen_for_good_on_one_engine_after_another(trained):
    changed = {"train.freeze": "[stem, blocks.0]"}
    alone = trained(("single", 1, STEPS), **changed)
    assert_same(trained(("zero3", 1, 5), ("fsdp2", 2, 10), ("zero2", 2, 15), ("ddp", 2, STEPS), **changed), alone)
    learnt = {name.removeprefix("exp_avg.") for name in alone.checkpoint("optimizer.safetensors")}
    assert any("blocks.1." in name for name in learnt) and not any("blocks.0." in name for name in learnt)


def test_several_data_sets_with_attention_to_levels_and_an_annealed_loss(trained, people):
    """The mixture, tasks with subnets of their own and the annealing resume where they stopped, by twice as many."""
    sets = [{"path": str(people / "train"), "weight": 2}, {"path": str(people / "val"), "weight": 1}]
    infos = [json.loads((Path(each["path"]) / "dataset.json").read_text()) for each in sets]
    changed = {
        "data.train": json.dumps(sets),
        "optim.epochs": STEPS * BATCH / sum(info["samples"] for info in infos),
        "model": "multilevel",
        "model.backbone": "test_convnext_short",  # no batch statistics
        "model.width": 32,
        "model.subnet_drop_rate": 0,  # its masks depend on the rank
        "method": "regression",
        "method.loss": "annealed",
        "optim.lr": 1e-4,  # squares of years make long steps, which would blow rounding errors up
        "tasks": json.dumps([{"name": "group", "classes": infos[0]["groups"]}]),
    }
    alone = trained(("single", 1, STEPS), **changed)
    assert_same(trained(("single", 1, 5), ("ddp", 2, STEPS), **changed), alone)
    seen = np.bincount([number >= infos[0]["samples"] for samples in alone.samples().values() for number in samples])
    np.testing.assert_allclose(seen, [STEPS * BATCH * 2 / 3, STEPS * BATCH / 3], atol=1)


@pytest.fixture(scope="module")
def in_bfloat16(trained):
    return trained(("single", 1, STEPS), **{"train.precision": "bf16"}).values("loss")


@pytest.mark.parametrize("file", ["zero2", "fsdp2"])
def test_bfloat16_is_the_same_autocast_in_every_engine(trained, one_process, in_bfloat16, file):
    found = trained((file, 2, STEPS), **{"train.precision": "bf16"}).values("loss")
    np.testing.assert_allclose(found, in_bfloat16, rtol=0.01)
    assert found[0] == pytest.approx(in_bfloat16[0], rel=1e-3)
    exact = one_process.values("loss")[0]
    assert abs(found[0] - in_bfloat16[0]) < abs(exact - in_bfloat16[0]) / 10, "of the first step, before any update"


def test_every_rank_has_the_same_batch_statistics(trained):
    run = trained(("ddp", 2, STEPS), **{"model.backbone": "test_efficientnet"})
    statistics = run.traced("statistics")
    assert all(len(set(of_ranks)) == 1 and len(of_ranks) == 2 for of_ranks in statistics.values())
    assert len({of_ranks[0] for of_ranks in statistics.values()}) == STEPS
