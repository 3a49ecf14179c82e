"""Stochastic weight averaging: as torch's; in a run the mean of the evaluated weights, resumed to the bit."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mivolo_lite.cli import main
from mivolo_lite.config import read_run_config
from mivolo_lite.errors import UserError
from mivolo_lite.training.averaging import ModelSwa
from mivolo_lite.training.checkpoint import finished_checkpoints
from mivolo_lite.training.optim import OptimConfig
from mivolo_lite.training.schedule import learning_rate
from tests.training.launching import lines
from tests.training.resuming import require_same_after_resume
from tests.training.test_ema import Whole


def test_it_is_torchs():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    swa, reference = ModelSwa(Whole(module)), AveragedModel(module, use_buffers=True)
    assert not swa.is_begun
    for _ in range(7):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
        module[:2](torch.randn(5, 3, 3, 3))
        swa.update()
        reference.update_parameters(module)
    assert swa.is_begun and swa.count == 7
    expected = reference.module.state_dict()
    for name, tensor in expected.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(swa.tensors[name], tensor)


def test_the_first_weights_are_the_average_of_one():
    module = nn.Linear(3, 2)
    swa = ModelSwa(Whole(module))
    with torch.no_grad():
        module.weight.normal_()
    swa.update()
    assert torch.equal(swa.tensors["weight"], module.weight)


def test_its_learning_rate_begins_with_it():
    config = OptimConfig(lr=1.0, swa_start=3, swa_lr=0.05, warmup_epochs=1)
    rates = [learning_rate(step, 20, 4.0, config) for step in range(20)]
    assert rates[12:] == [0.05] * 8 and min(rates[4:12]) > 0.05
    assert rates[:12] == [learning_rate(step, 20, 4.0, OptimConfig(lr=1.0)) for step in range(12)]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--optim.swa_lr", "0.1"], "optim.swa_lr: .*give optim.swa_start as well"),
        (["--optim.swa_start", "1", "--optim.ema_decay", "0.9"], "optim.swa_start: .*set one of the two"),
    ],
)
def test_what_contradicts_itself_is_one_line(words, message):
    with pytest.raises(UserError, match=message):
        read_run_config(["--config", "pkg:utkface", "--run", "x", *words])


@pytest.mark.slow
def test_it_begins_anew_after_a_start_without_it(people, tmp_path):
    common = ["train", "--data.train", f"{people}/train", "--data.val", f"{people}/val", "--data.workers", "0"]
    common += ["--model.backbone", "test_resnet", "--data.image_size", "32", "--optim.global_batch", "16"]
    common += ["--run", f"{tmp_path}", "--resume", "auto", "--train.eval_every", "0.5"]
    averaged = {}
    for epochs, swa in ((1, ["--optim.swa_start", "0"]), (2, []), (3, ["--optim.swa_start", "2"])):
        main([*common, "--optim.epochs", f"{epochs}", *swa])
        *_, latest = finished_checkpoints(tmp_path / "checkpoints")
        averaged[epochs] = json.loads((latest / "state.json").read_text())["state"]["averaged"]
    assert averaged == {1: 2, 2: 0, 3: 2}


@pytest.mark.slow
def test_a_run_keeps_the_mean_of_its_evaluated_weights_and_resumes_to_the_same_bits(people, tmp_path):
    """Also where it was cut between two averages, and before the first."""
    words = ["--optim.swa_start", "1", "--optim.swa_lr", "3e-4", "--train.eval_every", "0.5"]
    run = require_same_after_resume(people, tmp_path, *words, epochs=2.5, keep=1)
    every = sorted((run / "checkpoints").iterdir())
    evaluated = [record["step"] for record in lines(run / "metrics.jsonl", "val")]
    steps = {int(path.name.removeprefix("step-")): path for path in every}
    per_epoch = max(steps) / 2.5
    averaged = [load_file(steps[step] / "model.safetensors") for step in evaluated if step >= per_epoch]
    assert len(averaged) == 4 and not (every[0] / "ema.safetensors").exists()
    found = load_file(every[-1] / "ema.safetensors")
    for name, tensor in found.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, torch.stack([weights[name] for weights in averaged]).mean(0))
    middle = len(every) - 2
    second = tmp_path / "later"
    second.mkdir()
    assert torch.equal(
        load_file(every[middle] / "ema.safetensors")[name], load_file(every[middle - 1] / "ema.safetensors")[name]
    )
    require_same_after_resume(people, second, *words, epochs=2.5, keep=middle)
