"""The parts that stand in for MiVOLO's own in inference, and the model made of them, against what they replace."""

import copy

import pytest
import torch
from timm.layers import Mlp
from timm.models.volo import ClassAttention, OutlookAttention
from torch import nn

from mivolo_lite.images.packed import Images
from mivolo_lite.models import mivolo_inference
from mivolo_lite.models.mivolo_enhancer import Pointwise, RelativePositions, VolumeNorm, attend
from mivolo_lite.models.mivolo_inference import (
    GatheredOutlook,
    OneQueryAttention,
    PackedLinear,
    TokenNorm,
    attend_by_sample,
    for_inference,
    pack,
    pack_mlp,
)
from tests.models.tiny import images, tiny_mivolo

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def no_gradients():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.mark.parametrize("height, width, stride, window", [(6, 6, 2, 3), (7, 5, 2, 3), (6, 4, 1, 3), (9, 9, 3, 3)])
def test_gathered_windows_are_timms(height, width, stride, window):
    attention = OutlookAttention(8, 2, kernel_size=window, padding=1, stride=stride)
    x = torch.randn(2, height, width, 8)
    torch.testing.assert_close(GatheredOutlook(attention)(x), attention(x))


def test_one_query_is_timms_class_attention():
    attention = ClassAttention(12, 3)
    x = torch.randn(2, 7, 12)
    torch.testing.assert_close(OneQueryAttention(attention)(x), attention(x))


@pytest.mark.parametrize("layer", [nn.Linear(12, 5), nn.Linear(12, 5, bias=False), Pointwise(12, 5)])
@pytest.mark.parametrize("rows", [(1, 1), (2, 49), (3, 7, 7)])
def test_a_packed_layer_is_the_layer(layer, rows):
    x = torch.randn(*rows, 12)
    torch.testing.assert_close(pack(layer)(x), layer(x))


def test_a_packed_mlp_is_timms():
    mlp = Mlp(12, 36)
    x = torch.randn(2, 3, 3, 12)
    torch.testing.assert_close(pack_mlp(mlp)(x), mlp(x))


def test_attention_by_sample_is_that_of_the_batch():
    positions = RelativePositions(side=4, dim=6)
    query, key, value = torch.randn(3, 2, 16, 6)
    torch.testing.assert_close(
        attend_by_sample(query, key, value, positions), attend(query, key, value, positions), atol=1e-5, rtol=1e-5
    )


def test_the_norm_of_tokens_is_that_of_the_volume():
    norm = VolumeNorm([6, 4, 4])
    for affine in (norm.weight, norm.bias):
        affine.normal_()
    tokens = torch.randn(2, 16, 6)
    assert torch.equal(TokenNorm(norm)(tokens), norm(tokens))


def test_the_copy_is_frozen_and_the_model_as_it_was():
    model = tiny_mivolo()
    before = copy.deepcopy(model.state_dict())
    fast = for_inference(model)
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[name], value) for name, value in before.items())


PRESENT = {  # which of two samples have a face, which a body; None: no such images at all
    "both": (True, True),
    "faces": (True, None),
    "bodies": (None, True),
    "mixed": ((True, False), (True, True)),
    "one of each": ((True, False), (False, True)),
    "masked faces": (False, True),
}


@pytest.mark.parametrize("present", PRESENT)
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("onednn", [True, False])
def test_same_outputs(present, batch, onednn, monkeypatch):
    """With and without oneDNN, for batches of every composition."""
    if not onednn:
        monkeypatch.setattr(mivolo_inference, "is_packable", lambda layer: False)
    model = tiny_mivolo()
    fast = model.for_inference()
    assert any(isinstance(module, PackedLinear) for module in fast.modules()) == (
        onednn and torch.backends.mkldnn.is_available()
    )
    given = []
    for seed, has in enumerate(PRESENT[present]):
        there = torch.tensor(bool(has) if has in (None, True) else has).expand(2).repeat(4)[:batch]
        given.append(Images.of(images(seed).repeat(4, 1, 1, 1)[:batch], there))
    torch.testing.assert_close(fast(*given, batch), model(*given, batch), atol=1e-4, rtol=0)
