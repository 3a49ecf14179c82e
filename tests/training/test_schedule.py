"""The courses of the learning rate, against timm's and torch's schedulers."""

from typing import get_args

import pytest
import torch
from timm import scheduler as timm_schedulers
from torch import nn

from mivolo_lite.config import read_run_config
from mivolo_lite.errors import UserError
from mivolo_lite.training import schedule as module
from mivolo_lite.training.optim import OptimConfig, Schedule
from mivolo_lite.training.schedule import learning_rate, meets_plateau

STEPS, PER_EPOCH = 60, 4.0


def course(**options):
    config = OptimConfig(**({"lr": 0.5, "warmup_epochs": 0} | options))
    return [learning_rate(step, STEPS, PER_EPOCH, config) for step in range(STEPS)]


def of_timm(kind, **options):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5)
    scheduler = getattr(timm_schedulers, kind)(optimizer, t_in_epochs=False, **options)
    rates = []
    for step in range(STEPS):
        scheduler.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize(
    "options, kind, theirs",
    [
        ({"schedule": "cosine"}, "CosineLRScheduler", {"t_initial": STEPS}),
        ({"schedule": "poly", "power": 2.5}, "PolyLRScheduler", {"t_initial": STEPS, "power": 2.5}),
        ({"schedule": "linear"}, "PolyLRScheduler", {"t_initial": STEPS, "power": 1.0}),
        ({"schedule": "tanh"}, "TanhLRScheduler", {"t_initial": STEPS}),
        (
            {"schedule": "step", "decay_epochs": 3, "decay_rate": 0.3},
            "StepLRScheduler",
            {"decay_t": 12, "decay_rate": 0.3},
        ),
    ],
)
def test_they_are_timms(options, kind, theirs):
    lowest = {} if kind == "StepLRScheduler" else {"lr_min": 0.01}
    assert course(min_lr=lowest.get("lr_min", 0.0), **options) == pytest.approx(of_timm(kind, **theirs, **lowest))


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_no_rate_is_above_lr(schedule):
    """Where `min_lr` is, all stay at `lr`."""
    assert course(schedule=schedule, lr=1e-3, min_lr=1e-2, decay_milestones=[2]) == [1e-3] * STEPS


def test_milestones_are_torchs():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5)
    scheduler, expected = torch.optim.lr_scheduler.MultiStepLR(optimizer, [8, 20], 0.2), []
    for _ in range(STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    found = course(schedule="multistep", decay_milestones=[5, 2], decay_rate=0.2, min_lr=0.0)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("name", get_args(Schedule))
def test_every_schedule_warms_up_and_stays_between_its_bounds(name):
    options = {"schedule": name, "decay_epochs": 2, "decay_milestones": [5], "min_lr": 0.02}
    rates = course(warmup_epochs=2, **options)
    assert rates[:8] == pytest.approx([0.5 * (step + 1) / 8 for step in range(8)])
    after = rates[8:]
    assert max(after) <= 0.5 and min(after) >= 0.02
    assert (max(after) == min(after)) == (name in ("constant", "plateau"))
    assert all(later <= earlier for earlier, later in zip(after, after[1:], strict=False))


def test_plateaus_are_torchs():
    """The same errors, after one epoch each: the factor is torch's at every one."""
    errors = [5.0, 4.0, 4.5, 4.5, 4.5, 4.5, 4.5, 4.5, 4.5, 3.0, 3.5, 2.0, 2.5, 2.5, 2.5, 2.5]
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.2, patience=2)
    config = OptimConfig(lr=0.5, warmup_epochs=0, schedule="plateau", plateau_patience=2, decay_rate=0.2)
    best, stale, plateaus = float("inf"), 0, 0
    for epoch, error in enumerate(errors):
        theirs.step(error)
        stale, best = (0, error) if error < best else (stale + 1, best)
        plateaus += meets_plateau(stale, config)
        found = learning_rate(epoch * PER_EPOCH, STEPS, PER_EPOCH, config, plateaus)
        assert found == pytest.approx(optimizer.param_groups[0]["lr"])
    assert plateaus == 3


def test_every_name_has_a_course():
    assert {*module._FALLING, *module._DECAYING} == set(get_args(Schedule))


def test_a_wrong_name_is_one_line():
    with pytest.raises(UserError, match="command line: optim.schedule: 'cosin' is not one of cosine, linear"):
        read_run_config(["--config", "pkg:utkface", "--run", "x", "--optim.schedule", "cosin"])
