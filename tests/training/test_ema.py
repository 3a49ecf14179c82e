"""An exponential moving average (EMA) of the weights: the same as timm's, and put in the weights' place and back
without a trace."""

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from mivolo_lite.training.averaging import ModelEma


class Whole:
    """What an engine is to an average where every rank holds everything."""

    def __init__(self, estimator):
        self.estimator, self.parameters, self.shared = estimator, dict(estimator.named_parameters()), {}

    local_shard = staticmethod(torch.Tensor.detach)
    shard = staticmethod(lambda parameter, full: full)

    def sync_partitions(self):
        pass


@pytest.fixture
def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_it_is_timms(module):
    ema, reference = ModelEma(Whole(module), 0.7), ModelEmaV3(module, 0.7, use_warmup=True)
    for step in range(1, 20):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
        module[:2](torch.randn(5, 3, 3, 3))  # moves the batch statistics
        ema.update(step)
        reference.update(module, step)
    expected = reference.module.state_dict()
    assert ema.tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(ema.tensors[name], tensor)


def test_it_is_the_formula_for_every_tensor_also_where_a_buffer_is_set_anew(module):
    """To the bit; integers are copied."""
    module.register_buffer("ages", torch.arange(3.0))
    module.register_buffer("unsaved", torch.ones(1), persistent=False)
    ema, expected = ModelEma(Whole(module), 0.7), {name: tensor.clone() for name, tensor in module.state_dict().items()}
    for step in range(1, 5):
        with torch.no_grad():
            module[0].weight.add_(torch.randn_like(module[0].weight))
        module[:2](torch.randn(5, 3, 3, 3))
        module.ages = module.ages + 1
        ema.update(step)
        for name, tensor in module.state_dict().items():
            new = (
                torch.lerp(expected[name], tensor, 1 - min(0.7, 1 - step ** (-2 / 3)))
                if tensor.is_floating_point()
                else tensor
            )
            expected[name] = new.clone()
    assert ema.tensors.keys() == expected.keys()
    assert all(torch.equal(ema.tensors[name], expected[name]) for name in expected)
    assert ema.tensors["1.num_batches_tracked"] == 4 and ema.tensors["ages"][0] > 0


def test_while_applied_the_weights_are_the_average_and_afterwards_themselves(module):
    ema = ModelEma(Whole(module), 0.9)
    with torch.no_grad():
        module[3].weight.add_(1.0)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with ema.applied():
        torch.testing.assert_close(module[3].weight.detach(), before["3.weight"] - 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_what_was_saved_while_applied_is_loaded(module):
    ema = ModelEma(Whole(module), 0.9)
    with ema.applied():
        saved = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    other = ModelEma(Whole(module), 0.9)
    other.load(saved)
    assert all(torch.equal(other.tensors[name], saved[name]) for name in saved)
