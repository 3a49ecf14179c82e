"""The optimizer's groups and the learning rate's course."""

import copy

import pytest
import torch
from timm.layers import CondConv2d
from torch import nn

from mivolo_lite.errors import UserError
from mivolo_lite.models import MODELS
from mivolo_lite.models.mivolo_enhancer import Pointwise
from mivolo_lite.training.optim import OptimConfig, build_optimizer, decayed_names
from mivolo_lite.training.schedule import learning_rate
from tests.models.test_every_model import BUILDERS
from tests.models.tiny import SIDE, TinySwinFace, tiny_mivolo

KERNELS = (nn.Linear, nn.Conv2d, Pointwise)


def test_norms_and_biases_do_not_decay_and_nothing_is_left_out():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    decayed, free = build_optimizer(module, OptimConfig(weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1 and free["weight_decay"] == 0
    assert {id(p) for p in decayed["params"]} == {id(module[0].weight), id(module[2].weight)}
    assert len(decayed["params"]) + len(free["params"]) == len(list(module.parameters()))


@pytest.mark.parametrize("label", BUILDERS)
def test_in_every_model_matrices_and_kernels_decay_and_nothing_else(label):
    name, options = BUILDERS[label]
    cls = TinySwinFace if name == "swinface" else MODELS.get(name)
    model = tiny_mivolo(**options) if cls is None else cls(cls.Config(**options), SIDE)
    module = nn.ModuleDict({"model": model, "subnet": model.make_subnet(), "head": model.make_head(1)})
    kernels = {f"{path}.weight" for path, part in module.named_modules() if isinstance(part, KERNELS)}
    assert decayed_names(module) == kernels
    decayed, rest = build_optimizer(module, OptimConfig()).param_groups
    assert len(decayed["params"]) == len(kernels)
    assert len(decayed["params"]) + len(rest["params"]) == len(list(module.parameters()))


def test_norms_and_tables_of_many_dimensions_do_not_decay():
    """MiVOLO's norm, timm's list, biases, tokens and tables, whatever their shapes."""
    volo = tiny_mivolo()
    decayed = decayed_names(volo)
    spared = {name: parameter for name, parameter in volo.named_parameters() if name not in decayed}
    shapes = {name.removeprefix("volo."): parameter.ndim for name, parameter in spared.items() if parameter.ndim > 1}
    assert shapes == {
        "cls_token": 3, "pos_embed": 4, "patch_embed.map.norm.weight": 3, "patch_embed.map.norm.bias": 3,
        "patch_embed.map.pos_embed.height_rel": 2, "patch_embed.map.pos_embed.width_rel": 2,
    }  # fmt: skip
    experts = CondConv2d(3, 4, 3, bias=True, num_experts=2)  # a matrix of biases
    assert decayed_names(experts) == {"weight"}
    assert decayed_names(nn.Embedding(3, 4)) == set()
    listed = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    listed[1].no_weight_decay = lambda: {"weight"}
    assert decayed_names(listed) == {"0.weight"}


def test_the_fused_update_is_the_same():
    """Also of kernels in channels-last memory: the fused kernel goes through memory, whatever the strides say."""
    torch.manual_seed(0)
    start = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    start.to(memory_format=torch.channels_last)
    images, results = torch.randn(5, 5, 3, 8, 8), []
    for fused in (True, False):
        module = copy.deepcopy(start)
        optimizer = build_optimizer(module, OptimConfig(lr=0.1))
        assert all(group["fused"] for group in optimizer.param_groups)
        for group in optimizer.param_groups:
            group["fused"] = fused
        for batch in images:
            optimizer.zero_grad()
            module(batch).square().sum().backward()
            optimizer.step()
        results.append(module.state_dict())
    torch.testing.assert_close(*results)


def test_elsewhere_than_on_cpus_and_nvidias_torch_decides():
    assert build_optimizer(nn.Linear(2, 2, device="meta"), OptimConfig()).defaults["fused"] is None


def test_frozen_parameters_are_not_trained():
    module = nn.Linear(2, 2).requires_grad_(False)
    module.bias.requires_grad_(True)
    groups = build_optimizer(module, OptimConfig()).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(1, 0.0)]


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine():
    config = OptimConfig(lr=1.0, min_lr=0.1, warmup_epochs=2)
    course = [learning_rate(step, 100, 5.0, config) for step in range(101)]
    assert course[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert course[10] == 1.0 and course[100] == pytest.approx(0.1)
    assert course[55] == pytest.approx(0.55)  # half way down
    assert all(after < before for before, after in zip(course[10:], course[11:], strict=False))


def test_without_warmup_it_starts_at_its_highest():
    assert learning_rate(0, 10, 3.3, OptimConfig(lr=0.5, warmup_epochs=0)) == 0.5


def test_a_fractional_warmup_never_exceeds_the_highest():
    config = OptimConfig(lr=1.0, warmup_epochs=0.5)
    assert max(learning_rate(step, 50, 7.3, config) for step in range(50)) <= 1.0


def test_moments_are_those_of_the_configuration():
    optimizer = build_optimizer(nn.Linear(2, 2), OptimConfig(beta1=0.8, beta2=0.95))
    assert optimizer.defaults["betas"] == (0.8, 0.95)
    assert isinstance(optimizer, torch.optim.AdamW)


@pytest.mark.parametrize("name", ["madgrad", "madgradw"])
def test_an_optimizer_that_moves_frozen_weights_is_one_line(name):
    layer = torch.nn.Linear(2, 2)
    build_optimizer(layer, OptimConfig(name=name))
    with pytest.raises(UserError, match="train.freeze"):
        build_optimizer(layer, OptimConfig(name=name), ["weight"])


def test_averaging_that_never_begins_is_one_line():
    with pytest.raises(UserError, match="optim.swa_start 5: the training ends after 5 epochs"):
        OptimConfig(swa_start=5, epochs=5)
