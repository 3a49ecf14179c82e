"""The learning-rate range test, by real steps."""

import json

import numpy as np
import pytest
import torch

from mivolo_lite.cli import main
from mivolo_lite.config import read_run_config
from mivolo_lite.errors import UserError
from mivolo_lite.experiments.lr_finder import LrCurve, find_lr
from mivolo_lite.experiments.smoothing import smoothed
from mivolo_lite.training.logger import RunLogger
from mivolo_lite.training.loop import Trainer
from tests.experiments.test_seeds import SMALL


def test_the_steepest_is_where_the_loss_falls_fastest():
    rates = np.geomspace(1e-6, 1, 100)
    losses = 1 / (1 + np.exp(5 * (np.log10(rates) + 3)))  # falls fastest at 1e-3
    assert LrCurve(rates.tolist(), losses.tolist()).steepest == pytest.approx(1e-3, rel=0.2)


@pytest.mark.parametrize("seed", range(8))
def test_noise_moves_it_little(seed):
    """Losses of single batches vary more than the curve falls in a step; the rate stays in the falling stretch."""
    rates = np.geomspace(1e-6, 1, 100)
    clean = 1 / (1 + np.exp(3 * (np.log10(rates) + 3))) + 0.5 * (np.log10(rates) > -1) * (np.log10(rates) + 1) ** 2
    noise = np.random.default_rng(seed).normal(0, 0.15, 100)
    losses = list(smoothed((clean + noise).tolist()))
    assert 1e-4 < LrCurve(rates.tolist(), losses).steepest < 3e-2


def test_a_fall_after_the_lowest_loss_does_not_count():
    """A training that broke down may recover faster than it ever learnt."""
    rates = np.geomspace(1e-6, 1, 100)
    losses = np.interp(range(100), [0, 20, 60, 70, 80, 99], [1, 1, 0.2, 3, 0.5, 0.5])
    assert rates[20] < LrCurve(rates.tolist(), losses.tolist()).steepest < rates[60]


def test_a_dip_before_the_lowest_loss_is_no_fall():
    """The lowest loss is one by noise as well: few steps before it fall steeply."""
    rates = np.geomspace(1e-6, 1, 100)
    losses = np.interp(range(100), [0, 20, 60, 74, 77, 80, 99], [2, 2, 1, 1, 0.6, 1, 1])
    assert rates[20] < LrCurve(rates.tolist(), losses.tolist()).steepest < rates[60]


def test_a_loss_that_falls_nowhere_is_one_line():
    with pytest.raises(UserError, match="falls at no rate"):
        _ = LrCurve(np.geomspace(1e-6, 1, 50).tolist(), np.linspace(1, 2, 50).tolist()).steepest


@pytest.mark.slow
def test_a_training_follows_in_the_same_folder_and_what_is_frozen_stays(people, tmp_path):
    words = ["--run", f"{tmp_path}/run", "--data.train", f"{people}/train", "--data.val", f"{people}/val", *SMALL]
    trainer = Trainer(read_run_config([*words, "--run", f"{tmp_path}/frozen", "--train.freeze", "[backbone]"]))
    before = {name: value.clone() for name, value in trainer.estimator.model.state_dict().items()}
    assert len(list(trainer.learn_at([0.1, 0.2, 0.3]))) == 3
    trainer.close()
    assert all(torch.equal(before[name], value) for name, value in trainer.estimator.model.state_dict().items())
    main(["find-lr", *words, "--steps", "10", "--low", "1e-5"])
    main(["train", *words])
    assert (tmp_path / "run/best/model.safetensors").is_file()


@pytest.mark.slow
def test_it_ends_where_the_loss_explodes_and_leaves_no_checkpoint(people, tmp_path, capsys, monkeypatch):
    bars = []
    monkeypatch.setattr(RunLogger, "close", lambda logger: bars.append(logger.bar))
    words = ["--run", f"{tmp_path}/run", "--data.train", f"{people}/train", "--data.val", f"{people}/val", *SMALL]
    for _ in range(2):  # a second time as well
        main(["find-lr", *words, "--steps", "30", "--low", "1e-5", "--high", "1e4"])
    curve = json.loads((tmp_path / "run/find-lr/lr.json").read_text())
    assert 3 <= len(curve["rates"]) < 30 and curve["rates"][0] == pytest.approx(1e-5)
    assert len(curve["losses"]) == len(curve["rates"]) and min(curve["losses"]) < curve["losses"][0]
    assert (tmp_path / "run/find-lr/lr.png").is_file() and not list(tmp_path.rglob("*.safetensors"))
    *_, found, written = capsys.readouterr().out.splitlines()
    assert [bar.total for bar in bars] == [30, 30]  # and not the steps of the configuration
    assert 1e-5 < float(found.rpartition("rate of ")[2].partition(";")[0]) < curve["rates"][-1]
    assert written == f"written to {tmp_path}/run/find-lr: lr.json, lr.png"


def test_rates_that_do_not_rise_are_one_line():
    with pytest.raises(UserError, match="a lower rate and a higher one"):
        find_lr([], low=1.0, high=0.1)
