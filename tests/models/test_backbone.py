"""timm's backbones: names, sizes, options, and weights from local files."""

import os
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import DropPath

from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.models import MODELS
from mivolo_lite.models.backbone import Tokens, make_backbone
from mivolo_lite.models.weights import read_state_dict

SIDE = 48
REAL = Path(os.environ.get("WEIGHTS_DIR", "")) / "efficientnet_lite0_imagenet.safetensors"


def raised_by(function, *arguments, **options):
    """The one line of the UserError."""
    with pytest.raises(UserError) as raised:
        function(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def image(side=SIDE):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_an_unknown_name_is_answered_with_the_nearest():
    assert "did you mean resnet18" in raised_by(make_backbone, "resnet81", SIDE)
    assert "list_models" in raised_by(make_backbone, "§§§", SIDE)


def test_a_size_that_a_backbone_cannot_take():
    single = MODELS["single"]
    message = raised_by(single, single.Config(backbone="test_vit"), 40)
    assert "test_vit" in message and "40 pixels" in message


def test_options_that_a_backbone_does_not_have():
    assert "drop_path_rate" in raised_by(make_backbone, "vgg11", SIDE, drop_path_rate=0.1)
    make_backbone("test_byobnet", SIDE, drop_path_rate=0.0, drop_rate=0.0)


def test_no_stochastic_depth_unless_asked():
    """Swin has 0.1 where nothing is said."""
    name = "swin_tiny_patch4_window7_224"
    with torch.device("meta"):
        silent, asked = timm.create_model(name), make_backbone(name, 224, drop_path_rate=0.0)
    assert any(isinstance(module, DropPath) for module in silent.modules())
    assert not any(isinstance(module, DropPath) for module in asked.modules())


def test_weights_that_cannot_be_fetched(monkeypatch):
    def no_network(*_, **__):
        raise OSError("cannot reach the hub\nand more lines")

    monkeypatch.setattr(timm, "create_model", no_network)
    message = raised_by(make_backbone, "resnet18", SIDE, pretrained=True)
    assert "cannot reach the hub" in message and "local file" in message


def test_one_start_only(tmp_path):
    assert "not both" in raised_by(make_backbone, "resnet18", SIDE, pretrained=True, weights=tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_local_weights_without_their_classifier(tmp_path, name, suffix):
    torch.manual_seed(1)
    classifier = timm.create_model(name, **({"img_size": SIDE} if name == "test_vit" else {})).eval()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":  # as timm's trainer writes it, with the averaged weights beside the last ones
        last = {key: torch.zeros_like(value) for key, value in classifier.state_dict().items()}
        averaged = {f"module.{key}": value for key, value in classifier.state_dict().items()}
        torch.save({"state_dict": last, "state_dict_ema": averaged, "epoch": 3}, path)
    else:
        save_file(classifier.state_dict(), path)
    backbone = make_backbone(name, SIDE, weights=path).eval()
    with torch.no_grad():
        found = backbone(image())
        torch.testing.assert_close(
            found, classifier.forward_head(classifier.forward_features(image()), pre_logits=True)
        )


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_branch_starts_from_a_run_of_a_single_model(tmp_path, name):
    torch.manual_seed(1)
    options = {"name": "single", "backbone": name}
    single = Estimator(Card(options, {"name": "regression"}, {"min_age": 0, "max_age": 100}, SIDE))
    single.save(tmp_path)
    weights = tmp_path / "model.safetensors"
    dual = MODELS["dual"](MODELS["dual"].Config(face=name, body="test_vit", face_weights=str(weights), dim=32), SIDE)
    own = single.model.backbone.state_dict()
    branch = dual.face.tokens.backbone.state_dict()
    assert own.keys() == branch.keys() and all(torch.equal(own[key], branch[key]) for key in own)
    other = raised_by(make_backbone, "test_convnext", SIDE, weights=weights)
    assert "missing" in other and "unexpected" in other


def test_position_tables_follow_the_size(tmp_path):
    torch.manual_seed(1)
    save_file(timm.create_model("test_vit", img_size=64, num_classes=0).state_dict(), tmp_path / "x.safetensors")
    backbone = make_backbone("test_vit", SIDE, weights=tmp_path / "x.safetensors")
    assert backbone.pos_embed.shape[1] == (SIDE // 16) ** 2 + 1


def test_weights_of_another_model_are_listed(tmp_path):
    torch.manual_seed(1)
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    state["surplus"] = state.pop("conv1.weight") if "conv1.weight" in state else state.pop("conv1.0.weight")
    state["layer1.0.conv1.weight"] = torch.zeros(1)
    save_file(state, tmp_path / "x.safetensors")
    message = raised_by(make_backbone, "test_resnet", SIDE, weights=tmp_path / "x.safetensors")
    assert re.search(r"missing: conv1\S*; unexpected: surplus; wrong shape: layer1.0.conv1.weight \(1,\)", message)
    other = raised_by(make_backbone, "test_vit", SIDE, weights=tmp_path / "x.safetensors")
    assert re.search(r"missing: .* and \d+ more; unexpected", other)


def test_files_that_are_no_weights(tmp_path):
    assert "no such weights file" in raised_by(read_state_dict, tmp_path / "absent.safetensors")
    for name in ("text.safetensors", "text.pth"):
        (tmp_path / name).write_text("not weights")
        assert "is text, not weights" in raised_by(read_state_dict, tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    assert "holds a list" in raised_by(read_state_dict, tmp_path / "list.pth")


class Bomb:
    def __init__(self, function):
        self.function = function

    def __reduce__(self):
        return (self.function, ("an object of the file was called",))


@pytest.mark.parametrize("function, name", [(pytest.fail, "_pytest.outcomes"), (os.system, f"{os.name}.system")])
def test_nothing_is_unpickled(function, name, tmp_path):
    torch.save({"state_dict": {}, "args": Bomb(function)}, tmp_path / "bomb.pth")
    reason = raised_by(read_state_dict, tmp_path / "bomb.pth")
    assert f"holds the object {name}" in reason and "only tensors and plain values are read" in reason


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_mambaout", "test_efficientnet"])
def test_tokens_are_rows_of_the_last_map(name):
    torch.manual_seed(0)
    tokens = Tokens(name, 64).eval()
    with torch.no_grad():
        found, raw = tokens(image(64)), tokens.backbone(image(64))
    assert found.shape[0] == 2 and found.shape[2] == tokens.num_features
    if raw.ndim == 3:
        assert torch.equal(found, raw)
    else:
        raw = raw if name == "test_mambaout" else raw.permute(0, 2, 3, 1)  # the only one of these with channels last
        assert torch.equal(found, raw.flatten(1, 2))


def test_each_backbone_gets_its_own_normalisation():
    model = {"name": "dual", "face": "test_efficientnet", "body": "test_vit", "dim": 32}
    estimator = Estimator(Card(model, {"name": "regression"}, {"min_age": 0, "max_age": 9}, SIDE)).eval()
    pixels, seen = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8), []
    for branch in (estimator.model.face, estimator.model.body):
        branch.tokens.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    estimator(Images.of(pixels), Images.of(pixels))
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    torch.testing.assert_close(seen[0], (pixels / 255 - mean) / std)
    torch.testing.assert_close(seen[1], (pixels / 255 - 0.5) / 0.5)


def test_heads_of_the_exchange_divide_its_width():
    assert "multiple" in raised_by(MODELS["dual"].Config, face="test_vit", body="test_vit", dim=30, heads=4)


@pytest.mark.skipif(
    not REAL.is_file(), reason="WEIGHTS_DIR names no folder with efficientnet_lite0_imagenet.safetensors"
)
def test_real_weights():
    single = MODELS["single"]
    config = single.Config(backbone="efficientnet_lite0", weights=str(REAL))
    model = single(config, 96).eval()
    assert torch.equal(model.backbone.conv_stem.weight, read_state_dict(REAL)["conv_stem.weight"])
    assert "missing: conv1.weight" in raised_by(make_backbone, "resnet18", 96, weights=REAL)
