"""MiVOLO against its description, timm's VOLO, and loops that spell its attention out."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mivolo_lite.errors import UserError
from mivolo_lite.models.mivolo import MIVOLO, MivoloHead
from mivolo_lite.models.mivolo_enhancer import MivoloEnhancer, RelativePositions, attend
from tests.models.tiny import SIDE, TinyMivolo, features, images, tiny_mivolo


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    "size, input, outputs, parameters, patch_embed",
    [
        (224, "face", 3, 25_864_350, 280_320),
        (224, "face", 1, 25_862_810, 280_320),
        (224, "both", 3, 27_432_414, 1_848_384),
        (224, "both", 1, 27_430_874, 1_848_384),
        (384, "both", 3, 28_761_054, 3_031_104),
    ],
)
def test_as_many_parameters_as_published(size, input, outputs, parameters, patch_embed):
    cls = MIVOLO[f"mivolo_d1_{size}"]
    with torch.device("meta"):
        model = cls(cls.Config(input=input), size)
        head = model.make_head(outputs)
    assert count(model) + count(head) == parameters
    assert count(model.volo.patch_embed) == patch_embed


def test_a_image_of_another_size_is_an_error():
    with pytest.raises(UserError, match="mivolo_d1_224 takes images of 224 pixels, not 384.*mivolo_d1_384"):
        MIVOLO["mivolo_d1_224"](MIVOLO["mivolo_d1_224"].Config(), 384)


@torch.no_grad()
def test_one_input_is_timms_volo():
    model = tiny_mivolo(input="face")
    head = model.make_head(3)
    volo = timm.create_model("volo_tiny_224", img_size=SIDE, num_classes=3).eval()
    volo.load_state_dict(model.volo.state_dict() | head.state_dict())
    torch.testing.assert_close(head(features(model, images())), volo(images()))


@torch.no_grad()
def test_the_head_adds_half_the_largest_patch():
    head = MivoloHead(4, 2)
    tokens = torch.randn(3, 6, 4)
    expected = head.head(tokens[:, 0]) + 0.5 * torch.stack([head.aux_head(t) for t in tokens[:, 1:]]).max(1).values
    torch.testing.assert_close(head(tokens), expected)


def slow_attention(query, key, value, positions):
    """softmax(s q k^T + R(q)) v, one query at a time."""
    side, dim = positions.side, query.shape[-1]
    places = [(row, column) for row in range(side) for column in range(side)]
    result = torch.zeros_like(query)
    for sample in range(len(query)):
        for n, (row, column) in enumerate(places):
            q = query[sample, n]
            logits = []
            for m, (key_row, key_column) in enumerate(places):
                down = positions.height_rel[key_row - row + side - 1]
                right = positions.width_rel[key_column - column + side - 1]
                logits.append(dim**-0.5 * q @ key[sample, m] + q @ down + q @ right)
            result[sample, n] = torch.stack(logits).softmax(0) @ value[sample]
    return result


@torch.no_grad()
def test_attention_with_positions_as_defined():
    torch.manual_seed(0)
    positions = RelativePositions(side=4, dim=6).double()
    query, key, value = torch.randn(3, 2, 16, 6, dtype=torch.float64)
    expected = slow_attention(query, key, value, positions)
    torch.testing.assert_close(attend(query, key, value, positions), expected, rtol=0, atol=1e-10)


class Sizes(TorchDispatchMode):
    """Notes how many elements each tensor has that an operation makes."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.made += [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        return result


def test_no_table_of_all_pairs_is_made_forward_or_backward():
    positions = RelativePositions(side=20, dim=16)
    query, key, value = torch.randn(3, 1, 400, 16, requires_grad=True).unbind()
    with Sizes() as sizes:
        attend(query, key, value, positions).square().sum().backward()
    assert len(sizes.made) > 20 and max(sizes.made) < 400 * 400 / 4


@torch.no_grad()
@pytest.mark.parametrize("black", [["face"], ["body"], ["face", "body"]])
def test_cells_stand_for_all_their_places(black):
    torch.manual_seed(0)
    enhancer = MivoloEnhancer(dim=6, side=5)
    for affine in (enhancer.norm.weight, enhancer.norm.bias):
        affine.normal_()
    given = {"face": torch.randn(2, 25, 6), "body": torch.randn(2, 25, 6)}
    cells = torch.randn(1, 9, 6)
    line = torch.tensor([0, 1, 1, 1, 2])
    spread = cells.view(1, 3, 3, 6)[:, line[:, None], line].reshape(1, 25, 6).expand(2, -1, -1)
    found = enhancer(**given | dict.fromkeys(black, cells)).expand(2, -1, -1)
    torch.testing.assert_close(found, enhancer(**given | dict.fromkeys(black, spread)))


@torch.no_grad()
def test_the_enhancer_is_symmetric_in_its_inputs():
    """Swapping the images together with every weight that belongs to one of them changes nothing."""
    model, other = tiny_mivolo(), tiny_mivolo()
    state = model.volo.state_dict()
    swapped = {}
    for name, value in state.items():
        for one, two in (("conv1", "conv2"), ("proj1", "proj2"), ("qkv_f", "qkv_p")):
            if one in name:
                name = name.replace(one, two)
            elif two in name:
                name = name.replace(two, one)
        if ".map.norm." in name:
            value = value.roll(len(value) // 2, 0)
        if name.endswith("map.mlp.fc1.weight"):
            value = value.roll(value.shape[1] // 2, 1)
        swapped[name] = value
    other.volo.load_state_dict(swapped)
    face, body = images(0), images(1)
    torch.testing.assert_close(features(other, body, face), features(model, face, body), atol=1e-5, rtol=1e-5)
    assert (features(model, body, face) - features(model, face, body)).abs().max() > 1e-3


def test_initialisation_of_the_enhancer():
    torch.manual_seed(0)
    enhancer = MivoloEnhancer(dim=192, side=28)
    for weight in (enhancer.qkv_f.weight, enhancer.qkv_p.weight, enhancer.pos_embed.height_rel):
        assert weight.std().item() == pytest.approx(192**-0.5, rel=0.05)


@torch.no_grad()
def test_no_dropout_in_evaluation():
    model = tiny_mivolo(drop_rate=0.5, drop_path_rate=0.5)
    face, body = images(0), images(1)
    assert torch.equal(features(model, face, body), features(model, face, body))
    model.train()
    dropped = features(model, face, body)
    assert (dropped == 0).float().mean() > 0.3
    assert F.mse_loss(dropped, features(model, face, body)) > 0


def test_pretrained_and_weights_exclude_each_other():
    with pytest.raises(UserError, match="not both"):
        TinyMivolo(TinyMivolo.Config(pretrained=True, weights="some.safetensors"), SIDE)
