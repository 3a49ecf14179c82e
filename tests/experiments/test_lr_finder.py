"""The learning-rate range test, by real steps."""

import json

import numpy as np
import pytest

from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.experiments.lr_finder import LrCurve, find_lr
from tests.experiments.test_seeds import SMALL


def test_the_steepest_is_where_the_loss_falls_fastest():
    rates = np.geomspace(1e-6, 1, 100)
    losses = 1 / (1 + np.exp(5 * (np.log10(rates) + 3)))  # falls fastest at 1e-3
    assert LrCurve(rates.tolist(), losses.tolist()).steepest == pytest.approx(1e-3, rel=0.2)


@pytest.mark.slow
def test_it_ends_where_the_loss_explodes_and_leaves_no_checkpoint(people, tmp_path, capsys):
    words = ["--run", f"{tmp_path}/run", "--data.train", f"{people}/train", "--data.val", f"{people}/val", *SMALL]
    for _ in range(2):  # a second time as well
        main(["find-lr", *words, "--steps", "30", "--low", "1e-5", "--high", "1e4"])
    curve = json.loads((tmp_path / "run/find-lr/lr.json").read_text())
    assert 3 <= len(curve["rates"]) < 30 and curve["rates"][0] == pytest.approx(1e-5)
    assert len(curve["losses"]) == len(curve["rates"]) and min(curve["losses"]) < curve["losses"][0]
    assert (tmp_path / "run/find-lr/lr.png").is_file() and not list(tmp_path.rglob("*.safetensors"))
    steepest = float(capsys.readouterr().out.rpartition("rate of ")[2].partition(";")[0])
    assert 1e-5 < steepest < curve["rates"][-1]


def test_rates_that_do_not_rise_are_one_line():
    with pytest.raises(UserError, match="a lower rate and a higher one"):
        find_lr([], low=1.0, high=0.1)
