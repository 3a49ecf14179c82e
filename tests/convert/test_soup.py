"""The mean of several checkpoints."""

import pytest
import torch

from mivolo_lite.card import Card
from mivolo_lite.cli import main
from mivolo_lite.convert.soup import soup
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator

SPAN = {"min_age": 0, "max_age": 100}


def saved(folder, seed, metrics=None, **method):
    torch.manual_seed(seed)
    card = Card({"name": "single", "backbone": "test_resnet"}, {"name": "dldl"} | method, dict(SPAN), image_size=32)
    card.metrics = metrics or {}
    estimator = Estimator(card)
    for buffer in estimator.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    estimator.save(folder)
    return estimator.state_dict()


def test_every_weight_and_statistic_is_the_mean(tmp_path):
    states = [saved(tmp_path / str(seed), seed, {"mae": 1.0}) for seed in range(3)]
    result = Estimator.load(soup([tmp_path / str(seed) for seed in range(3)], tmp_path / "soup"))
    assert result.card.metrics == {}
    for name, tensor in result.state_dict().items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, sum(state[name] for state in states) / 3, atol=1e-6), name


def test_a_soup_of_one_model_twice_is_that_model(tmp_path, capsys):
    state = saved(tmp_path / "a", 0)
    main(["soup", str(tmp_path / "a"), str(tmp_path / "a"), "--out", str(tmp_path / "soup")])
    result = Estimator.load(tmp_path / "soup").state_dict()
    assert all(torch.equal(result[name], tensor) for name, tensor in state.items())
    assert "mivolo-lite evaluate --checkpoint" in capsys.readouterr().out


def test_checkpoints_that_cannot_be_averaged_are_one_line(tmp_path):
    saved(tmp_path / "a", 0)
    saved(tmp_path / "b", 1, name="coral")
    with pytest.raises(UserError, match="method.name coral differs from the first's, "):
        soup([tmp_path / "a", tmp_path / "b"], tmp_path / "soup")
    with pytest.raises(UserError, match="two checkpoints"):
        soup([tmp_path / "a"], tmp_path / "soup")
    with pytest.raises(UserError, match="already exists"):
        soup([tmp_path / "a", tmp_path / "a"], tmp_path / "b")
