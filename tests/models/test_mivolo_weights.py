"""Where a MiVOLO may start from."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from mivolo_lite.errors import UserError
from mivolo_lite.models.mivolo_weights import resized, start_from
from tests.models.tiny import SIDE, LargerTinyMivolo, TinyMivolo, features, images, tiny_mivolo

ENHANCER = "patch_embed.map."


def written(path, state):
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return str(path)


def test_one_stem_becomes_two(tmp_path):
    face_only = tiny_mivolo(input="face")
    head = face_only.make_head(3)
    weights = written(tmp_path / "face.safetensors", face_only.volo.state_dict() | head.state_dict())
    torch.manual_seed(5)
    fresh = TinyMivolo(TinyMivolo.Config(), SIDE)
    torch.manual_seed(5)
    model = TinyMivolo(TinyMivolo.Config(weights=weights), SIDE)
    source = face_only.volo.state_dict()
    for name, value in model.volo.state_dict().items():
        if name.startswith(ENHANCER):
            assert torch.equal(value, fresh.volo.state_dict()[name]), name
        else:
            for numbered in ("conv1", "conv2", "proj1", "proj2"):
                name = name.replace(f"patch_embed.{numbered}.", f"patch_embed.{numbered[:-1]}.")
            assert torch.equal(value, source[name]), name


def test_from_timms_imagenet_weights(tmp_path):
    """Its classifier of 1000 classes is left out; the trunk is taken as it is, however many inputs there are."""
    torch.manual_seed(0)
    volo = timm.create_model("volo_tiny_224", img_size=SIDE, num_classes=1000)
    weights = written(tmp_path / "imagenet.safetensors", volo.state_dict())
    for options in ({"input": "face"}, {}):
        model = TinyMivolo(TinyMivolo.Config(weights=weights, **options), SIDE)
        assert torch.equal(model.volo.network[0][0].attn.v.weight, volo.network[0][0].attn.v.weight)


def test_from_our_own_estimator(tmp_path):
    model = tiny_mivolo()
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    weights = written(tmp_path / "model.safetensors", state | {"method.head.head.weight": torch.zeros(1, 48)})
    again = TinyMivolo(TinyMivolo.Config(weights=weights), SIDE)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_at_another_resolution(tmp_path):
    model = tiny_mivolo()
    weights = written(tmp_path / "small.safetensors", model.volo.state_dict())
    larger = LargerTinyMivolo(LargerTinyMivolo.Config(weights=weights), LargerTinyMivolo.size).eval()
    changed = {
        name.split(".")[-1] if "norm" not in name else "norm"
        for name, value in larger.volo.state_dict().items()
        if not torch.equal(value, model.volo.state_dict().get(name, value))
    }
    assert changed == {"pos_embed", "height_rel", "width_rel", "norm"}
    assert features(larger, images(0, 64), images(1, 64)).isfinite().all()


def test_tables_keep_their_meaning_when_resized():
    distance = torch.arange(-5.0, 6.0)[:, None].expand(-1, 3)  # of a grid with 6 places a side
    for name, table, like in (
        ("patch_embed.map.pos_embed.height_rel", distance, torch.empty(15, 3)),
        ("patch_embed.map.pos_embed.width_rel", distance, torch.empty(15, 3)),
    ):
        wider = resized(name, table, like)  # a straight line stays one, from end to end
        torch.testing.assert_close(wider, torch.linspace(-5, 5, 15)[:, None].expand(-1, 3))
        torch.testing.assert_close(resized(name, wider, distance), distance, atol=1e-5, rtol=1e-5)
    for name, shape, larger in (
        ("pos_embed", (1, 3, 3, 8), (1, 4, 4, 8)),
        ("patch_embed.map.norm.weight", (8, 6, 6), (8, 9, 9)),
    ):
        constant = torch.randn(shape[0] if len(shape) == 3 else shape[-1])
        constant = constant.view(-1, 1, 1) if len(shape) == 3 else constant
        torch.testing.assert_close(
            resized(name, constant.expand(shape).contiguous(), torch.empty(larger)), constant.expand(larger)
        )
    same = torch.randn(1, 3, 3, 8)
    assert resized("pos_embed", same, torch.empty(1, 3, 3, 8)) is same


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state.pop("network.2.0.mlp.fc1.weight"), "missing: network.2.0.mlp.fc1.weight"),
        (lambda state: state.pop("patch_embed.map.qkv_f.weight"), "missing: patch_embed.map.qkv_f.weight"),
        (lambda state: state.update(surplus=torch.zeros(1)), "unexpected: surplus"),
        (lambda state: state.update(cls_token=torch.zeros(1, 1, 3)), r"wrong shape: cls_token \(1, 1, 3\)"),
    ],
)
def test_what_does_not_fit_is_listed(change, message):
    model = tiny_mivolo()
    state = model.volo.state_dict()
    change(state)
    with pytest.raises(UserError, match=message) as raised:
        start_from(tiny_mivolo(seed=1).volo, state, "some file")
    assert "\n" not in str(raised.value)


def test_two_inputs_do_not_fit_into_one():
    with pytest.raises(UserError, match="unexpected: .*conv1"):
        start_from(tiny_mivolo(input="face").volo, tiny_mivolo().volo.state_dict(), "some file")
