"""What SwinFace's paper and its published files say of the model."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mivolo_lite.cli import main
from mivolo_lite.convert.swinface import STATE_DICTS, TASKS, from_estimator, to_estimator
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.models.backbone import make_backbone
from mivolo_lite.models.level_attention import LevelAttention, shares
from mivolo_lite.models.multilevel import MultilevelModel, concat_levels
from mivolo_lite.models.swinface import SwinFaceModel

METHOD = {"name": "regression", "loss": "annealed", "normalise": False}
SPAN = {"min_age": 0, "max_age": 100}


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def whole():
    """An estimator with every published task."""
    torch.manual_seed(0)
    return Estimator(Card({"name": "swinface"}, dict(METHOD), dict(SPAN), 112, tasks=TASKS)).eval()


@pytest.fixture
def model(whole):
    return whole.model


def test_the_age_branch_has_the_published_sizes(model):
    subnet = model.make_subnet()
    assert shares(model.dims, 512) == [47, 93, 186, 186]
    assert size(subnet.attention.convs) == 2_973_888 and size(subnet.attention.gate) == 33_312
    assert size(subnet.attention.norm) == 1_024 and size(subnet.layers) == 525_312 and size(model.make_head(1)) == 513


@pytest.mark.parametrize("dims, width", [([192, 384, 768, 768], 512), ([24, 40, 112, 320], 512), ([5, 7, 90], 64)])
def test_shares_are_proportional_and_add_up(dims, width):
    split = shares(dims, width)
    assert sum(split) == width and all(share > 0 for share in split)
    assert all(abs(share - width * dim / sum(dims)) < 1 for share, dim in zip(split, dims, strict=True))


@torch.no_grad()
def test_levels_are_tapped_after_the_merging_of_patches(model):
    taps = []
    merged = [stage.downsample for stage in model.swin.layers[1:]] + [model.swin.layers[3]]
    hooks = [module.register_forward_hook(lambda *call: taps.append(call[-1])) for module in merged]
    face = torch.randn(1, 3, 112, 112)
    model.swin.forward_features(face)
    for hook in hooks:
        hook.remove()
    assert [tuple(tap.shape[1:]) for tap in taps] == [(28, 28, 192), (14, 14, 384), (7, 7, 768), (7, 7, 768)]
    levels = [tap.movedim(-1, 1) for tap in taps]
    pooled = [nn.functional.avg_pool2d(level, level.shape[2] // 7) for level in levels]
    torch.testing.assert_close(model(Images.of(face), None, 1), torch.cat(pooled, dim=1))


def test_levels_of_any_grid_are_joined():
    fine, middle, coarse = torch.ones(2, 3, 13, 13), torch.ones(2, 4, 7, 7), torch.ones(2, 5, 3, 3)
    assert concat_levels([fine, middle, coarse]).shape == (2, 12, 3, 3) and concat_levels([fine, coarse]).eq(1).all()


def test_a_channel_that_is_nowhere_positive_says_nothing():
    attention = LevelAttention([3, 5], 32).eval()
    levels = torch.randn(2, 8, 4, 4)
    with torch.no_grad():
        for conv in attention.convs:
            conv.weight.zero_()
        assert attention(levels).abs().max() == 0


@pytest.mark.slow
def test_it_starts_from_timms_swin_and_from_its_own_files(whole, tmp_path):
    torch.manual_seed(1)
    timms = make_backbone(SwinFaceModel.backbone, 224).state_dict()
    torch.save(timms, tmp_path / "timm.pt")
    torch.save(from_estimator(whole.state_dict(), whole.model), tmp_path / "official.pt")
    save_file(whole.state_dict(), tmp_path / "ours.safetensors")
    loaded = {
        path.stem: SwinFaceModel(SwinFaceModel.Config(weights=str(path)), 112).swin.state_dict()
        for path in tmp_path.iterdir()
    }
    assert torch.equal(loaded["timm"]["layers.2.blocks.3.mlp.fc1.weight"], timms["layers.2.blocks.3.mlp.fc1.weight"])
    assert loaded["timm"]["patch_embed.proj.weight"].shape[2:] == (2, 2)
    for name, value in whole.model.swin.state_dict().items():
        assert torch.equal(loaded["ours"][name], value) and torch.equal(loaded["official"][name], value)


@pytest.mark.slow
def test_other_image_sizes(whole, tmp_path):
    save_file(whole.state_dict(), tmp_path / "ours.safetensors")
    smaller = SwinFaceModel(SwinFaceModel.Config(weights=str(tmp_path / "ours.safetensors")), 64)
    assert smaller(*2 * [Images.of(torch.randn(2, 3, 64, 64))], 2).shape == (2, 2112, 4, 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change, message",
    [
        (lambda parts: parts.pop(STATE_DICTS[1]), f"no {STATE_DICTS[1]}"),
        (lambda parts: parts[STATE_DICTS[3]].pop("output_fcs.41.bias"), "state_dict_om.*missing: output_fcs.41.bias"),
        (
            lambda parts: parts[STATE_DICTS[0]].update(surplus=torch.zeros(1)),
            "state_dict_backbone.*unexpected: surplus",
        ),
        (lambda parts: parts[STATE_DICTS[2]].update({"nets.0.feature.0.bias": torch.zeros(3)}), "wrong shape"),
    ],
)
def test_what_is_wrong_is_named(whole, change, message):
    parts = from_estimator(whole.state_dict(), whole.model)
    change(parts)
    with pytest.raises(UserError, match=message) as raised:
        to_estimator(parts, whole.state_dict(), whole.model, "official.pt")
    assert str(raised.value).startswith("official.pt") and "\n" not in str(raised.value)


def test_the_years_at_output_nought_travel_in_the_bias(whole):
    state = whole.state_dict()
    state = {**state, "method.center": torch.tensor(33.0)}
    parts = from_estimator(state, whole.model)
    assert torch.equal(parts[STATE_DICTS[3]]["output_fcs.1.bias"], state["method.head.bias"] + 33)
    again = to_estimator(parts, whole.state_dict(), whole.model, "x")
    assert again["method.center"] == 0 and torch.equal(again["method.head.bias"], state["method.head.bias"] + 33)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("an object of the file was called",))


@pytest.mark.slow
def test_nothing_else_is_unpickled(whole, tmp_path, capsys):
    parts = from_estimator(whole.state_dict(), whole.model)
    torch.save(parts | {"state_lr_scheduler": Bomb()}, tmp_path / "official.pt")
    with pytest.raises(SystemExit) as stop:
        main(["convert", str(tmp_path / "official.pt"), str(tmp_path / "best")])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and "only tensors and plain values are read" in error


@pytest.mark.slow
@pytest.mark.parametrize("method, part", [(METHOD, "all of them"), ({"name": "coral"}, "normalise: false")])
def test_only_what_has_every_published_output_is_published(method, part, tmp_path, capsys):
    Estimator(Card({"name": "swinface"}, dict(method), dict(SPAN), 112)).save(tmp_path / "best")
    with pytest.raises(SystemExit):
        main(["convert", str(tmp_path / "best"), str(tmp_path / "official.pt")])
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and part in error and not (tmp_path / "official.pt").exists()


def test_a_backbone_without_these_levels_is_a_users_error():
    with pytest.raises(UserError, match="fewer than model.levels 40"):
        MultilevelModel(MultilevelModel.Config(backbone="test_resnet", levels=40), 48)


def test_options_made_in_python_are_checked():
    with pytest.raises(UserError, match="^model.levels: 0 is not a whole number from 1 to 64$"):
        MultilevelModel(MultilevelModel.Config(backbone="test_resnet", levels=0), 48)
