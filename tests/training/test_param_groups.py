"""Layer-wise learning-rate decay and freezing: laws on models, and real runs."""

import re

import pytest
import torch
from safetensors.torch import load_file

from mivolo_lite.card import Card
from mivolo_lite.cli import main
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.training.optim import OptimConfig, build_optimizer
from mivolo_lite.training.param_groups import Freeze, lr_scales
from mivolo_lite.training.schedule import set_learning_rate

SPAN = {"min_age": 0, "max_age": 100}
MODELS = {
    "single": {"backbone": "resnet18"},
    "dual": {"face": "test_resnet", "body": "test_vit"},
    "mivolo_d1_112": {},
    "multilevel": {"backbone": "test_resnet"},
    "swinface": {},
}


def estimator(model, size=64):
    options = {"name": model} | MODELS[model]
    return Estimator(Card(options, {"name": "dldl"}, dict(SPAN), 112 if "backbone" not in str(options) else size))


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_the_factor_rises_from_the_stem_to_the_heads(model):
    module = estimator(model)
    scales = lr_scales(module, 0.5)
    assert scales.keys() == dict(module.named_parameters()).keys()
    assert set(lr_scales(module, 1.0).values()) == {1.0}
    heads = {scale for name, scale in scales.items() if name.startswith(("method.", "gender_head."))}
    backbones = sorted(set(scales.values()))
    assert heads == {1.0} and backbones == [0.5**power for power in reversed(range(len(backbones)))]
    assert len(backbones) > 3


def test_a_residual_network_by_hand():
    scales = lr_scales(estimator("single"), 0.5)
    assert scales["model.backbone.conv1.weight"] == min(scales.values())
    assert scales["model.backbone.layer4.1.conv2.weight"] == 0.5
    assert scales["model.backbone.layer1.0.conv1.weight"] < scales["model.backbone.layer2.0.conv1.weight"]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_groups_hold_every_parameter_once_at_its_rate(model):
    module = estimator(model)
    freeze = Freeze(module, ["stem"], 1)
    optimizer = build_optimizer(module, OptimConfig(layer_decay=0.5), freeze.names)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    set_learning_rate(optimizer, 2.0, frozen=True)
    rates = {names[id(parameter)]: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    scales = lr_scales(module, 0.5)
    assert rates == {name: 0.0 if name in freeze.names else 2 * scale for name, scale in scales.items()}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    set_learning_rate(optimizer, 2.0)
    assert all(group["lr"] > 0 for group in optimizer.param_groups)


def test_a_frozen_backbone_is_in_evaluation_mode_and_its_parts_alone():
    module = estimator("dual").train()
    Freeze(module, ["face"], None).set_eval()
    assert not any(part.training for part in module.model.face.modules())
    assert all(part.training for part in module.model.body.modules()) and module.training
    freeze = Freeze(module, ["backbone"], 2.5)
    assert freeze.is_on(2.4) and not freeze.is_on(2.5) and not Freeze(module, [], None).is_on(0)
    assert Freeze(module, ["backbone"], None).is_on(1e9)


def test_mivolo_freezes_a_branch_and_never_what_joins_them():
    module = estimator("mivolo_d1_112")
    stems = "model.volo.patch_embed."
    face = Freeze(module, ["face"], None).names
    assert {name.removeprefix(stems).split(".")[0] for name in face} == {"conv1", "proj1"}
    fusion = {name for name, _ in module.named_parameters() if name.startswith(f"{stems}map.")}
    assert fusion and not fusion & Freeze(module, ["stem", "backbone"], None).names
    scales = lr_scales(module, 0.5)
    assert {scales[name] for name in fusion} == {1.0} and {scales[name] for name in face} == {min(scales.values())}


def test_a_part_that_the_model_lacks_is_one_line():
    with pytest.raises(
        UserError, match="train.freeze: this model has no 'body'; it has backbone, stem, conv1, bn1, layer1 and"
    ):
        Freeze(estimator("single"), ["body"], None)
    of_no_timm_model = estimator("single")
    of_no_timm_model.model.backbone = torch.nn.Linear(1, 1)
    with pytest.raises(UserError, match="this model has no 'stem'; it has none"):
        Freeze(of_no_timm_model, ["stem"], None)
    with pytest.raises(UserError, match="no 'layer1.5'; did you mean layer1.1"):
        Freeze(estimator("single"), ["layer1.5"], None)


def test_a_module_of_the_backbone_is_frozen_by_its_name():
    names = Freeze(estimator("single"), ["layer1", "layer2.0"], None).names
    assert {".".join(name.split(".")[2:4]) for name in names} == {"layer1.0", "layer1.1", "layer2.0"}
    assert "model.backbone.layer2.1.conv1.weight" not in names


def test_what_is_frozen_for_good_has_no_gradient_and_no_place_in_the_optimizer():
    module = estimator("single")
    freeze = Freeze(module, ["backbone"], None)
    optimizer = build_optimizer(module, OptimConfig(name="madgrad"), freeze.names)
    learning = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert learning == {id(value) for name, value in module.named_parameters() if name not in freeze.names}
    assert not any(value.requires_grad for name, value in module.named_parameters() if name in freeze.names)


@pytest.mark.slow
def test_a_run_learns_the_heads_alone_until_it_thaws(people, tmp_path, capsys):
    words = ["train", "--data.train", f"{people}/train", "--data.val", f"{people}/val", "--optim.epochs", "2"]
    words += ["--model.backbone", "test_resnet", "--data.image_size", "32", "--data.workers", "0"]
    words += ["--optim.global_batch", "16", "--train.save_every", "1", "--train.keep", "1000"]
    words += ["--optim.layer_decay", "0.7"]
    words += ["--train.freeze", "[backbone]", "--train.freeze_epochs", "1", "--run", f"{tmp_path}/run"]
    main(words)
    assert re.search(
        r"train.freeze: 0.\d\d of 0.\d\d M parameters do not learn before epoch 1\n", capsys.readouterr().out
    )
    states = [load_file(path / "model.safetensors") for path in sorted((tmp_path / "run/checkpoints").iterdir())]
    backbones = [{name: value for name, value in state.items() if name.startswith("model.")} for state in states]
    first, frozen, last = backbones[0], backbones[len(states) // 2 - 1], backbones[-1]
    assert all(torch.equal(first[name], frozen[name]) for name in first)  # its batch statistics as well
    assert not any(torch.equal(first[name], last[name]) for name in first if name.endswith("conv1.weight"))
    heads = [state["method.head.weight"] for state in states]
    assert not torch.equal(heads[0], heads[1])
